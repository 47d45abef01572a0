//! An orderly reboot and a loss of power, with tasks on the machine.
//!
//! One machine and its disk for all of it. It takes ten minutes where the machine is emulated, so it is not
//! part of `cargo test --workspace`, which compiles it only: `cargo test -p nspawn-tests --test vm_tasks`
//! runs it, before each release.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod tasks;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nspawn_tests::vm::{Config, Machine};
use nspawn_tests::wait;
use std::path::PathBuf;
use std::time::Duration;

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
    let node = tasks::Node::prepare(&machine);
    node.run_job();
    node.assert_started(1);
    node.reboot();
    // None was started again while the host went down, and none without the agent.
    node.assert_nothing_stale(1);
    node.start_agent();
    node.assert_started(2);

    // For the machine, a loss of power.
    kill(Pid::from_raw(machine.ready().qemu), Signal::SIGKILL).unwrap();
    let is_gone = || Ok(!machine.ready().dir.exists());
    wait::true_within("the machine's directory to be gone", Duration::from_secs(60), is_gone)
        .unwrap();
    let machine = Machine::boot(&config).unwrap();
    let node = node.moved_to(&machine);
    node.assert_nothing_stale(2);
    node.start_agent();
    node.assert_started(3);
    machine.down().unwrap();
}
