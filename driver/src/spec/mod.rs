//! From Nomad's task configuration to the helper's task specification.
//!
//! Pure apart from looking for the image's folder. Everything wrong with a job is collected and
//! reported at once; what this version cannot do is refused, never ignored in silence.

pub(crate) mod image;
pub(crate) mod resources;
pub(crate) mod signal;

use std::path::PathBuf;

use proto::name::TaskKey;
use proto::nomad::drivers::network_isolation_spec::NetworkIsolationMode;
use proto::nomad::drivers::{NetworkIsolationSpec, TaskConfig};
use proto::path::Absolute;
use proto::secret::Secret;
use proto::spec::{Layer, Logs, Network, Payload, Root, RootFs, TaskSpec, Users};

use crate::config::task::TaskKeys;
use crate::config::{Problem, environment, judge};
use crate::error::Failure;

/// Time between the stop signal and the kill when the host shuts down. Nomad does not tell the
/// driver the job's kill_timeout before it stops the task; this is its client's own upper bound.
const SHUTDOWN_TIMEOUT_MS: u64 = 30_000;

/// Builds the specification. Blocks on the file system.
///
/// # Errors
/// Every problem of the job in one final error.
pub(crate) fn build(task: &TaskConfig, folders: &[PathBuf]) -> Result<TaskSpec, Failure> {
    let mut problems = Vec::new();
    let keys = TaskKeys::decode(&task.msgpack_driver_config, &mut problems);
    unsupported(task, &mut problems);
    let key = collect(task_key(task), &mut problems);
    let alloc_dir = Absolute::parse(&task.alloc_dir)
        .map_err(|e| Problem::new("alloc_dir", e.to_string()).value(&task.alloc_dir));
    let alloc_dir = collect(alloc_dir, &mut problems);
    let network = network(task.network_isolation_spec.as_ref(), keys.network_veth);
    let network = collect(network, &mut problems);
    let environment = environment::merge(&keys.environment.0, &task.env, &mut problems);
    // Only a text that is well formed is worth a look at the disk.
    let image = if problems.is_empty() {
        collect(image::resolve(&keys.image, folders), &mut problems)
    } else {
        None
    };
    judge(&problems)?;
    let (Some(key), Some(alloc_dir), Some(network), Some(image)) = (key, alloc_dir, network, image)
    else {
        return Err(Failure::last("job not valid"));
    };
    Ok(TaskSpec {
        root: RootFs::tree(if keys.ephemeral { Root::Ephemeral(Layer::Disk) } else { Root::Plain }),
        users: if keys.user_namespacing { Users::Pick } else { Users::Host },
        network,
        environment,
        logs: logs(task),
        stop_signal: None,
        kill_timeout_ms: SHUTDOWN_TIMEOUT_MS,
        resources: resources::limits(task.resources.as_ref()),
        payload: payload(keys),
        ..TaskSpec::new(key, alloc_dir, image)
    })
}

fn collect<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// Reads the task's id and compares it with the fields that say the same.
fn task_key(task: &TaskConfig) -> Result<TaskKey, Problem> {
    let problem = |rule: String| Problem::new("task id", rule).value(&task.id);
    let key: TaskKey = task.id.parse().map_err(|e| problem(format!("{e}")))?;
    let same = key.task.as_str() == task.name && key.alloc.to_string() == task.alloc_id;
    if same {
        Ok(key)
    } else {
        Err(problem(format!(
            "does not belong to task {:?} of allocation {:?}",
            task.name, task.alloc_id
        )))
    }
}

/// What a task may ask of Nomad and this version of the driver cannot give.
fn unsupported(task: &TaskConfig, problems: &mut Vec<Problem>) {
    let mut refuse = |key: &str, remedy: &str| {
        problems.push(
            Problem::new(key, "not supported yet by this version of the nspawn driver")
                .remedy(remedy),
        );
    };
    if !task.user.is_empty() {
        refuse("user", "remove user from the task");
    }
    if !task.mounts.is_empty() {
        refuse("volume_mount", "remove volume_mount from the task");
    }
    if !task.devices.is_empty() {
        refuse("device", "remove device from the task's resources");
    }
}

fn network(spec: Option<&NetworkIsolationSpec>, veth: bool) -> Result<Network, Problem> {
    let spec =
        spec.filter(|spec| !(spec.mode() == NetworkIsolationMode::Host && spec.path.is_empty()));
    let Some(spec) = spec else {
        // The group has no network of its own, or the host's.
        return Ok(if veth { Network::Loopback } else { Network::Host });
    };
    if spec.mode() != NetworkIsolationMode::Group {
        return Err(Problem::new(
            "network",
            format!("mode {} is not supported", spec.mode().as_str_name()),
        )
        .remedy("use bridge, none, cni/… or host in the group's network block"));
    }
    Absolute::parse(&spec.path)
        .map(Network::Join)
        .map_err(|e| Problem::new("network namespace", e.to_string()).value(&spec.path))
}

fn logs(task: &TaskConfig) -> Logs {
    let discarded = |path: &str| path.is_empty() || path == "/dev/null";
    if discarded(&task.stdout_path) && discarded(&task.stderr_path) {
        Logs::Discard
    } else {
        Logs::Fifos
    }
}

fn payload(keys: TaskKeys) -> Payload {
    let boots = keys.boots();
    let words = keys.command.into_iter().map(Secret::new).collect();
    match (boots, keys.process_two) {
        (true, _) => Payload::Boot { arguments: words },
        (false, true) => Payload::ProcessTwo { words },
        (false, false) => Payload::Command { words },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::{Value, tests::encode};
    use proto::nomad::drivers::{Device, Mount};

    const ALLOC: &str = "0e8b1c2d-1111-2222-3333-444455556666";

    fn task(entries: &[(&str, Value)]) -> TaskConfig {
        let map = Value::Map(
            entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        );
        let mut config = Vec::new();
        encode(&map, &mut config);
        TaskConfig {
            id: format!("{ALLOC}/web/00c0ffee"),
            name: "web".to_owned(),
            alloc_id: ALLOC.to_owned(),
            alloc_dir: format!("/var/lib/nomad/alloc/{ALLOC}"),
            stdout_path: "/x/.web.stdout.fifo".to_owned(),
            stderr_path: "/x/.web.stderr.fifo".to_owned(),
            msgpack_driver_config: config,
            ..TaskConfig::default()
        }
    }

    fn image() -> (&'static str, Value) {
        ("image", Value::Text("debian".to_owned()))
    }

    #[test]
    fn a_plain_job_becomes_a_specification() {
        let spec = build(&task(&[image()]), &[]).unwrap();
        assert_eq!(spec.key.to_string(), format!("{ALLOC}/web/00c0ffee"));
        assert_eq!(spec.root, RootFs::tree(Root::Plain));
        assert_eq!(spec.network, Network::Loopback);
        assert_eq!(spec.logs, Logs::Fifos);
        assert_eq!(spec.payload, Payload::Boot { arguments: vec![] });
        assert!(spec.users.isolates());
    }

    #[test]
    fn start_modes_follow_two_keys() {
        let words = || vec![Secret::new("true")];
        let mode = |boot, two| {
            let command = Value::List(vec![Value::Text("true".to_owned())]);
            let entries = [
                image(),
                ("boot", Value::Bool(boot)),
                ("process_two", Value::Bool(two)),
                ("command", command),
            ];
            build(&task(&entries), &[]).map(|spec| spec.payload)
        };
        assert_eq!(mode(true, false), Ok(Payload::Boot { arguments: words() }));
        assert_eq!(mode(false, false), Ok(Payload::Command { words: words() }));
        assert_eq!(mode(false, true), Ok(Payload::ProcessTwo { words: words() }));
        assert!(mode(true, true).is_err());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let mut task = task(&[image()]);
        task.user = "www".to_owned();
        task.mounts.push(Mount::default());
        task.devices.push(Device::default());
        task.env.insert("a-b".to_owned(), "canary".to_owned());
        let text = build(&task, &[]).unwrap_err().text().to_owned();
        for part in ["user", "volume_mount", "device", "a-b", "4 problems"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn the_id_must_belong_to_the_task() {
        for change in [
            |task: &mut TaskConfig| task.id = "x".to_owned(),
            |task: &mut TaskConfig| task.name = "other".to_owned(),
            |task: &mut TaskConfig| task.alloc_id = "other".to_owned(),
        ] {
            let mut task = task(&[image()]);
            change(&mut task);
            assert!(build(&task, &[]).is_err());
        }
    }

    #[test]
    fn networks_follow_group_and_key() {
        let spec = |mode: NetworkIsolationMode, path: &str| NetworkIsolationSpec {
            mode: mode.into(),
            path: path.to_owned(),
            ..NetworkIsolationSpec::default()
        };
        let host = spec(NetworkIsolationMode::Host, "");
        for none in [None, Some(&host)] {
            assert_eq!(network(none, true), Ok(Network::Loopback));
            assert_eq!(network(none, false), Ok(Network::Host));
        }
        let group = spec(NetworkIsolationMode::Group, "/var/run/netns/x");
        let joined = Network::Join(Absolute::parse("/var/run/netns/x").unwrap());
        assert_eq!(network(Some(&group), true), Ok(joined.clone()));
        assert_eq!(network(Some(&group), false), Ok(joined));
        for bad in [
            spec(NetworkIsolationMode::Group, ""),
            spec(NetworkIsolationMode::Task, "/x"),
            spec(NetworkIsolationMode::Host, "/x"),
        ] {
            assert!(network(Some(&bad), true).is_err());
        }
    }

    #[test]
    fn logs_are_discarded_when_nomad_collects_none() {
        let mut task = task(&[]);
        assert_eq!(logs(&task), Logs::Fifos);
        task.stdout_path = "/dev/null".to_owned();
        task.stderr_path = "/dev/null".to_owned();
        assert_eq!(logs(&task), Logs::Discard);
    }
}
