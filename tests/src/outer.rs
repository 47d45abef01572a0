//! Commands on the outer machine: run, run long with progress, install what is missing.
//!
//! For the parts that build the rig. It trusts the outer machine's tools and never runs one without
//! telling where its output went when it fails.

use crate::{cache, wait};
use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A step that takes no longer is not spoken of.
const QUIET: Duration = Duration::from_secs(1);
/// How often a long step says that it is still running.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One line of progress for the person who waits.
pub fn say(text: &str) {
    eprintln!("rig: {text}");
}

/// One line for whoever reads a test run: the harness keeps what the macros print to itself.
pub fn tell(text: &str) {
    drop(std::io::stderr().write_all(format!("{text}\n").as_bytes()));
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or its status is not 0; the message holds its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let line = show(command);
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !out.status.success() {
        bail!("`{line}`: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a long command, its output in a log file of the cache directory, a line of progress each
/// quarter of a minute.
///
/// # Errors
/// When it cannot be started or fails; the message holds the end of the log.
pub fn run_long(what: &str, usual: &str, command: &mut Command) -> Result<()> {
    let name: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let log = cache::root()?.join("logs").join(format!("{name}.{}.log", std::process::id()));
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start `{}`", show(command)))?;
    let mut next = QUIET;
    let status = wait::until(what, Duration::from_secs(3600), || {
        if start.elapsed() >= next {
            if next == QUIET {
                say(&format!("{what} (usually {usual}; log: {})", log.display()));
                next = HEARTBEAT;
            } else {
                next += HEARTBEAT;
                say(&format!("{what}: {} s so far: {}", start.elapsed().as_secs(), tail(&log, 1)));
            }
        }
        Ok(child.try_wait()?)
    })?;
    if !status.success() {
        bail!("{what}: `{}`: {status}\n{}", show(command), tail(&log, 20));
    }
    if next != QUIET {
        say(&format!("{what}: done in {:.1} s", start.elapsed().as_secs_f64()));
    }
    cache::remove(&log)
}

/// The last lines of a text file, empty if it cannot be read.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

fn show(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Full path of a command, if the outer machine has it.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Commands the rig needs on the outer machine, with the Debian package of each.
const NEEDED: [(&str, &str); 6] = [
    ("systemd-nspawn", "systemd-container"),
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("chroot", "coreutils"),
];

/// Installs the packages of the commands the outer machine lacks; says what it installs.
///
/// # Errors
/// When not root, or apt fails.
pub fn ensure_tools() -> Result<()> {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut done = ONCE.lock().map_err(|_| anyhow::anyhow!("an earlier installation panicked"))?;
    if *done {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the test host boots a machine: run as root");
    }
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(cmd, _)| find(cmd).is_none()).map(|(_, pkg)| *pkg).collect();
    missing.dedup();
    install(&missing)?;
    *done = true;
    Ok(())
}

/// Installs Debian packages on the outer machine.
///
/// # Errors
/// When apt fails.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let _guard = cache::lock("apt")?;
    say(&format!("installing Debian packages on this machine: {}", packages.join(" ")));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        command
    };
    run_long("apt-get update", "10 s", &mut apt(&["update"]))?;
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    run_long("apt-get install", "30 s", &mut apt(&args))
}
