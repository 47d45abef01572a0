//! The task's network.
//!
//! | module | idea |
//! |---|---|
//! | `enter` | the network namespace: a new one, one to join, or the host's |
//! | `link` | the link between the host and a task with a network of its own |
//! | `rtnetlink` | messages about links, addresses and routes |
//! | `settings` | the kernel's settings of links, and forwarding |
//! | `ports`, `holder` | ports of the host that are to lead to the task; who has one |
//!
//! Trusts the plan: names and addresses are the daemon's. Takes nothing from a task, and never
//! touches the packet filter or a link that is not the task's own.

mod enter;
mod holder;
mod link;
mod ports;
mod rtnetlink;
mod settings;
#[cfg(test)]
mod tests;

pub(super) use enter::enter_network_namespace;
