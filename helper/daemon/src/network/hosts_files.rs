//! Names of the tasks of a zone: /etc/hosts of each, kept up to date while they run.
//!
//! The launcher makes a task's file with the lines of its own and a marker, and its container sees
//! the file read-only. What follows the marker is written here whenever a task of the zone comes or
//! goes: into the same file, because what is mounted is that file and not its name, and in one
//! write, never shorter than before, so that nobody reads a line that is cut.
//!
//! Trusts the directory, which only root can write, and of a file nothing but where the marker is.
//! Names are those of tasks that are one label of a host name, and machine names. Never makes a
//! file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use kernel::layout::{HOSTS, HOSTS_MARKER, hosts_file};
use proto::limits;
use proto::name::{MachineName, TaskName, ZoneName};
use proto::unit_id::UnitId;
use tokio::task::spawn_local;

use crate::context::Context;
use crate::files;
use crate::network::threads;
use crate::tasks::record::Record;
use crate::tasks::table::{Entry, Table};

/// Bytes of one task's lines: two of an address and two names.
const LINES_MAX: usize = 2 * (40 + 2 * limits::MACHINE_NAME_MAX + 3);

/// Which zones' files are to be written, and who writes: one at a time, so that the newest wins.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    zones: BTreeSet<ZoneName>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// Writes the files of a zone's tasks. Returns when they hold the tasks of this moment or of a later
/// one: of many calls at once, those that wait share a round.
pub(crate) async fn update(context: &Context, zone: &ZoneName) {
    let gate = {
        let pending = &mut context.networks.borrow_mut().pending_hosts;
        pending.zones.insert(zone.clone());
        pending.gate.clone()
    };
    let held = gate.lock_owned().await;
    if !context.networks.borrow_mut().pending_hosts.zones.remove(zone) {
        return;
    }
    let (files, lines) = {
        let table = context.table.borrow();
        let members = members(&table, zone);
        let files: Vec<_> = members.iter().map(|it| hosts_file(it.record.unit())).collect();
        (files, lines(members.iter().map(|entry| &entry.record)))
    };
    // The gate goes with the writer: who waited for it may give up, and the next must not come before.
    let written = threads::run(move || {
        let _held = held;
        for file in files {
            match write(&file, &lines) {
                // Its task has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(%error, file = %file.display(), "names of a zone are not up to date");
                }
                Ok(()) => {}
            }
        }
        Ok(())
    });
    if let Err(error) = written.await {
        tracing::error!(%error, %zone, "names of a zone are not up to date");
    }
}

/// Takes an ended task's name away, and its file.
pub(crate) fn withdraw(context: &Rc<Context>, unit: UnitId, zone: &ZoneName) {
    files::remove(&hosts_file(unit));
    let (context, zone) = (context.clone(), zone.clone());
    spawn_local(async move { update(&context, &zone).await });
}

/// At the daemon's start: makes the directory, removes the files of tasks that have ended, and
/// brings the others up to date.
pub(crate) async fn take_over(context: &Context) {
    // Whatever the umask says.
    let made = fs::create_dir_all(HOSTS)
        .and_then(|()| fs::set_permissions(HOSTS, fs::Permissions::from_mode(0o755)));
    if let Err(error) = made {
        tracing::error!(%error, "{HOSTS}: tasks of zones are refused");
    }
    let zones: BTreeSet<ZoneName> = {
        let table = context.table.borrow();
        // A task whose record cannot be read is known, and stays.
        let lasts =
            |entry: &&Entry| entry.published || entry.starting || !entry.record.is_readable();
        let kept: Vec<_> = table.entries().filter(lasts).map(|it| it.record.unit()).collect();
        for file in fs::read_dir(HOSTS).into_iter().flatten().flatten() {
            let unit = file.file_name().to_str().and_then(UnitId::parse);
            if unit.is_none_or(|unit| !kept.contains(&unit)) {
                files::remove(&file.path());
            }
        }
        let links = table.records().filter_map(|record| record.link.as_ref());
        links.filter_map(|link| link.zone.as_ref()).map(|zone| zone.name.clone()).collect()
    };
    for zone in &zones {
        update(context, zone).await;
    }
}

/// The tasks of a zone that run, in the order of their starts: of two with one name, programs take
/// the first.
fn members<'a>(table: &'a Table, zone: &ZoneName) -> Vec<&'a Entry> {
    let is_in = |entry: &&Entry| {
        let link = entry.record.link.as_ref();
        entry.published && link.and_then(|link| link.zone.as_ref()).is_some_and(|z| z.name == *zone)
    };
    let mut members: Vec<_> = table.entries().filter(is_in).collect();
    members.sort_by_key(|entry| entry.started_ms);
    members
}

/// The lines of these tasks (hosts(5)).
fn lines<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    let mut lines = String::new();
    for record in records {
        for address in record.link.iter().flat_map(|link| link.addresses()) {
            let task = host_name(&record.key.task).map(|name| format!(" {name}"));
            let task = task.unwrap_or_default();
            // A String takes everything.
            _ = writeln!(lines, "{address}{task} {}", record.machine);
        }
    }
    lines
}

/// A task's name, where it is one label of a host name. Not with dots: a task must not pass for a
/// host of the internet to the others of its zone, nor for `localhost`.
fn host_name(task: &TaskName) -> Option<MachineName> {
    let name = MachineName::new(task.as_str()).ok()?;
    let is_label = !name.as_str().contains('.') && !name.as_str().eq_ignore_ascii_case("localhost");
    is_label.then_some(name)
}

/// Writes these lines after the marker of a file.
fn write(path: &Path, lines: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let longest = limits::ZONE_HOSTS_MAX + HOSTS_MARKER.len() + limits::TASKS_MAX * LINES_MAX;
    let mut old = Vec::new();
    (&file).take(longest as u64).read_to_end(&mut old)?;
    // The last one: an image or a job may have such a line as well.
    let marker = HOSTS_MARKER.as_bytes();
    let start = old.windows(marker.len()).rposition(|window| window == marker);
    let start = start.ok_or_else(|| io::Error::other("its marker is missing"))? + marker.len();
    let new = padded(lines, old.len() - start);
    if old.get(start..) == Some(new.as_bytes()) {
        return Ok(());
    }
    let written = file.write_at(new.as_bytes(), start as u64)?;
    if written < new.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
}

/// The lines with a comment that makes them at least `length` bytes long.
fn padded(lines: &str, length: usize) -> String {
    match length.saturating_sub(lines.len()) {
        0 => lines.to_owned(),
        1 => format!("{lines}\n"),
        rest => format!("{lines}#{}\n", " ".repeat(rest - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::namespaces::link;
    use super::*;
    use crate::network::zones::FIRST;
    use crate::tasks::record;
    use proto::link::Zone;
    use proto::name::{AllocId, Instance, TaskKey};
    use std::os::unix::fs::MetadataExt as _;

    fn entry(number: u8, task: &str, zone: &str, started_ms: u64) -> Entry {
        let task = TaskName::new(task).unwrap();
        let key = TaskKey { alloc: AllocId([number; 16]), task, instance: Instance(1) };
        let zone = Zone { name: ZoneName::new(zone).unwrap(), group: FIRST };
        let link = proto::link::Link { zone: Some(zone), ..link(number.into(), &[]) };
        let record = Record { link: Some(link), ..record::tests::of(key) };
        let mut entry = Entry::new(record, started_ms, false);
        entry.published = true;
        entry
    }

    fn names(entries: &[Entry], zone: &str) -> String {
        let mut table = Table::default();
        entries.iter().for_each(|entry| table.insert(entry.clone()));
        let zone = ZoneName::new(zone).unwrap();
        lines(members(&table, &zone).iter().map(|entry| &entry.record))
    }

    #[test]
    fn tasks_are_listed_by_their_starts_and_by_names_that_lead_nowhere_else() {
        let mut gone = entry(5, "gone", "a", 1);
        gone.published = false;
        let entries = [
            entry(9, "web", "a", 10),
            entry(8, "web", "a", 20),
            entry(7, "example.org", "a", 30),
            entry(6, "LocalHost", "a", 40),
            entry(4, "my task", "a", 50),
            entry(3, "other", "b", 5),
            gone,
        ];
        let names = names(&entries, "a");
        let found: Vec<Vec<&str>> = names.lines().map(|it| it.split(' ').collect()).collect();
        let at = |line: usize| found[line][..found[line].len() - 1].to_vec();
        assert_eq!(at(0), ["10.64.0.9", "web"]);
        assert_eq!(at(1), ["fd64::9", "web"]);
        assert_eq!(at(2), ["10.64.0.8", "web"]);
        for (line, address) in [(4, "10.64.0.7"), (6, "10.64.0.6"), (8, "10.64.0.4")] {
            assert_eq!(at(line), [address], "{names}");
        }
        assert_eq!(found.len(), 10, "{names}");
        assert!(found.iter().all(|words| words.last().unwrap().contains("-0")), "{names}");
    }

    /// The file is mounted: its inode stays, and it never gets shorter.
    #[test]
    fn what_follows_the_marker_is_written_in_place() {
        let path = std::env::temp_dir().join(format!("hosts-file-{}", std::process::id()));
        // The job has a line like the marker, too.
        let own = format!("127.0.0.1 localhost\n{HOSTS_MARKER}192.0.2.1 db\n{HOSTS_MARKER}");
        fs::write(&path, &own).unwrap();
        let before = fs::metadata(&path).unwrap();
        let (one, two) = ("10.64.0.2 a\n", "10.64.0.2 a\n10.64.0.3 b\n");
        let mut longest = 0;
        for (lines, rest) in [
            (one, one.to_owned()),
            (two, two.to_owned()),
            (one, format!("{one}#{}\n", " ".repeat(10))),
            ("", format!("#{}\n", " ".repeat(22))),
            (&two[1..], format!("{}\n", &two[1..])),
            (two, two.to_owned()),
        ] {
            write(&path, lines).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text, format!("{own}{rest}"));
            assert!(text.len() >= longest);
            longest = text.len();
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        assert!(write(&path, one).unwrap_err().to_string().contains("marker"));
        fs::remove_file(&path).unwrap();
        assert_eq!(write(&path, one).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }
}
