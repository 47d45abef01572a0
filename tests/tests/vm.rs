//! The virtual machine from outside: its channel, a reboot, its death.
//!
//! One machine for all of it, because a boot is what costs time. What runs inside is in `limits`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nspawn_tests::vm::{Config, Machine};
use nspawn_tests::wait;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_machine_passes_streams_on_reboots_and_dies() {
    let config = Config { product: None, reboots: true, ..Config::from_env().unwrap() };
    let machine = Machine::boot(&config).unwrap();
    commands(&machine);
    a_reboot_keeps_the_disk_and_nothing_else(&machine);
    its_death_is_an_error_with_its_console(&machine);
}

/// Exit status, streams, input and limit of a command.
fn commands(machine: &Machine) {
    let out = machine.exec(&["sh", "-c", "cat; echo out; echo err >&2; exit 7"], LIMIT).unwrap();
    assert_eq!(
        (out.code(), out.text().as_str(), out.stderr.as_slice()),
        (7, "out\n", &b"err\n"[..])
    );
    let out = machine.exec(&["sh", "-c", "kill -9 $$"], LIMIT).unwrap();
    assert_eq!(out.code(), 128 + 9);
    let many = machine.exec(&["head", "-c", "3000000", "/dev/zero"], LIMIT).unwrap();
    assert_eq!(many.stdout.len(), 3_000_000);
    let started = std::time::Instant::now();
    let late = machine.exec(&["sh", "-c", "sleep 1000 & wait"], Duration::from_millis(400));
    let late = format!("{:#}", late.unwrap_err());
    assert!(late.contains("timed out") && started.elapsed() < LIMIT, "{late}");
    assert!(machine.sh("pgrep -f '[s]leep 1000' || echo none").unwrap().ends_with("none"));
    let missing = machine.exec(&["/no/such"], LIMIT).unwrap_err();
    assert!(format!("{missing:#}").contains("cannot start /no/such"), "{missing:#}");
    // A daemon that keeps a stream does not hold its caller.
    machine.sh("sleep 900 & echo left").unwrap();
}

fn a_reboot_keeps_the_disk_and_nothing_else(machine: &Machine) {
    machine.sh("echo disk > /var/lib/rig-file; echo memory > /run/rig-file").unwrap();
    let took = machine.reboot_by("systemctl reboot").unwrap();
    println!("reboot: {} s", took.as_secs());
    let seen = machine.sh("cat /var/lib/rig-file; ls /run/rig-file 2> /dev/null || echo gone");
    assert_eq!(seen.unwrap(), "disk\ngone");
}

fn its_death_is_an_error_with_its_console(machine: &Machine) {
    let qemu = Pid::from_raw(machine.ready().qemu);
    let error = std::thread::scope(|scope| {
        let waits = scope.spawn(|| machine.exec(&["sleep", "600"], LIMIT * 20).unwrap_err());
        std::thread::sleep(Duration::from_secs(2));
        kill(qemu, Signal::SIGKILL).unwrap();
        format!("{:#}", waits.join().unwrap())
    });
    for part in ["`sleep 600`", "console ends", "the machine has ended"] {
        assert!(error.contains(part), "{error}");
    }
    wait::true_within("the machine's directory to be gone", LIMIT, || {
        Ok(!machine.ready().dir.exists())
    })
    .unwrap();
}
