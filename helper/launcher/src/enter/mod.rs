//! Commands that are executed in tasks that run: the worker, a process for one session.
//!
//! `seal` makes the host's files read-only for it, `worker` waits for the work that the daemon
//! gives it, `session` follows the command from outside of the task. In between: `payload` is what
//! the payload's process is confined by, `filters` its system call filters, `leaf` the session's
//! cgroup. A copy of the process goes in: `inside` joins the namespaces and confines itself,
//! `streams` and `user` are found there, and `command` is the last step, execve(2).

mod command;
mod filters;
mod inside;
mod leaf;
mod payload;
pub(crate) mod seal;
mod session;
mod streams;
mod user;
pub(crate) mod worker;
