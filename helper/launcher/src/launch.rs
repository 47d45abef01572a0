//! `launch`: from the plan to systemd-nspawn, in named steps.
//!
//! The process stays the unit's main process all the way: it prepares, reports, waits for "go" and
//! then executes systemd-nspawn in its own place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, execve};
use proto::error::Refusal;
use proto::limits;
use proto::plan::{Plan, Report, Step};

use super::daemon_link::{self, Orders};
use super::open::if_there;
use super::output::{self, Streams};
use super::prepared::Extras;
use super::stage::OwnPath;
use super::step::{At, Problem, Steps};
use super::{
    etc_files, files, isolation, machine_id, messages, mount_points, namespaces, nspawn, root,
    settings, task_dirs, user, warnings,
};
use kernel::syscalls;

/// Everything that the last step needs.
struct Ready {
    binary: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    streams: Streams,
    null: OwnedFd,
    /// Where systemd-nspawn's own messages arrive.
    messages: OwnedFd,
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
    umask(Mode::from_bits_truncate(0o022));
    let (ready, notes) = prepare(&plan, steps)?;
    let times = steps.line();
    steps.run(Step::Go, || {
        let report = Report::Prepared { notes };
        orders.report_with(&report, &[ready.messages.as_fd()]).at("helper socket")?;
        // While the helper has its turn.
        eprintln!("{times}");
        namespaces::reap()?;
        orders.wait_for_go()
    })?;
    let mark = OwnPath::executed_mark(plan.unit);
    steps.run(Step::Exec, || {
        let failed = execute(orders, ready, &mark);
        // It comes back only when nothing was executed.
        if_there(mark.remove_file()).at(&mark)?;
        failed
    })
}

fn prepare(plan: &Plan, steps: &mut Steps) -> Result<(Ready, Vec<String>), Refusal> {
    let mut extras = Extras::default();
    let messages = steps.run(Step::MountNamespace, || {
        namespaces::enter_mount_namespace()?;
        messages::receive()
    })?;
    // The network before any mount of sysfs: systemd-nspawn's shows the namespace it is made in.
    steps.run(Step::NetworkNamespace, || namespaces::enter_network_namespace(&plan.network))?;
    // Opened here and not before: only mounts of the own namespace can be cloned.
    let image = steps.run(Step::Image, || root::Image::open(plan))?;
    // The identity maps nothing.
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
        mount_points::attach_all(plan, &root, &mut extras)
    })?;
    let streams = steps.run(Step::Logs, || output::find(plan, users, &mut extras))?;
    let ready = steps.run(Step::Settings, || {
        isolation::prepare(plan, &mut extras)?;
        extras.notes.extend(warnings::collect(plan));
        namespaces::private_runtime(plan.root.mode.writes_image())?;
        let user = user::find(plan, &root, &mut extras)?;
        let bounding = isolation::bounding(plan).at("capabilities")?;
        settings::write(&plan.environment, user.as_ref(), bounding)?;
        messages::redirect()?;
        let binary = kernel::layout::nspawn_binary().ok_or_else(|| {
            Problem::refused("systemd-nspawn", "not installed: apt install systemd-container")
        })?;
        // The daemon counts the filters of what runs; a payload could have added its own by then.
        if !syscalls::can_load(syscalls::LIBSECCOMP) {
            let reason = "cannot be loaded, and systemd-nspawn of version 258 and newer then \
                          starts a payload without system call filters: apt install libseccomp2";
            return Err(Problem::refused("libseccomp.so.2", reason));
        }
        Ok(Ready {
            binary: CString::new(binary.as_os_str().as_encoded_bytes())
                .map_err(|_| Problem::refused("systemd-nspawn", "path holds a NUL byte"))?,
            arguments: nspawn::c_strings(nspawn::arguments(plan, &extras), "command")?,
            environment: nspawn::c_strings(nspawn::environment(plan, &extras), "environment")?,
            streams,
            null: output::null()?,
            messages,
        })
    })?;
    extras.notes.truncate(limits::NOTES_MAX);
    Ok((ready, extras.notes))
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
    renew_cgroup_lock();
    let journal = io::stderr().as_fd().try_clone_to_owned().at("standard error")?;
    let [stdout, stderr] = ready.streams.open(Some(orders))?;
    mark.write("").at(mark)?;
    dup2_stdin(&ready.null).at("standard input")?;
    dup2_stdout(&stdout).at("standard output")?;
    dup2_stderr(&stderr).at("standard error")?;
    let Err(error) = execve(&ready.binary, &ready.arguments, &ready.environment);
    // The task's stderr is not ours to write to.
    dup2_stderr(&journal).at("standard error")?;
    Err(error).at("systemd-nspawn")
}
