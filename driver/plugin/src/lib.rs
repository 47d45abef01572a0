//! Nomad task driver for systemd-nspawn containers: the unprivileged half.
//!
//! ```text
//! Nomad agent ──gRPC──▶ this process ──requests──▶ helper (root) ──▶ PID 1 ──▶ container
//!                             ▲                                        │
//!                             └──────────── ends of units ─────────────┘
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `startup` | handshake, privileges, sandbox, socket, log lines |
//! | `grpc` | the services that the agent calls |
//! | `config` | tables of keys and their rules |
//! | `translate` | from Nomad's task to the helper's specification |
//! | [`explain`] | the same for people, without a task: what would a job ask for |
//! | `lifecycle` | start, recover, check, stop, destroy |
//! | `exec` | commands in running tasks |
//! | `helper_client` | the client of the root helper |
//! | `node` | units, statistics, fingerprint |
//! | `metrics` | figures for Prometheus, and their endpoint |
//! | [`exposition`] | their text format |
//!
//! Whatever this process was started as, it has no rights when the first byte of a job arrives.
//! It keeps no file, and no container depends on its life.

mod config;
mod error;
mod events;
mod exec;
pub mod explain;
pub mod exposition;
mod grpc;
mod helper_client;
mod lifecycle;
mod log;
mod metrics;
mod msgpack;
mod node;
mod startup;
mod text;
mod translate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use metrics::socket::Sockets;
use startup::privilege::Standing;
use startup::sandbox::Sandbox;
use startup::socket::SocketDirectory;
use startup::{handshake, privilege, sys};

/// Threads of the runtime: requests are few and small, memory is what counts.
const WORKERS: usize = 2;
/// Most threads for looking at the file system: each file system that hangs keeps some.
const BLOCKING: usize = 64;

/// The plugin process, from its handshake to its end.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Read by a person, or logged by the agent.
            log::write(&format!("[ERROR] {reason}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Everything up to the runtime happens on the one thread there is: capabilities, no_new_privs and
/// the sandbox belong to threads.
fn run() -> Result<(), String> {
    let request = handshake::read(|name| std::env::var_os(name))?;
    let directories = image_directories()?;
    sys::clear_environment();
    sys::close_inherited_descriptors();
    sys::ignore_interrupt();
    sys::tune_allocator();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let standing = privilege::find_standing().map_err(|e| e.to_string())?;
    let directory = SocketDirectory::make(&request, &standing)?;
    let sockets = Sockets::make();
    privilege::drop_to(&standing).map_err(|e| e.to_string())?;
    let sandbox = Sandbox::enter(directory.path());
    log::install();
    if let Some(missing) = sandbox.missing() {
        tracing::warn!(missing, "the kernel confines this process less than it could");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .map_err(|e| format!("runtime: {e}"))?;
    let result = runtime.block_on(serve(&directory, standing, sandbox, directories, sockets));
    directory.remove();
    // Streams and background work are cut; no task of Nomad's depends on them.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Where relative images are looked for: the agent's working directory, the plugin's directory.
fn image_directories() -> Result<Vec<PathBuf>, String> {
    let plugin = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let plugin = plugin.parent().map(PathBuf::from);
    Ok([std::env::current_dir().ok(), plugin].into_iter().flatten().collect())
}

async fn serve(
    directory: &SocketDirectory,
    standing: Standing,
    sandbox: Sandbox,
    directories: Vec<PathBuf>,
    sockets: Sockets,
) -> Result<(), String> {
    let socket = directory.socket();
    let listener = directory.bind().map_err(|e| format!("socket {}: {e}", socket.display()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("SIGTERM: {e}"))?;
    handshake::announce(&socket).map_err(|e| format!("handshake: {e}"))?;
    tracing::debug!(version = env!("CARGO_PKG_VERSION"), uid = standing.uid(), "plugin started");
    let stop = Arc::new(Notify::new());
    let driver = lifecycle::Driver::new(standing, sandbox, directories, sockets);
    tokio::select! {
        ended = grpc::serve(listener, driver, stop) => ended.map_err(|e| format!("server: {e}")),
        _ = terminate.recv() => Ok(()),
    }
}
