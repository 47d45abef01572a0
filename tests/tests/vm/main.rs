//! The virtual machine from outside: its channel, an orderly reboot and a loss of power, with tasks
//! on it.
//!
//! One machine and its disk for all of it, because a boot is what costs time. What runs inside is
//! in `limits`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod channel;
mod tasks;

use nspawn_tests::vm::{Config, Machine};
use std::path::PathBuf;

/// The layer of the root disk, for one machine after the other; removed at the end.
struct Disk(PathBuf);

impl Disk {
    fn new() -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("vm-root.qcow2");
        nspawn_tests::cache::remove(&path).unwrap();
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        nspawn_tests::cache::remove(&self.0).ok();
    }
}

#[test]
fn tasks_end_in_order_at_a_reboot_and_start_again_after_a_loss_of_power() {
    let disk = Disk::new();
    let config =
        Config { reboots: true, layer: Some(disk.0.clone()), ..Config::from_env().unwrap() };
    let machine = Machine::boot(&config).unwrap();
    channel::commands(&machine);
    let node = tasks::Node::prepare(&machine);
    node.run_job();
    node.assert_started(1);
    node.reboot();
    // None was started again while the host went down, and none without the agent.
    node.assert_nothing_stale(1);
    node.start_agent();
    node.assert_started(2);

    channel::its_death_is_an_error_with_its_console(&machine);
    let machine = Machine::boot(&config).unwrap();
    let node = node.moved_to(&machine);
    node.assert_nothing_stale(2);
    node.start_agent();
    node.assert_started(3);
    machine.down().unwrap();
}
