//! The test host ("rig"): a real systemd host with a real Nomad agent, booted on demand.
//!
//! It is for the end-to-end tests, the benchmarks and for people who want to look around
//! (`cargo rig up`, `cargo demo`). It trusts the machine it runs on, root's cache directory and the
//! package registries. It never changes the outer machine beyond installing the Debian packages it
//! says it installs, one veth link and one cgroup directory per instance, and it removes both.

pub mod api;
pub mod bench;
pub mod cache;
pub mod disks;
pub mod filters;
pub mod fuzz;
pub mod host;
pub mod hostile;
pub mod images;
pub mod job;
pub mod lan;
pub mod msgpack;
pub mod nomad;
pub mod oracle;
pub mod outer;
pub mod package;
pub mod picture;
pub mod plugin;
pub mod processes;
pub mod product;
pub mod race;
pub mod rootfs;
pub mod shell;
pub mod soak;
pub mod stand;
pub mod task;
pub mod vm;
pub mod wait;
pub mod world;

pub use host::{Config, Output, Rig};
pub use job::{Alloc, Job};
pub use rootfs::Suite;
pub use world::World;
