//! What a user sees of a task's life: exits, logs, stops, restarts, images and networks.
//!
//! Real jobs through a real agent, on one test host for the whole file. Tests run in parallel on it;
//! one that disturbs the others (agent, policy) has it alone. The host must be as before when all of
//! them are through.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod beside;
mod data;
mod descriptors;
mod exits;
mod gone;
mod images;
mod logs;
mod network;
mod resources;
mod restarts;
mod stop;
mod work;
mod zz_world;
