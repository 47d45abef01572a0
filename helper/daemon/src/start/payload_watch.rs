//! From systemd-nspawn to the payload: finding PID 1 of the container, and the moment at which it
//! is the payload and no longer systemd-nspawn.
//!
//! The kernel notifies no one of another process's children or of its execve, and on systemd 257
//! READY=1 comes 55 to 80 ms before it. So /proc is read every millisecond, only while a task
//! starts. Building its system call filters takes systemd-nspawn some 40 ms after the leader exists, with
//! those of the cache a few: a payload that ends at once may never be seen.

use std::rc::Rc;
use std::time::Duration;

use proto::error::Refusal;
use proto::step::Step;

use crate::process::{Identity, Process};
use crate::tasks::record::Kind;
use kernel::layout::NSPAWN_FILTERS;
use kernel::processes::is_namespace_init;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// As many starts at once are looked at so often, more of them less often: a look costs some 40 µs of
/// processor time, and twenty starts would take most of a core from what they wait for.
const OFTEN: usize = 4;
/// Names that systemd-nspawn's processes have before they execute the payload.
const NSPAWN_NAMES: [&str; 3] = ["systemd-nspawn", "(sd-stubinit)", "nomad-nspawn-ta"];

/// A task's processes as they become known.
#[derive(Debug, Default, Clone)]
pub(crate) struct Processes {
    pub(crate) leader: Option<Process>,
    pub(crate) payload: Option<Process>,
}

/// Time between two looks of one of so many starts.
fn pause(starts: usize) -> Duration {
    LOOK.saturating_mul(u32::try_from(starts.div_ceil(OFTEN)).unwrap_or(u32::MAX))
}

/// Looks until the payload runs or systemd-nspawn has ended. `found` is called when a process
/// becomes known. `starting`: held by each start that waits here.
pub(crate) async fn await_arrival(
    starting: Rc<()>,
    main: &Process,
    kind: Kind,
    nspawn: Option<Identity>,
    mut found: impl FnMut(&Processes),
) -> Processes {
    let mut processes = Processes::default();
    loop {
        let before = (processes.leader.is_some(), processes.payload.is_some());
        find_processes(main, kind, &mut processes);
        if before != (processes.leader.is_some(), processes.payload.is_some()) {
            found(&processes);
        }
        if main.has_ended() || has_arrived(kind, nspawn, &processes) {
            return processes;
        }
        // One is the context's own.
        tokio::time::sleep(pause(Rc::strong_count(&starting).saturating_sub(1))).await;
    }
}

/// Whether the payload runs, or has run.
pub(crate) fn has_arrived(kind: Kind, nspawn: Option<Identity>, processes: &Processes) -> bool {
    payload_process(kind, processes).is_some_and(|process| runs_payload(process, nspawn))
}

/// The process that executes the payload.
pub(crate) fn payload_process(kind: Kind, processes: &Processes) -> Option<&Process> {
    if kind == Kind::ProcessTwo { &processes.payload } else { &processes.leader }.as_ref()
}

/// Checks that a payload that has arrived is under the system call filters of its start: 258 and
/// newer start it without any when they cannot load libseccomp, and log that at debug level only.
/// `must`: as many as the launcher's mark says; that of an earlier build says nothing. What has
/// ended already is past checking.
pub(crate) fn check_filters(
    main: &Process,
    kind: Kind,
    processes: &Processes,
    must: Option<u32>,
) -> Result<(), Refusal> {
    let Some(payload) = payload_process(kind, processes) else { return Ok(()) };
    let all = payload.filters();
    // Then systemd-nspawn itself has only those of a container that the host is.
    let must = must.or_else(|| Some(main.filters()?.saturating_add(NSPAWN_FILTERS)));
    // Asked after the look: until then no other process can have got the pid.
    if main.has_ended() || payload.has_ended() {
        return Ok(());
    }
    if must.is_some_and(|must| all.is_some_and(|all| all >= must)) {
        return Ok(());
    }
    let number = |count: Option<u32>| count.map_or("unknown".to_owned(), |count| count.to_string());
    let reason = format!(
        "the payload was killed: it ran with {} of them, but must have {}; systemd-nspawn of version \
         258 and newer installs none when it cannot load libseccomp.so.2: apt install libseccomp2, \
         then nomad-nspawnctl doctor",
        number(all),
        number(must)
    );
    Err(Refusal::failed(Step::Leader.name(), "system call filters", reason))
}

/// One look, also used for a task that an earlier process started.
pub(crate) fn find_processes(main: &Process, kind: Kind, processes: &mut Processes) {
    if processes.leader.is_none() {
        let init = main.children().into_iter().find(|&pid| is_namespace_init(pid));
        processes.leader = init.and_then(|pid| open_child(main, pid));
    }
    if kind == Kind::ProcessTwo
        && processes.payload.is_none()
        && let Some(leader) = &processes.leader
    {
        processes.payload = leader.children().first().and_then(|&pid| open_child(leader, pid));
    }
}

/// Opens a child, and makes sure that the pid is still that child's. The parent must live after that
/// look: the children of one that has ended may be those of another process with its pid.
fn open_child(parent: &Process, pid: u32) -> Option<Process> {
    let process = Process::open(pid).ok()?;
    (parent.children().contains(&pid) && !parent.has_ended()).then_some(process)
}

/// Whether the process has ended or executes something else than systemd-nspawn.
fn runs_payload(process: &Process, nspawn: Option<Identity>) -> bool {
    if process.has_ended() {
        return true;
    }
    // Without a user namespace the link cannot be read; the name must do then.
    match nspawn.map(|nspawn| process.executes(nspawn)) {
        Some(Ok(same)) => !same,
        _ => !NSPAWN_NAMES.contains(&process.comm().as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn more_starts_are_looked_at_less_often() {
        let ms = |starts| pause(starts).as_millis();
        assert_eq!([1, 4, 5, 20, 100].map(ms), [1, 1, 2, 5, 25]);
    }

    #[test]
    fn s10_the_children_of_a_reused_pid_are_not_taken() {
        let mut shell = Command::new("sh").args(["-c", "sleep 100 & wait"]).spawn().unwrap();
        let living = Process::open(shell.id()).unwrap();
        let pid = loop {
            if let Some(&pid) = living.children().first() {
                break pid;
            }
            std::thread::sleep(LOOK);
        };
        let taken = open_child(&living, pid).unwrap();
        // An ended process whose pid is the shell's now.
        let mut ended = Command::new("true").spawn().unwrap();
        let parent = Process::open(ended.id()).unwrap();
        ended.wait().unwrap();
        assert!(open_child(&parent.with_reused_pid(shell.id()), pid).is_none());
        taken.signal(9).unwrap();
        shell.wait().unwrap();
    }
}
