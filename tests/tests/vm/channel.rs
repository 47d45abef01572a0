//! The channel of the machine: exit status, streams, input, limits, and what a death looks like.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nspawn_tests::vm::Machine;
use nspawn_tests::wait;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Exit status, streams, input and limit of a command.
pub(crate) fn commands(machine: &Machine) {
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

/// Kills qemu: for the machine, a loss of power.
pub(crate) fn its_death_is_an_error_with_its_console(machine: &Machine) {
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
