//! What the kernel enforces for a task: memory, CPU, processes.
//!
//! All of it runs inside one virtual machine, because the test host may have no controllers: each
//! test hands its body to [`nspawn_tests::vm::inside`], also when it is run alone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod cpu;
mod host;
mod memory;
mod oom;
mod processes;
mod reload;
mod seen;
mod statistics;
