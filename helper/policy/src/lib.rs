//! What is allowed: a pure decision over one task specification.
//!
//! No I/O, no clock, no state of its own. Whatever [`decide`] does not put into the [`Decision`]
//! does not happen. First everything that contradicts itself or passes a bound (code `Invalid`),
//! then every rule of the policy file (code `Policy`); a refusal names what was asked, the rule and
//! the line of the policy file that would allow it.
//!
//! | module | idea |
//! |---|---|
//! | `decide`, `refusal` | the order of the checks; how a refusal is made |
//! | `model`, `parse`, `values`, `addresses` | the file: its meaning, its keys, its values |
//! | `bounds`, `contradictions`, `targets` | bounds, contradictions, mount points inside |
//! | `images`, `users` | the image's place, the user namespace |
//! | `allocation`, `binds`, `devices` | places of the host that a task sees |
//! | `isolation`, `network`, `resources` | capabilities and settings, network, ceilings |
//! | `exec` | commands in tasks that run |
//! | `glob`, `machine_name` | patterns, machine names |
//!
//! It has no dependency that could do I/O, and its lints forbid that of the standard library
//! (`clippy.toml` beside this crate).
#![forbid(unsafe_code)]

mod addresses;
mod allocation;
mod binds;
mod bounds;
mod contradictions;
mod decide;
mod devices;
mod exec;
mod glob;
mod images;
mod isolation;
mod machine_name;
mod model;
mod network;
mod parse;
mod refusal;
mod resources;
mod targets;
mod users;
mod values;

#[cfg(test)]
mod tests;

pub use addresses::{Forwarding, HostPorts, Prefix, Protocol};
pub use decide::{Allocated, Decision, Judgement, UnitSettings, decide, judge};
pub use exec::check_exec;
pub use machine_name::machine_name;
pub use model::Policy;
pub use parse::{from_file, parse};
pub use refusal::Denial;
pub use resources::check_signal;

pub(crate) use refusal::{invalid, place_below, refuse, unlisted};
