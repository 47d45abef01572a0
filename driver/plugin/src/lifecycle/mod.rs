//! The lifecycle of tasks: start, watch, stop, destroy, recover.
//!
//! | module | idea |
//! |---|---|
//! | [`driver`] | what the services share |
//! | [`start`] | from Nomad's request to a running container |
//! | [`progress`] | what a task's events say of its start |
//! | [`readiness`] | waiting for a command that says that a task is ready |
//! | [`recover`] | taking over tasks that another process started |
//! | [`end_detection`] | finding out where a task stands; the one place that decides it has ended |
//! | [`stop`] | signal, stop, destroy |
//! | [`out_of_memory`] | what is told when the kernel kills processes of a task |
//! | [`older`] | containers that the older driver has left running |
//! | [`newest_start`] | which of several starts of a task counts |
//! | [`pending_removals`] | removals to be retried |
//! | [`task`] | the table of tasks |
//! | [`handle`] | what Nomad keeps for the driver |
//!
//! The driver owns no container: PID 1 does. Whatever this process forgets, it learns again from
//! the handle, the helper and the bus. It has no side effects before Nomad configures it for
//! real, because the agent starts plugins several times just to ask who they are.

mod driver;
pub(crate) mod end_detection;
pub(crate) mod handle;
mod newest_start;
mod older;
mod out_of_memory;
mod pending_removals;
mod progress;
mod readiness;
pub(crate) mod recover;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod task;

pub(crate) use driver::Driver;
