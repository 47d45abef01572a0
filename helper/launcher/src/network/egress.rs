//! Whether the addresses of a task's `egress` hold.
//!
//! PID 1 enforces IPAddressDeny= by programs that it attaches to the unit's cgroup. Where it cannot, it
//! logs that and starts the unit all the same: the launcher looks, and refuses.
//!
//! Trusts the kernel's count alone. Never attaches or takes away a program.

use nix::fcntl::OFlag;
use proto::plan::Plan;
use std::os::fd::AsFd;

use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Refuses a task with such addresses where nothing looks at its packets.
pub(crate) fn check_enforced(plan: &Plan) -> Result<(), Problem> {
    if plan.resources.egress.is_none() {
        return Ok(());
    }
    let Some(unit) = OwnPath::unit_cgroup().at("cgroup of the unit")? else {
        return Err(not_enforced("the unit has no cgroup of version 2"));
    };
    let cgroup = unit.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY).at(&unit)?;
    for outgoing in [true, false] {
        match syscalls::packet_programs(cgroup.as_fd(), outgoing) {
            Ok(0) => {
                return Err(not_enforced("PID 1 has attached no program to the unit's cgroup"));
            }
            Ok(_) => {}
            Err(error) => return Err(not_enforced(&format!("programs of {unit}: {error}"))),
        }
    }
    Ok(())
}

fn not_enforced(why: &str) -> Problem {
    let reason = format!(
        "nothing would enforce these addresses: {why}; the kernel needs CONFIG_CGROUP_BPF (see \
         journalctl -b _PID=1), or remove egress from the job"
    );
    Problem::refused("egress", reason)
}
