//! Rebuilding the table at start: from PID 1's units and the descriptor store, and sweeping what
//! belongs to no unit.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use proto::unit_id::UnitId;

use crate::context::Context;
use crate::end::remove;
use crate::exec::{leftovers, workers};
use crate::files;
use crate::network::{found, hosts_files, networks};
use crate::process::{Process, nspawn};
use crate::restart::resume;
use crate::start::{arrival, conduct, filter_cache, output, payload_watch};
use crate::systemd::units::read::{self, Found};
use crate::systemd::units::{names, stop};
use crate::systemd::{machined, notify};
use crate::tasks::record::Form;
use crate::tasks::table::Entry;
use crate::tasks::uid_range;
use kernel::ended::ENDED;
use kernel::layout::{READY, UPPERS, executed_mark, unit_of_file};

/// Rebuilds everything. Waits as long as PID 1 cannot be asked: an empty table would be a lie.
pub(crate) async fn run(
    context: &Rc<Context>,
    mut stored: HashMap<String, OwnedFd>,
) -> Result<(), String> {
    let read::All { found, relays, workers } = loop {
        match read::find_all(&context.bus).await {
            Ok(all) => break all,
            Err(error) => {
                tracing::warn!(%error, "PID 1 cannot be asked; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    };
    notify::adopt(stored.keys());
    let count = found.len();
    let known = |id| found.iter().any(|unit| unit.record.unit() == id);
    let unreadable = found.iter().filter(|unit| !unit.record.is_readable());
    let unreadable: Vec<_> = unreadable.map(|unit| names::task(unit.record.unit())).collect();
    context.streams.borrow_mut().adopt(&mut stored, known);
    // Before those of tasks, of which there may be many.
    filter_cache::fill_usual(context);
    for unit in found {
        adopt(context, unit, &mut stored);
    }
    let filter = stored.remove(networks::STORED);
    networks::take_over(context, filter).await;
    hosts_files::take_over(context).await;
    context.unclaimed.replace(stored);
    if !unreadable.is_empty() {
        tracing::error!(
            units = ?unreadable,
            "units without a readable record, as of a later version: they can be removed, what is \
             stored stays until then"
        );
    }
    workers::adopt(context, workers);
    sweep_unclaimed(context);
    sweep_files(context);
    tokio::task::spawn_local(sweep_all(context.clone(), relays));
    let context_of_sweep = context.clone();
    tokio::task::spawn_local(async move { leftovers::sweep(&context_of_sweep).await });
    tracing::info!(tasks = count, "table rebuilt");
    // PID 1 answers now, and may not when a driver greets.
    drop(context.systemd().await);
    Ok(())
}

fn adopt(context: &Rc<Context>, found: Found, stored: &mut HashMap<String, OwnedFd>) {
    let record = found.record;
    let id = record.unit();
    let mut take = |kind: &str| stored.remove(&format!("{kind}-{id}")).map(Process::from_stored);
    let (leader, payload) = (take("leader"), take("payload"));
    if let Some(base) = record.locked_range() {
        let lock = stored.remove(&uid_range::stored_name(base));
        context.ranges.borrow_mut().adopt(record.key.alloc, base, lock);
    }
    // A start that we died in the middle of, or a store that was lost: look for the rest.
    let mut processes =
        payload_watch::Processes { leader: leader.clone(), payload: payload.clone() };
    // The pid was read a while ago and may be another's by now.
    let own = |main: &Process| main.is_in_unit(&names::task(id));
    let mut main = Process::open(found.main_pid).ok().filter(own);
    match &main {
        Some(main) => {
            payload_watch::find_processes(main, record.kind, &mut processes);
            output::release_at_end(context, &record.key, main.clone());
        }
        None => context.streams.borrow_mut().end(id),
    }
    // Ended while no helper was there, and not as systemd-nspawn. Of a task whose record cannot be
    // read nothing is concluded: it runs until it is removed.
    let executed = record.form != Form::Whole || executed_mark(id).exists();
    let failed = main.is_none() && processes.leader.is_none() && !executed;
    let must = arrival::filters_of_start(id);
    // The cache may have been emptied, and a command that is executed in the task needs them.
    filter_cache::fill_for(context, id);
    // One that arrived without filters goes through the start again, and so is undone.
    main = main.filter(|main| {
        record.is_readable()
            && (!payload_watch::has_arrived(record.kind, nspawn(), &processes)
                || payload_watch::check_filters(main, record.kind, &processes, must).is_err())
    });
    let mut entry = Entry::new(record.clone(), found.started_ms, main.is_some() || failed);
    (entry.leader, entry.payload) = (leader, payload);
    // Also one whose descriptor was lost with the store.
    let is_running = processes.leader.as_ref().is_some_and(|leader| !leader.has_ended());
    entry.published = record.has_network() && (is_running || main.is_some());
    context.table.borrow_mut().insert(entry);
    arrival::store_processes(context, &record, &processes);
    let context = context.clone();
    tokio::task::spawn_local(async move {
        match main {
            Some(main) => resume::run(&context, &record, &main).await,
            None if failed => resume::abandon(&context, &record).await,
            None => {
                conduct::end_boost(&context, &record.key).await;
                machined::register(&context, &record.key);
                networks::withdraw_at_end(&context, &record.key);
                found::follow(&context, &record.key);
            }
        }
    });
}

/// Removes what launchers have left whose unit is gone, what was kept of their ends, and the
/// sockets of an earlier process: its starts count as done.
fn sweep_files(context: &Context) {
    for file in fs::read_dir(READY).into_iter().flatten().flatten() {
        let name = file.file_name();
        let unit = name.to_str().and_then(unit_of_file);
        if name.as_encoded_bytes().starts_with(b"ready-")
            || unit.is_some_and(|unit| !context.table.borrow().holds(unit))
        {
            files::remove(&file.path());
        }
    }
    for file in fs::read_dir(ENDED).into_iter().flatten().flatten() {
        let unit = file.file_name().to_str().and_then(UnitId::parse);
        if unit.is_none_or(|unit| !context.table.borrow().holds(unit)) {
            files::remove(&file.path());
        }
    }
}

/// Gives up what is stored for no task. While there is a task whose record cannot be read, it may
/// be that one's, e.g. the lock of its uid range.
pub(crate) fn sweep_unclaimed(context: &Context) {
    if context.table.borrow().unreadable().next().is_none() {
        context.unclaimed.take().into_iter().for_each(|(name, fd)| sweep(&name, fd));
    }
}

/// Gives up a stored descriptor whose unit is gone.
fn sweep(name: &str, fd: OwnedFd) {
    tracing::info!(name, "stored descriptor without a unit: dropped");
    // A lock file that is gone was taken away by us; one of its name now is another's.
    let linked = nix::sys::stat::fstat(&fd).is_ok_and(|file| file.st_nlink > 0);
    match name.strip_prefix("range-").and_then(|base| base.parse().ok()) {
        Some(base) if linked => uid_range::free(base),
        _ => notify::forget(name),
    }
    drop(fd);
}

/// Takes away what a task that is gone has left: the unit that relayed its output, which ends by
/// itself unless nobody takes the output, and its upper layer, e.g. after a reboot of the host.
async fn sweep_all(context: Rc<Context>, relays: Vec<UnitId>) {
    let is_left = |id: &UnitId| !context.table.borrow().holds(*id);
    let directories = fs::read_dir(UPPERS).into_iter().flatten().flatten();
    let layers = directories.filter_map(|directory| UnitId::parse(directory.file_name().to_str()?));
    let clean = async {
        for id in layers.filter(is_left) {
            tracing::info!(unit = %id, "upper layer without a unit: cleaned");
            if let Err(error) = remove::clean(&context, id).await {
                tracing::error!(%error, "not cleaned");
            }
        }
    };
    let stop = async {
        for id in relays.into_iter().filter(is_left) {
            if let Err(error) = stop::stop(&context.bus, &names::relay(id)).await {
                tracing::error!(unit = %id, %error, "the relay of an ended task could not be stopped");
            }
        }
    };
    tokio::join!(clean, stop);
}
