//! What is allowed: a pure decision over one task specification.
//!
//! No I/O, no clock, no state of its own. Whatever [`decide`] does not put into the [`Decision`]
//! does not happen. First everything that contradicts itself or passes a bound (code `Invalid`),
//! then every rule of the policy file (code `Policy`); a refusal names what was asked, the rule and
//! the line of the policy file that would allow it.
//!
//! | module | idea |
//! |---|---|
//! | `file`, `parse`, `reader` | the file: who may write it, its keys, its text |
//! | `counts`, `sense`, `targets` | bounds, contradictions, mount points inside |
//! | `images`, `users` | the image's place, the user namespace |
//! | `binds`, `devices` | places of the host that a task sees |
//! | `isolation`, `network`, `resources` | capabilities and settings, network, ceilings |
//! | `glob`, `names` | patterns, machine names |

mod binds;
mod counts;
mod devices;
mod file;
mod glob;
mod images;
mod isolation;
mod names;
mod network;
mod parse;
mod reader;
mod resources;
mod sense;
mod targets;
mod users;

use std::fmt::Display;

pub use file::{Policy, load};
pub use names::machine_name;
pub use parse::parse;
pub use resources::check_signal;

use proto::error::{Code, Refusal};
use proto::limits;
use proto::name::MachineName;
use proto::path::Absolute;
use proto::plan::{Place, PlannedFiles, PlannedNetwork, Step, TaskDirs};
use proto::spec::files::DeviceAccess;
use proto::spec::{Resources, TaskSpec, Users};

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
    /// DeviceAllow= of the unit beyond every task's own: the job's devices, and what a disk image
    /// or block device as image needs.
    pub devices: Vec<UnitDevice>,
    /// Limits of the unit, with the policy's ceilings; `tasks_max` is always set.
    pub resources: Resources,
    /// TimeoutStopUSec= in milliseconds.
    pub kill_timeout_ms: u64,
}

/// One line of DeviceAllow= (systemd.resource-control(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitDevice {
    /// A path below /dev, or a group of devices such as `block-loop`; letters, digits and
    /// `/._:+@,=-` alone.
    pub path: String,
    /// What the unit may do with it.
    pub access: DeviceAccess,
}

/// Why a specification is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule, for machines: the key of the policy file that is in the way, or a word for a
    /// bound or contradiction that no policy lifts.
    pub rule: &'static str,
    /// The same for people.
    pub refusal: Refusal,
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
    counts::check(spec)?;
    sense::check(spec)?;
    targets::check(&spec.files)?;
    users::check_range(spec.users, policy)?;
    resources::check(spec.resources)?;
    let kill_signal = resources::kill_signal(spec)?;
    let image = images::place(spec, policy)?;
    let task_dirs = binds::task_dirs(spec, policy)?;
    users::check(spec.users, &image, policy)?;
    isolation::check(spec, policy)?;
    let files = binds::files(spec, &task_dirs, policy)?;
    let mut devices = images::devices(&spec.root, &image)?;
    devices.extend(
        files
            .devices
            .iter()
            .map(|device| UnitDevice { path: device.host.to_string(), access: device.access }),
    );
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
        kill_timeout_ms: spec.kill_timeout_ms.min(limits::KILL_TIMEOUT_MAX_MS),
    })
}

/// A rule of the policy file is in the way.
fn refuse(rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    denial(Code::Policy, rule, object, reason)
}

/// An entry in a list of the policy file would allow it.
fn unlisted(rule: &'static str, object: impl Display, entry: impl Display) -> Denial {
    let (section, key) = rule.split_once('.').unwrap_or(("", rule));
    let reason = format!("the policy file would allow it with \"{entry}\" in [{section}] {key}");
    refuse(rule, object, reason)
}

/// It contradicts itself or passes a bound.
fn invalid(rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    denial(Code::Invalid, rule, object, reason)
}

fn denial(code: Code, rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    let (object, reason) = (object.to_string(), reason.to_string());
    Denial { rule, refusal: Refusal::new(code, Step::Decide.name(), object, reason) }
}

/// The first of `roots` that holds `path`, with the rest of the path.
fn place_below<'a>(
    path: &Absolute,
    roots: impl IntoIterator<Item = &'a Absolute>,
) -> Option<Place> {
    let mut roots = roots.into_iter();
    roots.find_map(|root| path.below(root).map(|below| Place { root: root.clone(), below }))
}

#[cfg(test)]
mod tests;
