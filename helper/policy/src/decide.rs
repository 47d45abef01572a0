//! The decision: every check in its order, and what comes out of it.
//!
//! Pure: no I/O, no clock, no state. Whatever [`decide`] does not put into the [`Decision`] does not
//! happen.

use proto::error::Refusal;
use proto::limits;
use proto::name::MachineName;
use proto::plan::{Place, PlannedFiles, PlannedNetwork, TaskDirs};
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::{Resources, TaskSpec, Users};

use super::{
    Denial, Policy, allocation, binds, bounds, contradictions, images, isolation, machine_name,
    network, resources, targets, users,
};

/// The policy's answer to a specification: everything checked, every name made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Machine name.
    pub machine: MachineName,
    /// Where the image is.
    pub image: Place,
    /// The network.
    pub network: PlannedNetwork,
    /// The task's folders.
    pub task_dirs: TaskDirs,
    /// Signal that asks the payload to end.
    pub kill_signal: u8,
    /// The user namespace.
    pub users: Users,
    /// Further files.
    pub files: PlannedFiles,
    /// DeviceAllow= of the unit (systemd.resource-control(5)) beyond every task's own: the job's
    /// devices, and what a disk image or block device as image needs. A path below /dev, or a group
    /// of devices such as `block-loop`: letters, digits and `/._:+@,=-` alone.
    pub devices: Vec<(String, DeviceAccess)>,
    /// Limits of the unit, with the policy's ceilings; `tasks_max` is always set.
    pub resources: Resources,
    /// TimeoutStopUSec= in milliseconds.
    pub kill_timeout_ms: u64,
}

/// Judges one specification.
///
/// # Errors
/// The first rule that it breaks.
pub fn decide(spec: &TaskSpec, policy: &Policy) -> Result<Decision, Refusal> {
    judge(spec, policy).map_err(|denial| denial.refusal)
}

/// As [`decide`], with the name of the rule.
///
/// # Errors
/// The first rule that it breaks.
pub fn judge(spec: &TaskSpec, policy: &Policy) -> Result<Decision, Denial> {
    bounds::check(spec)?;
    contradictions::check(spec)?;
    targets::check(spec)?;
    users::check_range(spec.users, policy)?;
    resources::check(spec.resources)?;
    let kill_signal = resources::kill_signal(spec)?;
    let image = images::place(spec, policy)?;
    let task_dirs = allocation::task_dirs(spec, policy)?;
    users::check(spec.users, &image, policy)?;
    isolation::check(spec, policy)?;
    let files = binds::files(spec, &task_dirs, policy)?;
    let mut devices = images::devices(&spec.root, &image)?;
    devices.extend(files.devices.iter().map(|device| (device.host.to_string(), device.access)));
    Ok(Decision {
        machine: machine_name(&spec.key),
        image,
        network: network::plan(spec, policy)?,
        task_dirs,
        kill_signal,
        users: spec.users,
        files,
        devices,
        resources: resources::within(spec.resources, policy)?,
        kill_timeout_ms: (spec.kill_timeout_ms)
            .clamp(limits::KILL_TIMEOUT_MIN_MS, limits::KILL_TIMEOUT_MAX_MS),
    })
}
