//! The service: one thread, one loop, one table of tasks.
//!
//! Start-up order: take the passed descriptors, read the policy, rebuild the table from PID 1 and
//! the descriptor store, and only then answer. It keeps no file of its own: whoever kills it, its
//! next process knows what the last one knew.
//!
//! Trusts PID 1 and the policy file. Treats every byte from the driver as hostile.

mod audit;
mod bus;
mod confinement;
mod context;
mod journal;
mod launch;
mod leader;
mod machined;
mod messages;
mod notify;
mod orphans;
mod pace;
mod passed;
mod process;
mod range;
mod ready;
mod record;
mod recover;
mod remove;
mod requests;
mod resume;
mod serve;
mod settle;
mod start;
mod status;
mod streams;
mod table;
mod unit;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::policy;
use context::Context;

/// Name of the driver's socket (FileDescriptorName= of the socket unit).
const DRIVER: &str = "driver";
/// The policy file.
const POLICY: &str = "/etc/nomad-nspawn/policy.toml";

/// Most threads that may wait for file systems at once; the unit's `TasksMax=` is larger.
const THREADS: usize = 16;

/// The word of `ExecReload=`: judge the file before the daemon is signalled, because `systemctl
/// reload` fails with a command of the unit, and never with a process that got a signal.
const CHECK: &str = "check-policy";

/// Runs the daemon until systemd ends it; with the word `check-policy`, only reads the policy file.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let lines = match journal::Lines::new(std::io::stdout()) {
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
        [word] if word == CHECK => check_policy(),
        _ => {
            tracing::error!("takes no argument but {CHECK}");
            ExitCode::from(64)
        }
    };
    lines.finish();
    code
}

fn run_loop(lines: &journal::Lines) -> ExitCode {
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

async fn run(lines: journal::Lines) -> Result<(), String> {
    let mut passed = passed::take()?;
    let none = "no socket passed: start nomad-nspawn-helper.socket, which starts this service";
    let listener = passed.remove(DRIVER).ok_or(none)?;
    self_test()?;
    let policy = match policy::find(Path::new(POLICY))? {
        Some(policy) => policy,
        None => {
            tracing::warn!("{POLICY} is missing: the strict defaults are in force");
            policy::parse("")?
        }
    };
    let context = Rc::new(Context::new(policy));
    recover::run(&context, passed).await?;
    let driver = serve::Door::new(listener)?;
    tokio::task::spawn_local(reload_on_hangup(context.clone()));
    notify::ready();
    tokio::task::spawn_local(notify::watchdog());
    tokio::task::spawn_local(notify::flush());
    tokio::task::spawn_local(audit::summarize(lines));
    tokio::task::spawn_local(orphans::sweep(context.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    tokio::select! {
        result = driver.serve(context) => result,
        _ = terminate.recv() => Ok(()),
    }
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

/// The policy file of a running helper. One that is gone is an accident: its `deny` and `limits` must
/// not go with it.
fn read_again() -> Result<policy::Policy, String> {
    policy::find(Path::new(POLICY))?
        .ok_or_else(|| format!("{POLICY} is gone; for the strict defaults put an empty file there"))
}

fn not_read(error: &str) {
    tracing::error!(%error, "policy not read: the old one stays in force");
}

/// Whether the daemon would take the policy file.
fn check_policy() -> ExitCode {
    match read_again() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            not_read(&error);
            ExitCode::FAILURE
        }
    }
}

/// Reads the policy again on SIGHUP; a bad file leaves the old policy in force.
async fn reload_on_hangup(context: Rc<Context>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match read_again() {
            Ok(policy) => {
                *context.policy.borrow_mut() = Rc::new(policy);
                tracing::info!("policy read again");
            }
            Err(error) => not_read(&error),
        }
    }
}

/// Unix time in milliseconds.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or(0)
}
