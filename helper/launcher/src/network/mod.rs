//! The task's network.
//!
//! | module | idea |
//! |---|---|
//! | `enter` | the network namespace: a new one, one to join, the host's, or one that systemd-nspawn makes |
//! | `doorman` | the process that connects a payload whose namespace belongs to the container |
//! | `payload_cgroup` | the cgroup that holds that payload back meanwhile |
//! | `egress` | whether the addresses of a job's `egress` hold |
//! | `networkd` | the addresses for an image that runs systemd-networkd |
//! | `attach` | an interface in a network of the operator's: bridges, macvlan |
//! | `link` | the link between the host and a task with a network of its own |
//! | `rtnetlink` | messages about links, addresses and routes |
//! | `settings` | the kernel's settings of links, and forwarding |
//! | `ports`, `holder` | ports of the host that are to lead to the task; who has one |
//!
//! Trusts the plan: names and addresses are the daemon's. Takes nothing from a task, and never
//! touches the packet filter or a link that is not the task's own.

mod attach;
mod doorman;
mod egress;
mod enter;
mod holder;
mod link;
mod networkd;
mod payload_cgroup;
mod ports;
mod rtnetlink;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use doorman::Doorman;
pub(super) use egress::check_enforced as check_egress;
pub(super) use enter::{enter_network_namespace, settle_owner};
pub(super) use kernel::layout::PAYLOAD;
pub(super) use networkd::prepare as prepare_networkd;
