//! Step hooks of test builds: end a process at a named step. A normal build has none of it.
//!
//! A test writes a process id (or `self`) to `/run/nomad-nspawn/hook/<step>.<before|after>`; the
//! process that meets the step takes the file away and sends SIGKILL to that process, or the signal
//! whose number follows it. A third number is how often the step is met before that.

use proto::step::Step;

/// Where a process that meets a step must be able to take files away; test builds only.
pub const DIRECTORY: Option<&str> =
    if cfg!(feature = "step-hook") { Some("/run/nomad-nspawn/hook") } else { None };

/// Runs a step between its hooks.
pub fn run<T>(step: Step, action: impl FnOnce() -> T) -> T {
    reached(step, "before");
    let result = action();
    reached(step, "after");
    result
}

/// A step that waits.
pub async fn during<T>(step: Step, action: impl Future<Output = T>) -> T {
    reached(step, "before");
    let result = action.await;
    reached(step, "after");
    result
}

#[cfg(not(feature = "step-hook"))]
#[inline]
fn reached(_: Step, _: &str) {}

#[cfg(feature = "step-hook")]
fn reached(step: Step, moment: &str) {
    let Some(directory) = DIRECTORY else { return };
    let file = format!("{directory}/{}.{moment}", step.name());
    let Ok(target) = std::fs::read_to_string(&file) else {
        return;
    };
    if std::fs::remove_file(&file).is_err() {
        return;
    }
    let mut words = target.split_whitespace();
    let (pid, signal) = (words.next().unwrap_or("0"), words.next().unwrap_or("9"));
    let left: u32 = words.next().and_then(|left| left.parse().ok()).unwrap_or(0);
    if left > 0 {
        if let Err(error) = std::fs::write(&file, format!("{pid} {signal} {}", left - 1)) {
            eprintln!("step hook: {file}: {error}");
        }
        return;
    }
    let pid = match pid {
        "self" => std::process::id(),
        pid => pid.parse().unwrap_or(0),
    };
    if let (Ok(process), Ok(signal)) = (crate::syscalls::open_process(pid), signal.parse())
        && let Err(error) =
            crate::syscalls::signal_process(std::os::fd::AsFd::as_fd(&process), signal)
    {
        eprintln!("step hook: process {pid}: {error}");
    }
}
