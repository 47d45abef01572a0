//! The words of the `rig` command with `--vm`.
//!
//! For [`crate::cli`]. It keeps one detached machine per suite, known by a file in the cache
//! directory, and never ends a machine that a test owns.

use anyhow::{Context as _, Result, bail};
use nspawn_tests::vm::supervisor::Ready;
use nspawn_tests::vm::{Config, Machine};
use nspawn_tests::{Suite, cache, outer, product};
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

fn state_file(suite: Suite) -> Result<PathBuf> {
    Ok(cache::root()?.join(format!("up-vm-{}.json", suite.name())))
}

fn attach(suite: Suite) -> Result<Machine> {
    let text = std::fs::read_to_string(state_file(suite)?)
        .with_context(|| format!("no machine is up for {}: cargo rig up --vm", suite.name()))?;
    let ready: Ready = serde_json::from_str(&text)?;
    Machine::attach(ready).context("cargo rig up --vm")
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Boots a machine and makes it a host as `rig up` does, with the same flags; it stays.
pub(crate) fn up(suite: Suite, flags: &[String]) -> Result<u8> {
    let _guard = cache::lock(&format!("up-vm-{}", suite.name()))?;
    if attach(suite).is_ok() {
        outer::say("a virtual machine is up already");
        return Ok(0);
    }
    let mut config = Config { reboots: true, ..Config::new(suite) };
    if flags.iter().any(|flag| flag == "--no-product") {
        config.product = None;
    }
    if config.product.is_some() {
        config.programs.push(product::build_ctl()?);
    }
    let machine = Machine::boot(&config)?;
    let rig = Machine::program("rig");
    let mut words = vec![rig.as_str(), "up"];
    words.extend(flags.iter().map(String::as_str).filter(|flag| *flag != "--vm"));
    let out = machine.exec(&words, Duration::from_secs(120))?;
    if !out.success() {
        bail!("{}{}", out.text(), String::from_utf8_lossy(&out.stderr));
    }
    let (file, part) = (state_file(suite)?, state_file(suite)?.with_extension("new"));
    std::fs::write(&part, serde_json::to_string(machine.ready())?)?;
    std::fs::rename(part, file)?;
    machine.keep()?;
    println!("the virtual machine is up; next: cargo rig sh --vm");
    Ok(0)
}

/// Ends it at once.
pub(crate) fn down(suite: Suite) -> Result<u8> {
    let _guard = cache::lock(&format!("up-vm-{}", suite.name()))?;
    if let Ok(machine) = attach(suite) {
        machine.down()?;
        outer::say("the virtual machine is down");
    }
    cache::remove(&state_file(suite)?)?;
    Ok(0)
}

/// Runs a command in it with this process's streams.
pub(crate) fn exec(suite: Suite, words: &[&str]) -> Result<u8> {
    attach(suite)?.pass_through(words).map(code)
}

/// The local terminal in raw mode, until dropped.
struct Raw;

impl Raw {
    fn enter() -> Result<Self> {
        stty(&["raw", "-echo"])?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = stty(&["sane"]) {
            outer::say(&format!("{error:#}: reset"));
        }
    }
}

fn stty(words: &[&str]) -> Result<()> {
    let status = Command::new("stty").args(words).status().context("stty")?;
    if status.success() { Ok(()) } else { bail!("stty {}: {status}", words.join(" ")) }
}

/// A shell, on a terminal of the machine's own where this process has one.
pub(crate) fn shell(suite: Suite) -> Result<u8> {
    let machine = attach(suite)?;
    if !std::io::stdin().is_terminal() {
        return machine.pass_through(&["bash", "-l"]).map(code);
    }
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let inside = format!("TERM={term} exec bash -l");
    let _raw = Raw::enter()?;
    machine.pass_through(&["script", "-q", "-c", &inside, "/dev/null"]).map(code)
}
