//! The doorman: a process that connects a payload whose network namespace belongs to the container.
//!
//! systemd-nspawn makes that namespace inside the container's user namespace, when the launcher is
//! gone already: it has become systemd-nspawn. So the launcher leaves a copy of itself behind. It
//! waits until the payload is held in its frozen cgroup ([`super::payload_cgroup`]), makes the link
//! into its namespace, lets the payload run, reports to the daemon, and ends.
//!
//! Whatever fails, the payload stays frozen: it never runs without its network. The daemon kills the
//! unit then. Needs no daemon to go on: one that has died meanwhile finds the task running.
//!
//! Trusts the plan and the kernel; takes nothing from the payload, which has not run yet.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::exit;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use proto::error::Refusal;
use proto::link::{BridgePort, Link};
use proto::name::MachineName;
use proto::plan::Report;
use proto::step::Step;
use proto::task_spec::network::Attached;
use proto::task_spec::process::Sysctl;

use super::link::{Host, own_namespace};
use super::payload_cgroup::PayloadCgroup;
use crate::daemon_link::Orders;
use crate::isolation;
use crate::step::{At, Problem, Steps};
use kernel::syscalls;

/// What connects the payload.
pub(crate) enum Made {
    /// A link to the host.
    Link(Link),
    /// An interface in a network of the operator's; whether forwarding may be switched on for it.
    Attached(Attached, BridgePort, bool),
}

/// What is made for it while a failure still refuses the start.
pub(crate) struct Doorman {
    host: Host,
    made: Made,
    machine: MachineName,
    /// Kernel settings of the job in the network namespace.
    sysctls: Vec<Sysctl>,
    cgroup: Option<PayloadCgroup>,
    /// A pipe that ends with the process, and with the launcher before it: its other end is the
    /// daemon's. The socket does not end, because PID 1 keeps a copy of it.
    life: Option<OwnedFd>,
}

impl Doorman {
    /// `host`: checked, and opened in the host's network namespace.
    pub(super) fn new(host: Host, made: Made, machine: &MachineName, sysctls: &[Sysctl]) -> Self {
        let machine = machine.clone();
        Self { host, made, machine, sysctls: sysctls.to_vec(), cgroup: None, life: None }
    }

    /// Makes the cgroup that will hold the payload back; returns the daemon's end of the pipe.
    pub(crate) fn freeze(&mut self) -> Result<OwnedFd, Problem> {
        self.cgroup = Some(PayloadCgroup::make()?);
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).at("pipe")?;
        self.life = Some(ours);
        Ok(theirs)
    }

    /// Starts the process, which belongs to PID 1: systemd-nspawn has no child but its own.
    pub(crate) fn start(self, orders: &Orders) -> Result<(), Problem> {
        let Self { cgroup: Some(cgroup), .. } = &self else {
            return Err(Problem::refused("payload's cgroup", "was not made"));
        };
        // The process becomes systemd-nspawn.
        let main = syscalls::open_process(std::process::id()).at("own process")?;
        let Some(middle) = syscalls::fork().at("fork")? else {
            // Before anything else runs: systemd-nspawn needs the unit's own cgroup empty.
            let moved = cgroup.enter_supervisor();
            let forked = moved.and_then(|()| syscalls::fork());
            match forked {
                Ok(None) => exit(self.attend(orders, &main)),
                Ok(Some(_)) => exit(0),
                Err(error) => {
                    eprintln!("cannot start the process that connects the payload: {error}");
                    exit(1)
                }
            }
        };
        match waitpid(Pid::from_raw(middle), None).at("fork")? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => {
                let reason = "could not be started; the journal of the unit has the reason";
                Err(Problem::held("process that connects the payload", reason))
            }
        }
    }

    /// The process's life; returns its exit status.
    fn attend(mut self, orders: &Orders, main: &OwnedFd) -> i32 {
        let report = match self.connect(main) {
            Ok(true) => Report::Connected,
            // The daemon sees that itself, and has its messages.
            Ok(false) => return 1,
            Err(refusal) => {
                eprintln!("network failed: {refusal}");
                Report::Failed(refusal)
            }
        };
        let is_connected = report == Report::Connected;
        if let Err(error) = orders.report(&report) {
            eprintln!("cannot report to the helper: {error}");
        }
        i32::from(!is_connected)
    }

    /// Connects the payload and lets it run; `false` when systemd-nspawn has ended before.
    fn connect(&mut self, main: &OwnedFd) -> Result<bool, Refusal> {
        let mut steps = Steps::new();
        let Self { host, made, machine, sysctls, cgroup: Some(cgroup), .. } = self else {
            return Ok(false);
        };
        let Some(pid) = steps.run(Step::AwaitPayload, || cgroup.await_payload(main))? else {
            return Ok(false);
        };
        steps.run(Step::Connect, || {
            let namespace = cgroup.open_namespace(pid)?;
            setns(namespace, CloneFlags::CLONE_NEWNET).at("network namespace")?;
            match made {
                Made::Link(link) => host.connect(link, machine)?,
                Made::Attached(attached, port, enable) => {
                    let own = own_namespace()?;
                    host.attach(attached, *port, machine, *enable, own.as_fd())?.configure()?;
                }
            }
            isolation::write_network_settings(sysctls)
        })?;
        steps.run(Step::Thaw, || cgroup.thaw())?;
        // The launcher's own line came before "go".
        eprintln!("{}", steps.line("connected"));
        Ok(true)
    }
}
