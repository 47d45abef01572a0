//! What crosses the sockets of the nspawn task driver.
//!
//! ```text
//! driver ──Request──▶ helper        (helper.sock, SOCK_SEQPACKET, one message a packet)
//!        ◀──Reply────
//! helper ──Part, Go──▶ launcher     (socketpair on the launcher's standard input)
//!        ◀──Report────
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`limits`] | every numeric bound, in one place |
//! | [`capability`] | sets of Linux capabilities |
//! | [`name`] | validated names: what is not valid cannot be decoded |
//! | [`path`] | paths as lists of components |
//! | [`target`] | where a mount may be inside: the one rule for every mount point |
//! | [`secret`] | job values that may not be printed |
//! | [`task_spec`] | what the driver asks for: one task |
//! | [`systemd`] | versions of systemd with known holes |
//! | [`wire`] | requests and replies of the helper socket |
//! | [`cpu_set`] | sets of CPUs, from a text and to PID 1 |
//! | [`exec`] | commands in a task that runs |
//! | [`plan`] | what the helper sends to the launcher, and what the launcher reports |
//! | [`link`] | the link of a task with a network of its own |
//! | [`step`] | the names of all steps of a start or a removal |
//! | [`unit_id`] | the name that a task's unit and directories share |
//! | [`codec`] | bounded encoding and decoding, exact length |
//! | [`parts`] | larger values in pieces |
//! | [`error`] | refusals: which step, which object, which rule |
//!
//! The crate trusts no byte it decodes and performs no I/O.
#![forbid(unsafe_code)]

pub mod capability;
pub mod codec;
pub mod cpu_set;
pub mod error;
pub mod exec;
pub mod layer;
pub mod limits;
pub mod link;
pub mod name;
pub mod parts;
pub mod path;
pub mod plan;
pub mod secret;
pub mod step;
pub mod systemd;
pub mod target;
pub mod task_spec;
pub mod unit_id;
pub mod wire;
