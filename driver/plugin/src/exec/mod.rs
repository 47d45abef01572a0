//! Commands that are executed in running tasks: `nomad alloc exec`, script checks, change scripts,
//! and `ready.mode = "exec"`.
//!
//! | module | idea |
//! |---|---|
//! | [`command`] | what is executed: words, and the task's own environment, directory and user |
//! | [`session`] | one command from its request to its exit code |
//! | [`report`] | what the worker on the root side reports |
//! | [`input`] | what the user types, and the size of the terminal |
//! | [`output`] | what the command writes: when there is no more of it |
//! | [`stream`] | one descriptor of a pipe or terminal |
//! | [`script`] | a command without input, with a time limit and the end of its output |
//!
//! The helper starts the command and hands over its streams. A session is hung up by closing its
//! socket: so whatever ends this process, or the agent's interest, ends the command.

mod command;
mod input;
mod output;
mod report;
mod script;
mod session;
mod stream;

pub(crate) use command::Context;
pub(crate) use input::{Broken, Input};
pub(crate) use output::{Output, Which};
pub(crate) use script::{Limits, last_line};
