//! Whether a machine runs by KVM or is emulated.
//!
//! For [`super::supervisor`]. Whether KVM works shows only when a kernel boots: there are machines
//! where each of its calls succeeds and a guest's kernel stops within its first second. So the
//! first machine after a boot of the outer one is tried with KVM, and the answer is kept.

use crate::cache;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// With KVM the agent answers within a few seconds.
pub const TRIAL: Duration = Duration::from_secs(20);
/// Emulated, a boot takes 12 to 20 s on idle cores, and three times as long beside other work.
pub const EMULATED: Duration = Duration::from_secs(240);

/// How the machine's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation; all CPUs in one thread, or each in its own.
    Emulation {
        /// Whether each CPU has a thread. With qemu 7.2, the guest's kernel panicked in 2 of 20 boots.
        threads: bool,
    },
}

impl fmt::Display for Accel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulation { threads: true } => "emulated, a thread for each CPU",
            Self::Emulation { threads: false } => "emulated, one thread for all CPUs",
        })
    }
}

impl Accel {
    /// qemu's arguments.
    #[must_use]
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // qemu64 is cheaper to translate than max.
            Self::Emulation { threads: false } => ["-accel", "tcg,thread=single", "-cpu", "qemu64"],
            Self::Emulation { threads: true } => ["-accel", "tcg,thread=multi", "-cpu", "qemu64"],
        }
    }

    /// What emulation this qemu is used with.
    #[must_use]
    pub fn emulation(qemu: u32) -> Self {
        Self::Emulation { threads: qemu >= 10 }
    }

    /// How many times longer than on the outer machine things may take inside.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Emulation { .. } => 5,
        }
    }

    /// How long the agent may take to answer.
    #[must_use]
    pub fn boot_limit(self) -> Duration {
        match self {
            Self::Kvm => TRIAL,
            Self::Emulation { .. } => EMULATED,
        }
    }
}

/// The answer belongs to one boot of the outer machine: its kernel or hypervisor may be others
/// later.
fn file() -> Result<PathBuf> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(cache::root()?.join(format!("kvm-{}", boot.trim())))
}

/// Whether KVM is known to work (or not to), and from what; `None` before the first try.
///
/// # Errors
/// When the cache directory cannot be used.
pub fn known() -> Result<(Option<bool>, String)> {
    if !Path::new("/dev/kvm").exists() {
        return Ok((Some(false), "no /dev/kvm".to_owned()));
    }
    let text = std::fs::read_to_string(file()?).unwrap_or_default();
    let known = match text.split_once(": ") {
        Some(("KVM works", _)) => Some(true),
        Some(("KVM does not work", _)) => Some(false),
        _ => None,
    };
    Ok((known, text))
}

/// Keeps the answer; returns it in words.
///
/// # Errors
/// When it cannot be written.
pub fn keep(works: bool, why: &str) -> Result<String> {
    let why: String = why.chars().take(160).collect();
    let text = format!("KVM {}: {why}", if works { "works" } else { "does not work" });
    std::fs::write(file()?, &text)?;
    Ok(text)
}

/// Asks qemu whether the machine has stopped for good, as after an instruction that KVM cannot
/// emulate; qemu itself goes on.
#[must_use]
pub fn has_stopped(dir: &Path) -> bool {
    let ask = || -> Result<Value> {
        let stream = UnixStream::connect(dir.join("qmp.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        for command in ["qmp_capabilities", "query-status"] {
            writeln!(&stream, "{}", json!({ "execute": command }))?;
        }
        // The greeting, the first answer, and events between.
        for line in lines.by_ref().take(20) {
            let value: Value = serde_json::from_str(&line?)?;
            if let Some(status) = value.pointer("/return/status") {
                return Ok(status.clone());
            }
        }
        Ok(Value::Null)
    };
    ask().is_ok_and(|status| status == "internal-error" || status == "paused")
}
