//! What the steps of a start collect for the last one: arguments of systemd-nspawn, variables of its
//! environment, remarks for people.
//!
//! Each step writes the arguments for what it has prepared itself, so that an option and its object
//! are made in one place.

use std::fmt::Display;
use std::path::Path;

/// What has been collected.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Options of systemd-nspawn.
    pub(super) arguments: Vec<String>,
    /// Further `NAME=value` of systemd-nspawn's own environment: constants only.
    pub(super) environment: Vec<String>,
    /// Words before those of the job: arguments of init.
    pub(super) words: Vec<String>,
    /// Remarks for the journal and the task's events.
    pub(super) notes: Vec<String>,
}

impl Extras {
    /// Mounts something of the stage inside, with the mounts below it when `recursive`.
    pub(super) fn bind(
        &mut self,
        source: &Path,
        target: impl Display,
        read_only: bool,
        recursive: bool,
    ) {
        let option = if read_only { "--bind-ro" } else { "--bind" };
        let depth = if recursive { "rbind" } else { "norbind" };
        let (source, target) = (source.display().to_string(), escape(&target.to_string()));
        self.arguments.push(format!("{option}={}:{target}:{depth}", escape(&source)));
    }
}

/// Writes a path so that systemd-nspawn reads it as one (extract_first_word() of systemd).
pub(super) fn escape(path: &str) -> String {
    path.replace('\\', r"\\").replace(':', r"\:")
}
