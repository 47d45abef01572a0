//! systemd-nspawn's argument vector and environment: constants, numbers and validated names.

use std::ffi::CString;
use std::path::Path;

use proto::plan::Plan;
use proto::spec::{Payload, Variable};

use super::extras::Extras;
use super::root;
use super::settings::Way;
use super::step::Problem;

/// systemd-nspawn's folder for settings, locks and sockets.
pub(super) const RUNTIME: &str = "/run/systemd/nspawn";
/// Its image locks, one file for each root folder that is in use.
pub(super) const LOCKS: &str = "/run/systemd/nspawn/locks";
/// The administrator's folder for settings.
pub(super) const ADMIN_SETTINGS: &str = "/etc/systemd/nspawn";
/// Where distributions keep the binary.
const BINARIES: [&str; 2] =
    ["/usr/bin/systemd-nspawn", "/run/current-system/sw/bin/systemd-nspawn"];

/// Finds the binary.
#[must_use]
pub fn binary() -> Option<&'static Path> {
    BINARIES.iter().map(Path::new).find(|path| path.exists())
}

/// The argument vector. Options first, then the payload's words behind a double dash.
pub(super) fn arguments(plan: &Plan, way: &Way, extras: &Extras) -> Vec<String> {
    let mut all = vec![
        "systemd-nspawn".to_owned(),
        "--quiet".to_owned(),
        "--keep-unit".to_owned(),
        "--register=no".to_owned(),
        // Our own settings file is the first that is found, so none beside the image is read.
        "--settings=yes".to_owned(),
        "--link-journal=no".to_owned(),
        "--timezone=off".to_owned(),
        "--resolv-conf=off".to_owned(),
        format!("--machine={}", plan.machine),
        format!("--uuid={}", plan.alloc),
        format!("--directory={}", root::path().display()),
        format!("--kill-signal={}", plan.kill_signal),
    ];
    if let Some(range) = plan.users {
        all.push(format!("--private-users={}:{}", range.base, range.width));
        all.push("--private-users-ownership=off".to_owned());
    } else {
        all.push("--private-users=no".to_owned());
    }
    all.extend(extras.arguments.iter().cloned());
    if *way == Way::Inherited {
        all.extend(plan.environment.iter().map(|variable| format!("--setenv={}", variable.name)));
    }
    let words = match &plan.payload {
        Payload::Boot { arguments } => {
            all.extend(["--boot".to_owned(), "--console=read-only".to_owned()]);
            arguments
        }
        Payload::Command { words } => {
            all.push("--console=pipe".to_owned());
            words
        }
        Payload::ProcessTwo { words } => {
            all.extend(["--as-pid2".to_owned(), "--console=pipe".to_owned()]);
            words
        }
    };
    all.push("--".to_owned());
    all.extend(words.iter().map(|word| word.reveal().to_owned()));
    all
}

/// systemd-nspawn's own environment: constants, and the job's where it takes this way.
pub(super) fn environment(plan: &Plan, way: &Way, extras: &Extras) -> Vec<String> {
    let mut all = vec![
        // Its own messages go to the journal, so that the task's stderr is the task's alone.
        "SYSTEMD_LOG_TARGET=journal".to_owned(),
        // 252 gives an image without systemd a version 1 tree otherwise.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1".to_owned(),
    ];
    if *way == Way::Inherited {
        let pair = |v: &Variable| format!("{}={}", v.name, v.value.reveal());
        all.extend(plan.environment.iter().map(pair));
    }
    all.extend(extras.environment.iter().cloned());
    // The C library takes the first of two; the payload's own is that of the job.
    all.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".to_owned());
    all
}

/// The texts as the kernel takes them.
pub(super) fn c_strings(texts: Vec<String>, what: &str) -> Result<Vec<CString>, Problem> {
    texts
        .into_iter()
        .map(|text| CString::new(text).map_err(|_| Problem::refused(what, "holds a NUL byte")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{AllocId, Instance, MachineName, TaskName, VariableName};
    use proto::path::{Absolute, Relative};
    use proto::plan::{Place, PlannedFiles, PlannedNetwork, Range, TaskDirs, UnitId};
    use proto::secret::Secret;
    use proto::spec::{Isolation, Layer, Logs, Names, Process, Root, RootFs};

    fn plan(words: &[&str]) -> Plan {
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
            root: RootFs::tree(Root::Ephemeral(Layer::Disk)),
            payload: Payload::Command { words: words.iter().map(|w| Secret::new(*w)).collect() },
            process: Process::default(),
            isolation: Isolation::default(),
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
        }
    }

    #[test]
    fn words_never_become_options() {
        let all = arguments(&plan(&["--bind=/:/host", "-x"]), &Way::File, &Extras::default());
        let dashes = all.iter().position(|word| word == "--").unwrap();
        assert_eq!(all[dashes + 1..], ["--bind=/:/host", "-x"]);
        assert_eq!(all.iter().filter(|word| word.starts_with("--bind=")).count(), 1);
    }

    #[test]
    fn values_are_on_no_command_line() {
        let mut plan = plan(&[]);
        let (name, value) = (VariableName::new("TOKEN").unwrap(), Secret::new("s3\ncret"));
        plan.environment = vec![Variable { name, value }];
        assert!(
            arguments(&plan, &Way::Inherited, &Extras::default())
                .iter()
                .all(|word| !word.contains("s3"))
        );
        assert!(
            environment(&plan, &Way::Inherited, &Extras::default())
                .contains(&"TOKEN=s3\ncret".to_owned())
        );
        assert!(
            environment(&plan, &Way::File, &Extras::default())
                .iter()
                .all(|pair| !pair.contains("s3"))
        );
    }
}
