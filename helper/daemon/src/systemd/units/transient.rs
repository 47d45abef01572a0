//! What transient units have in common.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use proto::task_spec::Label;
use zbus::Variant;

use crate::systemd::bus::{Bus, MANAGER};
use crate::tasks::record::Record;

/// PID 1's error for a unit that there is already.
pub(crate) const EXISTS: &str = "UnitExists";
/// Of every unit but tasks without CPUs of their own.
pub(crate) const SLICE: &str = "machine-nspawn.slice";
/// Of tasks that share the CPUs which Nomad reserves for none.
pub(crate) const SHARE_SLICE: &str = "machine-nspawn-share.slice";

/// A property's name and value.
pub(crate) type Property<'a> = (&'a str, Variant<'a>);
/// A command line: program, words, and whether its failure is ignored (ExecStart=,
/// systemd.service(5)).
type Command = (String, Vec<String>, bool);

/// The task binary: beside our own.
fn task_binary() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    Ok(directory.join("nomad-nspawn-task"))
}

/// A command line of the task binary.
///
/// Never by ExecStartEx= or ExecStopPostEx=, which have a flag against the expansion of variables:
/// systemd 252 writes them into the unit's file under names that it cannot read, and a
/// daemon-reload takes the command away from a unit that waits for its start or runs.
pub(crate) fn command(words: &[&str], ignore_failure: bool) -> Result<Vec<Command>, String> {
    let binary = task_binary()?;
    let binary = binary.display().to_string();
    let mut all = vec![binary.clone()];
    all.extend(words.iter().map(|&word| word.to_owned()));
    if let Some(word) = all.iter().find(|word| word.contains('$')) {
        return Err(format!("{word:?}: systemd would expand `$`"));
    }
    Ok(vec![(binary, all, ignore_failure)])
}

/// Journal fields: the record's first, so that no label can stand for one of them.
pub(crate) fn fields(record: &Record, labels: &[Label]) -> Vec<Vec<u8>> {
    let labels = labels.iter().map(|l| format!("{}={}", l.name, l.value).into_bytes());
    record.fields().into_iter().chain(labels).collect()
}

/// What every unit has that a launcher or relay runs in.
pub(crate) fn service<'a>(
    description: &'a str,
    verb: &str,
    socket: OwnedFd,
    fields: Vec<Vec<u8>>,
) -> Result<Vec<Property<'a>>, String> {
    Ok(vec![
        ("Description", Variant::from(description)),
        ("Type", Variant::from("exec")),
        ("DevicePolicy", Variant::from("closed")),
        ("StandardInputFileDescriptor", Variant::from(zbus::Fd::from(socket))),
        ("StandardOutput", Variant::from("journal")),
        ("StandardError", Variant::from("journal")),
        ("SyslogIdentifier", Variant::from("nomad-nspawn-task")),
        ("LogExtraFields", Variant::from(fields)),
        // At host shutdown the agent goes after its tasks.
        ("After", Variant::from(vec!["nomad.service"])),
        ("ExecStart", Variant::from(command(&[verb], false)?)),
    ])
}

/// Asks PID 1 to start a unit. Returns when the job is queued.
pub(crate) async fn start(bus: &Bus, name: &str, all: Vec<Property<'_>>) -> zbus::Result<()> {
    let auxiliary: Vec<(&str, Vec<Property<'_>>)> = Vec::new();
    let body = (name, "fail", all, auxiliary);
    bus.call(MANAGER, "StartTransientUnit", &body).await.map(drop)
}
