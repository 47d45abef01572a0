//! A virtual machine as test host: for what needs a whole kernel.
//!
//! The container host shares the outer machine's kernel, which may offer no memory, CPU, cpuset or
//! pids controller, and it cannot reboot. This one boots Debian's own cloud kernel in qemu with the
//! same root file system. Tests run inside ([`inside`]), where [`crate::Rig`] is the machine itself;
//! [`Machine`] is for those that watch from outside, as reboots. It trusts qemu and Debian's signed
//! archive. The machine has no network but its own.

pub mod accel;
pub mod channel;
pub mod frames;
pub mod guest;
pub mod image;
mod inside;
mod machine;
pub mod qemu;
pub mod supervisor;

pub use inside::inside;
pub use machine::{Config, Machine};
