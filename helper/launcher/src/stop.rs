//! Passes a task's stop signal to the command below systemd-nspawn's stub init.
//!
//! Runs in the unit (ExecStop=), when the host shuts down or an operator stops the unit: what PID 1
//! then sends to systemd-nspawn reaches the first process of the container alone, and the stub init
//! passes nothing on. Trusts what the kernel shows of systemd-nspawn's children. Never waits: PID 1
//! does. A removal comes after the payload's end, and nothing is done.

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use kernel::processes::{children, is_namespace_init};
use kernel::syscalls;

/// `nomad-nspawn-task stop SIGNAL`.
pub(super) fn main(signal: &str) -> ExitCode {
    let passed = signal.parse().map_err(io::Error::other).and_then(pass);
    if let Err(error) = &passed {
        eprintln!("stop signal {signal}: {error}; the task is killed when its time is over");
    }
    ExitCode::from(u8::from(passed.is_err()))
}

fn pass(signal: u8) -> io::Result<()> {
    // Of PID 1 (systemd.exec(5)), while systemd-nspawn runs.
    let main = std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok());
    let child = |of: u32| children(of).into_iter().find(|&pid| is_namespace_init(pid));
    let Some(init) = main.and_then(child) else { return Ok(()) };
    let Some(&payload) = children(init).first() else { return Ok(()) };
    let process = match syscalls::open_process(payload) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        process => process?,
    };
    // The number may have been another's by then; a child that this is still cannot be.
    if children(init).contains(&payload) && main.and_then(child) == Some(init) {
        syscalls::signal_process(process.as_fd(), signal)?;
    }
    Ok(())
}
