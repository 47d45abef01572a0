//! `launch`: from the plan to systemd-nspawn, in named steps.
//!
//! The process stays the unit's main process all the way: it prepares, reports, waits for "go" and
//! then executes systemd-nspawn in its own place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use proto::error::Refusal;
use proto::limits;
use proto::plan::{Plan, Report};
use proto::step::Step;

use super::daemon_link::{self, Orders};
use super::filters::choose::Chosen;
use super::network::Doorman;
use super::open::if_there;
use super::output::{self, Streams};
use super::prepared::Extras;
use super::stage::OwnPath;
use super::step::{At, Problem, Steps};
use super::{
    etc_files, files, isolation, machine_id, messages, mount_points, namespaces, network, nspawn,
    payload_limits, root, settings, task_dirs, user, warnings,
};
use kernel::syscalls;

/// Everything that the last step needs.
struct Ready {
    binary: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    streams: Streams,
    /// Connects the payload where the launcher cannot.
    doorman: Option<Doorman>,
    /// Where the daemon sees that it ends.
    doorman_life: Option<OwnedFd>,
    null: OwnedFd,
    /// Where systemd-nspawn's own messages arrive.
    messages: OwnedFd,
    filters: Chosen,
}

/// Runs `launch`.
pub(super) fn main() -> ExitCode {
    daemon_link::serve("launch", run)
}

fn run(
    orders: &Orders,
    plan: Plan,
    steps: &mut Steps,
) -> Result<std::convert::Infallible, Refusal> {
    // The unit's own must not decide about the modes of what is made here and by systemd-nspawn.
    umask(Mode::from_bits_truncate(0o022));
    let mut plan = plan;
    let (mut ready, notes) = prepare(&mut plan, steps)?;
    let times = steps.line("prepared");
    steps.run(Step::Go, || {
        let (filters, lacks_filters) = (ready.filters.source.clone(), ready.filters.is_missing);
        let held_back = ready.doorman.is_some();
        let report = Report::Prepared { notes, held_back, filters, lacks_filters };
        let life = ready.doorman_life.take();
        let fds = std::iter::once(&ready.messages).chain(&life).map(AsFd::as_fd);
        orders.report_with(&report, &fds.collect::<Vec<_>>()).at("helper socket")?;
        // Both cost time, which is free here: the helper has its own work to do before "go".
        eprintln!("{times}");
        namespaces::reap()?;
        orders.wait_for_go()
    })?;
    let mark = OwnPath::executed_mark(plan.unit);
    if let Some(doorman) = ready.doorman.take() {
        // Its move into a cgroup serves as the renewal.
        steps.run(Step::Doorman, || doorman.start(orders))?;
    } else {
        renew_cgroup_lock();
    }
    steps.run(Step::Exec, || {
        let failed = execute(orders, ready, &mark);
        // execve(2) returns only when it failed: the end of this process is not the payload's then.
        if_there(mark.remove_file()).at(&mark)?;
        failed
    })
}

fn prepare(plan: &mut Plan, steps: &mut Steps) -> Result<(Ready, Vec<String>), Refusal> {
    let mut extras = Extras::default();
    extras.notes.extend(network::settle_owner(&mut plan.network));
    let plan = &*plan;
    // First of all: whatever is mounted from here on goes with the unit's last process.
    let messages = steps.run(Step::MountNamespace, || {
        namespaces::enter_mount_namespace()?;
        messages::receive()
    })?;
    // Before systemd-nspawn mounts sysfs: one shows the network namespace of the process that mounts it.
    let mut doorman = steps.run(Step::NetworkNamespace, || {
        network::check_egress(plan)?;
        let sysctls = &plan.isolation.sysctls;
        network::enter_network_namespace(&plan.network, &plan.machine, sysctls)
    })?;
    // After unshare(2): open_tree(2) clones only mounts of the caller's own mount namespace.
    let image = steps.run(Step::Image, || root::Image::open(plan))?;
    // A range that begins at 0 shows every owner as it is on disk: there is nothing to map.
    let range = plan.users.filter(|range| range.base != 0);
    let users =
        steps.run(Step::UserNamespace, || range.map(namespaces::user_namespace).transpose())?;
    let users = users.as_ref().map(AsFd::as_fd);
    let root = steps.run(Step::RootFs, || root::mount_root(plan, &image, users, &mut extras))?;
    if !plan.root.mode.writes_image() {
        steps.run(Step::MachineId, || {
            machine_id::write(plan.alloc, plan.users.map(|range| range.base))
        })?;
    }
    steps.run(Step::TaskDirs, || task_dirs::mount_all(plan, users, &mut extras))?;
    steps.run(Step::Files, || files::prepare(plan, users, &mut extras))?;
    steps.run(Step::Names, || {
        etc_files::prepare(plan, &root, &mut extras)?;
        mount_points::attach_all(plan, &root, &mut extras)?;
        network::prepare_networkd(plan, &mut extras)
    })?;
    let streams = steps.run(Step::Logs, || output::find(plan, users, &mut extras))?;
    let freeze = |doorman: &mut Doorman| steps.run(Step::Freeze, || doorman.freeze());
    let doorman_life = doorman.as_mut().map(freeze).transpose()?;
    let ready = steps.run(Step::Settings, || {
        let filters = prepare_settings(plan, &root, &mut extras)?;
        messages::redirect()?;
        check_libseccomp()?;
        Ok(Ready {
            binary: nspawn::binary()?,
            arguments: nspawn::c_strings(nspawn::arguments(plan, &extras), "command")?,
            environment: nspawn::c_strings(nspawn::environment(plan, &extras), "environment")?,
            streams,
            doorman,
            doorman_life,
            null: output::null()?,
            messages,
            filters,
        })
    })?;
    extras.notes.truncate(limits::NOTES_MAX);
    Ok((ready, extras.notes))
}

/// What is set beside the options of systemd-nspawn: isolation, limits that show inside, user and
/// environment. Returns the filters that the payload gets.
fn prepare_settings(
    plan: &Plan,
    root: &root::Mounted,
    extras: &mut Extras,
) -> Result<Chosen, Problem> {
    isolation::prepare(plan, extras)?;
    // The unit's own hold all the same.
    if let Err(problem) = payload_limits::show(plan) {
        extras.notes.push(format!("the task does not see its limits inside: {problem}"));
    }
    extras.notes.extend(warnings::collect(plan));
    namespaces::private_runtime(plan.root.mode.writes_image())?;
    let user = user::find(plan, root, extras)?;
    let bounding = isolation::bounding(plan).at("capabilities")?;
    settings::write(&plan.environment, user.as_ref(), bounding)?;
    Chosen::of(plan, bounding)
}

/// The daemon counts the filters of what runs; a payload could have added its own by then.
fn check_libseccomp() -> Result<(), Problem> {
    if syscalls::can_load(syscalls::LIBSECCOMP) {
        return Ok(());
    }
    let reason = "cannot be loaded, and systemd-nspawn of version 258 and newer then starts a payload \
                  without system call filters: apt install libseccomp2";
    Err(Problem::refused("libseccomp.so.2", reason))
}

/// Moves the process into the cgroup that it is in.
///
/// A move waits for RCU, about 10 ms, but not for a while after another (rcu_sync of the kernel's
/// cgroup_threadgroup_rwsem). PID 1 has made one, systemd-nspawn is about to: this one lies between
/// them, so that the second still finds the lock ready. It changes nothing.
fn renew_cgroup_lock() {
    let moved = OwnPath::own_cgroup().and_then(|own| match own {
        Some(own) => own.join("cgroup.procs").write("0"),
        None => Ok(()),
    });
    if let Err(error) = moved {
        eprintln!("the start may take some milliseconds more: own cgroup: {error}");
    }
}

fn execute(
    orders: &Orders,
    ready: Ready,
    mark: &OwnPath,
) -> Result<std::convert::Infallible, Problem> {
    // Kept for an error after standard error has become the task's.
    let journal = io::stderr().as_fd().try_clone_to_owned().at("standard error")?;
    let [stdout, stderr] = ready.streams.open(Some(orders))?;
    let filters = ready.filters.still_current();
    // Before execve(2): from then on the unit's main process may end with any status.
    mark.write(&filters.mark()).at(mark)?;
    // dup2(2) clears close-on-exec: systemd-nspawn gets these three descriptors and no others.
    dup2_stdin(&ready.null).at("standard input")?;
    dup2_stdout(&stdout).at("standard output")?;
    dup2_stderr(&stderr).at("standard error")?;
    let Err(problem) = filters.execute(&ready.binary, &ready.arguments, ready.environment);
    // The reason belongs in the journal, not in the task's output.
    dup2_stderr(&journal).at("standard error")?;
    Err(problem)
}
