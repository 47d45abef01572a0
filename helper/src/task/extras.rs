//! What the steps of a start collect for the later ones: mounts, arguments of systemd-nspawn,
//! variables of its environment, remarks for people.
//!
//! Each step notes what it has prepared itself, so that an option and its object are made in one
//! place.

use std::path::{Path, PathBuf};

use proto::path::Absolute;

/// What has been collected.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// What is to be mounted inside.
    pub(super) mounts: Vec<Mount>,
    /// Options of systemd-nspawn.
    pub(super) arguments: Vec<String>,
    /// Further `NAME=value` of systemd-nspawn's own environment: constants only.
    pub(super) environment: Vec<String>,
    /// Words before those of the job: arguments of init.
    pub(super) words: Vec<String>,
    /// Remarks for the journal and the task's events.
    pub(super) notes: Vec<String>,
}

/// A kind of mount point, and of what is mounted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MountPoint {
    Folder,
    File,
}

/// Something of the stage that is to be seen inside, as it is there: its own mount says whether it
/// can be written to.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) stage: PathBuf,
    pub(super) target: Absolute,
    pub(super) kind: MountPoint,
}

impl Extras {
    /// Notes a mount.
    pub(super) fn mount(&mut self, stage: PathBuf, target: &Absolute, kind: MountPoint) {
        self.mounts.push(Mount { stage, target: target.clone(), kind });
    }

    /// Has systemd-nspawn mount something of the stage, with all that is mounted below it, where no
    /// link and no other task can lead it elsewhere.
    pub(super) fn bind(&mut self, stage: &Path, target: &Absolute) {
        let (stage, target) = (stage.display().to_string(), target.to_string());
        self.arguments.push(format!("--bind={}:{}:rbind", escape(&stage), escape(&target)));
    }
}

/// Writes a path so that systemd-nspawn reads it as one (extract_first_word() of systemd).
fn escape(path: &str) -> String {
    path.replace('\\', r"\\").replace(':', r"\:")
}
