//! What is known of a task: from PID 1's record and from the kernel, never guessed.

use std::rc::Rc;

use proto::error::{Code, Refusal};
use proto::name::TaskKey;
use proto::unit_id::UnitId;
use proto::wire::{Exit, State, Task};

use crate::context::Context;
use crate::systemd::units::names;
use crate::systemd::units::read::{self, Seen};
use crate::tasks::record::Kind;
use crate::tasks::table::Entry;
use kernel::ended::{Ended, ended_file};

const RECORD_GONE: &str = "the exit record is gone (systemctl reset-failed or stop on the unit, or \
                           PID 1 never saw it run): the exit status is unknown";

/// Reads how a task stands.
pub(crate) async fn of(context: &Rc<Context>, key: &TaskKey) -> Result<Task, Refusal> {
    let entry = context.table.borrow().find(key, "status")?;
    let state = if entry.starting {
        State::Starting(entry.phase)
    } else {
        let seen = read::look(&context.bus, entry.record.unit()).await;
        let seen = seen.map_err(|e| Refusal::failed("status", key, e))?;
        state(&entry, &seen)
    };
    Ok(task(key, entry, state))
}

/// How a task stands whose payload has just been started. As long as that lives, the kernel says so at
/// once, and PID 1 is not kept from other starts. That PID 1 cannot be asked now is not a start that
/// failed: the driver would remove a task that runs.
pub(crate) async fn after_start(context: &Rc<Context>, key: &TaskKey) -> Result<Task, Refusal> {
    let lives = |entry: &Entry| entry.leader.as_ref().is_some_and(|leader| !leader.has_ended());
    let entry = context.table.borrow().get(key).cloned();
    if let Some(entry) = entry.filter(lives) {
        return Ok(task(key, entry, State::Running));
    }
    let result = of(context, key).await;
    let entry = context.table.borrow().get(key).cloned();
    or_known(result, key, entry)
}

fn or_known(
    result: Result<Task, Refusal>,
    key: &TaskKey,
    entry: Option<Entry>,
) -> Result<Task, Refusal> {
    match (result, entry) {
        (Err(error), Some(entry)) if error.code == Code::Failed => {
            tracing::warn!(task = %key, %error, "started; how it stands is not known now");
            Ok(task(key, entry, State::Running))
        }
        (result, _) => result,
    }
}

fn task(key: &TaskKey, entry: Entry, state: State) -> Task {
    let running = !matches!(state, State::Ended(_));
    let addresses = entry.record.addresses().collect();
    Task {
        key: key.clone(),
        unit: names::task(entry.record.unit()),
        machine: entry.record.machine,
        addresses,
        uid_base: entry.record.users.map(|range| range.base),
        leader: if running { entry.leader.map(|leader| leader.pid()) } else { None },
        started_ms: entry.started_ms,
        state,
        notes: entry.notes,
        filters: entry.filters,
    }
}

fn state(entry: &Entry, seen: &Seen) -> State {
    if seen.loaded && is_running(seen) {
        return State::Running;
    }
    let exact = exact_status(entry);
    State::Ended(exit(entry.record.kind, seen, exact, counts(entry.record.unit())))
}

fn is_running(seen: &Seen) -> bool {
    match seen.active.as_str() {
        "failed" | "inactive" => false,
        // RemainAfterExit: a unit whose main process ended with 0.
        "active" => seen.sub != "exited",
        _ => true,
    }
}

/// The payload's wait status from the kernel, when a descriptor of it was kept.
fn exact_status(entry: &Entry) -> Option<i32> {
    let of = |process: &Option<crate::process::Process>| {
        process.as_ref().and_then(crate::process::Process::exit_status)
    };
    match entry.record.kind {
        // The stub's own status holds the payload's exit code when the payload was not caught.
        Kind::ProcessTwo => of(&entry.payload).or_else(|| of(&entry.leader)),
        Kind::Boot | Kind::Command => of(&entry.leader),
    }
}

/// What the unit's clean-up has kept of its cgroup. It does not run for a payload that has ended with
/// 0, nor where there is no memory controller.
fn counts(unit: UnitId) -> Ended {
    let text = std::fs::read_to_string(ended_file(unit)).ok();
    text.and_then(|text| Ended::parse(&text)).unwrap_or_default()
}

/// The exit from what PID 1 recorded and what the kernel reports of the payload.
fn exit(kind: Kind, seen: &Seen, exact: Option<i32>, counts: Ended) -> Exit {
    let oom = seen.result == "oom-kill" || counts.oom_kills > 0 || counts.oom_group_kills > 0;
    let ended_ms = seen.ended_us / 1000;
    // An init that powers off or reboots is ended by the kernel with SIGINT or SIGHUP (reboot(2) in
    // a pid namespace): systemd-nspawn's status distinguishes them.
    let is_final = |status: &i32| {
        kind != Kind::Boot || !matches!(status & 0x7f, 0 | libc::SIGINT | libc::SIGHUP)
    };
    let (code, signal, error) = match exact.filter(is_final) {
        Some(status) => (status >> 8 & 0xff, status & 0x7f, ""),
        None if !seen.loaded || seen.code == 0 => (1, 0, RECORD_GONE),
        None if seen.code == 1 => (seen.status, 0, ""),
        None => (0, seen.status, ""),
    };
    let code = if signal == 0 { code } else { 128 + signal };
    Exit {
        code,
        signal,
        // A task that went on and ended well did not end for want of memory.
        oom: oom && code != 0,
        memory_peak: counts.peak,
        memory_limit: counts.limit,
        ended_ms,
        error: error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::record::Record;

    fn seen(code: i32, status: i32) -> Seen {
        Seen {
            loaded: true,
            active: "failed".into(),
            sub: "failed".into(),
            code,
            status,
            result: "exit-code".into(),
            ended_us: 5_000,
        }
    }

    fn ended(kind: Kind, seen: &Seen, exact: Option<i32>) -> Exit {
        exit(kind, seen, exact, Ended::default())
    }

    #[test]
    fn d35_out_of_memory_is_what_the_kernel_has_counted() {
        let counts = Ended { oom_kills: 1, peak: 9, limit: 10, ..Ended::default() };
        let oom = |status, counts| {
            let exit = exit(Kind::Command, &seen(1, 1), Some(status), counts);
            (exit.oom, exit.memory_peak, exit.memory_limit)
        };
        assert_eq!(oom(9, counts), (true, 9, 10));
        assert_eq!(oom(5 << 8, counts), (true, 9, 10));
        // It went on, and ended well.
        assert_eq!(oom(0, counts), (false, 9, 10));
        // SIGKILL alone, of whomever, is no reason.
        assert_eq!(oom(9, Ended::default()), (false, 0, 0));
        let stopped = Seen { result: "oom-kill".into(), ..seen(1, 1) };
        assert!(ended(Kind::Command, &stopped, None).oom);
    }

    #[test]
    fn c5_a_bus_error_after_the_start_is_not_a_failed_start() {
        use proto::name::{AllocId, Instance, TaskName};
        let task = TaskName::new("web").unwrap();
        let key = TaskKey { alloc: AllocId([1; 16]), task, instance: Instance(1) };
        let record = Record::parse(proto::unit_id::UnitId::from(&key), &[]);
        let entry = || Some(Entry::new(record.clone(), 7, false));
        let failed = || Err(Refusal::failed("status", &key, "the bus does not answer"));
        let known = or_known(failed(), &key, entry()).unwrap();
        assert_eq!((known.state, known.started_ms, known.key), (State::Running, 7, key.clone()));
        // Removed meanwhile.
        assert!(or_known(failed(), &key, None).is_err());
        let unknown = Err(Refusal::new(Code::Unknown, "status", &key, "no such task"));
        assert!(or_known(unknown, &key, entry()).is_err());
    }

    #[test]
    fn the_kernel_knows_better_than_nspawn() {
        // nspawn reports 1 for a payload's 133 and for a signal.
        assert_eq!(ended(Kind::Command, &seen(1, 1), Some(133 << 8)).code, 133);
        let killed = ended(Kind::Command, &seen(1, 1), Some(9));
        assert_eq!((killed.code, killed.signal), (137, 9));
        // Without a descriptor its status holds.
        assert_eq!(ended(Kind::Command, &seen(1, 7), None).code, 7);
        assert_eq!(ended(Kind::ProcessTwo, &seen(2, 9), None).signal, 9);
    }

    #[test]
    fn an_init_that_powers_off_ends_with_nspawns_status() {
        assert_eq!(ended(Kind::Boot, &seen(1, 0), Some(libc::SIGINT)).code, 0);
        assert_eq!(ended(Kind::Boot, &seen(1, 133), Some(libc::SIGHUP)).code, 133);
        assert_eq!(ended(Kind::Boot, &seen(1, 1), Some(9)).signal, 9);
    }

    #[test]
    fn an_erased_record_is_an_error() {
        let mut gone = seen(0, 0);
        gone.loaded = false;
        assert!(ended(Kind::Command, &gone, None).error.contains("record is gone"));
        // The kernel still has it.
        assert_eq!(ended(Kind::Command, &gone, Some(3 << 8)).code, 3);
        assert!(ended(Kind::Command, &gone, Some(3 << 8)).error.is_empty());
    }

    #[test]
    fn exit_zero_is_ended_though_the_unit_is_active() {
        let mut done = seen(1, 0);
        (done.active, done.sub) = ("active".into(), "exited".into());
        assert!(!is_running(&done));
        done.sub = "running".into();
        assert!(is_running(&done));
    }
}
