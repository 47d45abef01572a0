//! The service: one thread, one loop, one table of tasks.
//!
//! Start-up order: take the passed descriptors, read the policy, rebuild the table from PID 1 and
//! the descriptor store, and only then answer. It keeps no file of its own: whoever kills it, its
//! next process finds what the last one had.
//!
//! Trusts PID 1 and the policy file. Treats every byte from the driver as hostile.
#![forbid(unsafe_code)]

mod context;
mod end;
mod exec;
mod files;
mod network;
mod policy_file;
mod process;
mod restart;
mod socket;
mod start;
mod systemd;
mod tasks;

use std::process::ExitCode;
use std::rc::Rc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::context::Context;

/// Name of the driver's socket (FileDescriptorName= of the socket unit).
const DRIVER: &str = "driver";

/// Most threads that may wait for file systems at once; the unit's `TasksMax=` is larger.
const THREADS: usize = 16;

/// The word of `ExecReload=`: judge the file before the daemon is signalled, because `systemctl
/// reload` fails with a command of the unit, and never with a process that got a signal.
const CHECK: &str = "check-policy";

/// Runs the daemon until systemd ends it; with the word `check-policy`, only reads the policy file.
fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let lines = match socket::journal::Lines::new(std::io::stdout()) {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("no thread for the journal: {error}");
            return ExitCode::FAILURE;
        }
    };
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(move || writer.clone())
        .init();
    let code = match words.as_slice() {
        [] => run_loop(&lines),
        [word] if word == CHECK => policy_file::check(),
        _ => {
            tracing::error!("takes no argument but {CHECK}");
            ExitCode::from(64)
        }
    };
    lines.finish();
    code
}

fn run_loop(lines: &socket::journal::Lines) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build();
    let result = match runtime {
        Ok(runtime) => LocalSet::new().block_on(&runtime, run(lines.clone())),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(lines: socket::journal::Lines) -> Result<(), String> {
    let mut passed = systemd::fd_store::take()?;
    let none = "no socket passed: start nomad-nspawn-helper.socket, which starts this service";
    let listener = passed.remove(DRIVER).ok_or(none)?;
    self_test()?;
    let policy = policy_file::at_start()?;
    let context = Rc::new(Context::new(policy));
    restart::recover::run(&context, passed).await?;
    let driver = socket::listener::Door::new(listener)?;
    tokio::task::spawn_local(policy_file::reload_on_hangup(context.clone()));
    systemd::notify::ready();
    tokio::task::spawn_local(systemd::notify::watchdog());
    tokio::task::spawn_local(systemd::notify::flush());
    tokio::task::spawn_local(socket::audit::summarize(lines));
    tokio::task::spawn_local(end::orphans::sweep(context.clone()));
    tokio::task::spawn_local(systemd::share::follow(context.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let result = tokio::select! {
        result = driver.serve(context.clone()) => result,
        _ = terminate.recv() => Ok(()),
    };
    network::networks::release(&context);
    result
}

/// Refuses to run where the one call that keeps links out does not work.
fn self_test() -> Result<(), String> {
    let how = nix::fcntl::OpenHow::new()
        .flags(nix::fcntl::OFlag::O_PATH)
        .resolve(nix::fcntl::ResolveFlag::RESOLVE_BENEATH);
    let root = std::fs::File::open("/").map_err(|e| format!("/: {e}"))?;
    nix::fcntl::openat2(&root, ".", how).map(drop).map_err(|e| {
        format!("openat2 does not work here ({e}): Linux 5.6 is needed, and RestrictSUIDSGID= must not be set")
    })
}

/// Unix time in milliseconds.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or(0)
}
