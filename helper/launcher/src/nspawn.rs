//! systemd-nspawn's argument vector and environment: constants, numbers and validated names.

use std::ffi::CString;

use proto::plan::{Plan, PlannedNetwork};
use proto::task_spec::Payload;
use proto::task_spec::network::ContainerLink;
use proto::task_spec::process::{Console, Process};

use super::prepared::Extras;
use super::stage::OwnPath;
use super::step::Problem;
use kernel::layout::{nspawn_binary, ready_socket};

/// What every task is started with. Its directories are prepared here, and PID 1 has its unit.
const ALWAYS: &str = "systemd-nspawn --quiet --keep-unit --register=no --settings=yes \
                      --link-journal=no --timezone=off --resolv-conf=off";
/// The argument vector. Options first, then the payload's words behind a double dash.
pub(super) fn arguments(plan: &Plan, extras: &Extras) -> Vec<String> {
    let mut all = constant_arguments();
    all.extend([
        format!("--machine={}", plan.machine),
        format!("--uuid={}", plan.alloc),
        format!("--directory={}", OwnPath::root()),
        format!("--kill-signal={}", kill_signal(plan)),
    ]);
    if let Some(range) = plan.users {
        all.push(format!("--private-users={}:{}", range.base, range.width));
        all.push("--private-users-ownership=off".to_owned());
    } else {
        all.push("--private-users=no".to_owned());
    }
    if plan.network.belongs_to_container() {
        all.push("--private-network".to_owned());
    } else if let PlannedNetwork::Container { container, .. } = &plan.network {
        all.push(link(&container.link));
    }
    all.extend(extras.arguments.iter().cloned());
    let (start, console, words) = match &plan.payload {
        Payload::Boot { arguments } => (Some("--boot"), "read-only", arguments),
        Payload::Command { words } => (None, "pipe", words),
        Payload::ProcessTwo { words } => (Some("--as-pid2"), "pipe", words),
    };
    all.extend(start.map(str::to_owned));
    all.extend(process(&plan.process, console));
    all.push("--".to_owned());
    all.extend(extras.words.iter().cloned());
    all.extend(words.iter().map(|word| word.reveal().to_owned()));
    all
}

/// What systemd-nspawn sends to the container's first process when it is to end. Its stub init
/// ignores SIGTERM; some others make it end its child in a way of its own, with SIGHUP besides. That
/// child gets the job's signal by [`super::stop`].
fn kill_signal(plan: &Plan) -> u8 {
    const SIGTERM: u8 = 15;
    if matches!(plan.payload, Payload::ProcessTwo { .. }) { SIGTERM } else { plan.kill_signal }
}

/// The words that every start begins with.
pub(super) fn constant_arguments() -> Vec<String> {
    let bundle = format!("--oci-bundle={}", OwnPath::bundle());
    ALWAYS.split(' ').map(str::to_owned).chain([bundle]).collect()
}

/// The program.
pub(super) fn binary() -> Result<CString, Problem> {
    let binary = nspawn_binary().ok_or_else(|| {
        Problem::refused("systemd-nspawn", "not installed: apt install systemd-container")
    })?;
    CString::new(binary.as_os_str().as_encoded_bytes())
        .map_err(|_| Problem::refused("systemd-nspawn", "path holds a NUL byte"))
}

/// The option for the link of a namespace that systemd-nspawn makes.
fn link(link: &ContainerLink) -> String {
    match link {
        ContainerLink::Veth => "--network-veth".to_owned(),
        ContainerLink::Zone(name) => format!("--network-zone={name}"),
        ContainerLink::Bridge(name) => format!("--network-bridge={name}"),
        ContainerLink::Macvlan(name) => format!("--network-macvlan={name}"),
    }
}

/// The options for the payload's process; `console` is the start mode's own.
fn process(process: &Process, console: &str) -> Vec<String> {
    let console = match process.console {
        Console::Automatic => console,
        Console::Interactive => "interactive",
        Console::ReadOnly => "read-only",
        Console::Passive => "passive",
        Console::Pipe => "pipe",
    };
    let mut all = vec![format!("--console={console}")];
    all.extend(process.directory.as_ref().map(|directory| format!("--chdir={directory}")));
    all.extend(process.hostname.as_ref().map(|name| format!("--hostname={name}")));
    if process.ready.is_notified() {
        all.push("--notify-ready=yes".to_owned());
    }
    all
}

/// systemd-nspawn's own environment: constants; nothing of the job.
pub(super) fn environment(plan: &Plan, extras: &Extras) -> Vec<String> {
    let mut all = constant_environment();
    if plan.process.ready.is_notified() {
        all.push(format!("NOTIFY_SOCKET={}", ready_socket(plan.unit).display()));
    }
    all.extend(extras.environment.iter().cloned());
    all
}

/// What it is always given.
pub(super) fn constant_environment() -> Vec<String> {
    let all = [
        // Its own messages go to the journal, so that the task's stderr is the task's alone.
        "SYSTEMD_LOG_TARGET=journal",
        // 252 gives an image without systemd a version 1 tree otherwise.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    ];
    all.map(str::to_owned).to_vec()
}

/// The texts as the kernel takes them.
pub(super) fn c_strings(texts: Vec<String>, what: &str) -> Result<Vec<CString>, Problem> {
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(|_| Problem::refused(what, "holds a NUL byte")))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proto::name::{AllocId, Instance, MachineName, TaskName, VariableName};
    use proto::path::{Absolute, Relative};
    use proto::plan::{Place, PlannedFiles, PlannedNetwork, Range, TaskDirs};
    use proto::secret::Secret;
    use proto::task_spec::process::Ready;
    use proto::task_spec::{Isolation, Layer, Logs, Names, Resources, Root, RootFs, Variable};
    use proto::unit_id::UnitId;

    pub(in super::super) fn plan(words: &[&str]) -> Plan {
        let place = |root: &str| Place {
            root: Absolute::parse(root).unwrap(),
            below: Relative::new(vec![]).unwrap(),
        };
        let alloc = AllocId([1; 16]);
        Plan {
            unit: UnitId { alloc, instance: Instance(1) },
            machine: MachineName::new("web-1").unwrap(),
            alloc,
            users: Some(Range { base: 524_288, width: 65_536 }),
            image: place("/var/lib/machines"),
            layers: Vec::new(),
            root: RootFs::tree(Root::Ephemeral(Layer::Disk)),
            payload: Payload::Command { words: words.iter().map(|w| Secret::new(*w)).collect() },
            process: Process::default(),
            isolation: Isolation::default(),
            cached_filters: false,
            network: PlannedNetwork::Loopback,
            names: Names::default(),
            files: PlannedFiles::default(),
            environment: vec![],
            task_dirs: TaskDirs {
                alloc_dir: place("/var/lib/nomad/alloc"),
                task: TaskName::new("web").unwrap(),
                agent_uid: 0,
            },
            logs: Logs::Fifos,
            kill_signal: 15,
            resources: Resources::default(),
            min_free: 0,
            agent: None,
        }
    }

    #[test]
    fn words_never_become_options() {
        let all = arguments(&plan(&["--bind=/:/host", "-x"]), &Extras::default());
        let dashes = all.iter().position(|word| word == "--").unwrap();
        assert_eq!(all[dashes + 1..], ["--bind=/:/host", "-x"]);
        assert_eq!(all.iter().filter(|word| word.starts_with("--bind=")).count(), 1);
    }

    #[test]
    fn values_are_on_no_command_line_and_in_no_environment() {
        let mut plan = plan(&[]);
        let (name, value) = (VariableName::new("TOKEN").unwrap(), Secret::new("s3\ncret"));
        plan.environment = vec![Variable { name, value }];
        let mut all = arguments(&plan, &Extras::default());
        all.extend(environment(&plan, &Extras::default()));
        assert!(all.iter().all(|word| !word.contains("s3") && !word.contains("TOKEN")), "{all:?}");
    }

    #[test]
    fn a_task_that_says_when_it_is_ready_gets_its_socket() {
        let mut plan = plan(&[]);
        let has = |plan: &Plan| {
            let words =
                [arguments(plan, &Extras::default()), environment(plan, &Extras::default())];
            words.map(|words| words.iter().any(|w| w.contains("otify") || w.contains("NOTIFY")))
        };
        assert_eq!(has(&plan), [false, false]);
        plan.process.ready = Ready::Notify { timeout_s: 1 };
        assert_eq!(has(&plan), [true, true]);
    }
}
