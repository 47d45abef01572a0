//! The privileged side of the nspawn task driver, in two binaries.
//!
//! ```text
//! nomad-nspawn-helper   daemon   uid 0, CAP_KILL: decodes, decides, allocates, asks PID 1
//! nomad-nspawn-task     launch   in the task's unit: namespaces, mounts, then exec systemd-nspawn
//!                       follow   in a unit beside it: carries the output where the job wants it twice
//!                       clean    in the task's unit, after it: takes the upper layer away
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`policy`] | what is allowed: a pure decision over the root-owned policy file |
//! | [`daemon`] | the service: socket, table of tasks, PID 1 |
//! | [`task`] | the one-shot steps inside a task's unit |
//! | [`sys`] | kernel calls that nix lacks: the only `unsafe` |
//! | `ctl` | `nomad-nspawnctl`, behind a feature of its own |
//! | [`hook`] | step hooks of test builds |
//!
//! What it trusts: PID 1, the kernel, root-owned files. What it never does: parse an archive,
//! speak HTTP, follow a link that a task or the driver could have made, or put a text of the
//! driver that no type has checked into a unit property, a path or an option.

#[cfg(feature = "ctl")]
pub mod ctl;
pub mod daemon;
pub mod hook;
pub mod policy;
pub mod sys;
pub mod task;
