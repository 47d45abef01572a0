//! What packet filter rules of other programs do to the packets of tasks.
//!
//! | module | idea |
//! |---|---|
//! | [`ruleset`] | the rules of the host as `nft` lists them |
//! | [`save`] | the same of iptables, as `iptables-save` prints them |
//! | [`packet`] | a packet of a task, and which rules it meets |
//! | [`walk`] | its way through a chain |
//! | [`blocker`] | who drops it, and the line that lets it pass |

pub(super) mod blocker;
mod packet;
pub(super) mod ruleset;
mod save;
#[cfg(test)]
mod tests;
mod walk;
