//! What the steps of a start collect for the later ones: mounts, arguments of systemd-nspawn,
//! variables of its environment, remarks for people.
//!
//! Each step notes what it has prepared itself, so that an option and its object are made in one
//! place.

use std::fmt::Display;

use proto::name::InvalidName;
use proto::path::Absolute;
use proto::target::Target;

use super::stage::OwnPath;

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
    Directory,
    File,
}

/// Something of the stage that is to be seen inside, as it is there: its own mount says whether it
/// can be written to.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) stage: OwnPath,
    pub(super) target: MountTarget,
    pub(super) kind: MountPoint,
}

/// Where a mount is seen inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountTarget {
    /// One of the task's own directories: no job mounts there, because [`Target`] refuses it.
    Own(Absolute),
    /// What the job asks for, or a file of ours where a job could have a mount as well.
    Free(Target),
}

impl MountTarget {
    /// The path.
    pub(super) fn path(&self) -> &Absolute {
        match self {
            Self::Own(path) => path,
            Self::Free(target) => target.path(),
        }
    }

    /// The same mount at the place where the image leads it. Judged here, whoever has judged
    /// before: nothing else becomes an option of systemd-nspawn.
    pub(super) fn led_to(&self, real: Absolute) -> Result<Self, InvalidName> {
        match self {
            Self::Own(own) if *own == real => Ok(self.clone()),
            Self::Own(_) => {
                Err(InvalidName { kind: "mount point", rule: "it is the task's own directory" })
            }
            Self::Free(_) => Target::new(real).map(Self::Free),
        }
    }
}

impl Extras {
    /// Notes a mount.
    pub(super) fn mount(&mut self, stage: OwnPath, target: &Target, kind: MountPoint) {
        self.mounts.push(Mount { stage, target: MountTarget::Free(target.clone()), kind });
    }

    /// Notes one of the task's own directories, at `/name`.
    pub(super) fn mount_own(&mut self, stage: OwnPath, name: &str) -> Result<(), InvalidName> {
        let target = MountTarget::Own(Absolute::parse(&format!("/{name}"))?);
        self.mounts.push(Mount { stage, target, kind: MountPoint::Directory });
        Ok(())
    }

    /// Makes a directory below /run of a booted container. Version 252 makes those above a mount
    /// point host root's, and systemd inside could not boot.
    pub(super) fn runtime_directory(&mut self, path: &str) {
        let option = format!("--tmpfs={path}:nosuid,nodev,mode=0755");
        if !self.arguments.contains(&option) {
            self.arguments.push(option);
        }
    }

    /// Has systemd-nspawn mount something of the stage, with all that is mounted below it, where no
    /// link and no other task can lead it elsewhere.
    pub(super) fn bind(&mut self, stage: impl Display, target: &MountTarget) {
        let (stage, target) = (stage.to_string(), target.path().to_string());
        self.arguments.push(format!("--bind={}:{}:rbind", escape(&stage), escape(&target)));
    }
}

/// Writes a path so that systemd-nspawn reads it as one (extract_first_word() of systemd).
fn escape(path: &str) -> String {
    path.replace('\\', r"\\").replace(':', r"\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a place has got into the plan: where it leads is judged by itself.
    #[test]
    fn s1_only_the_tasks_own_directories_lie_where_no_target_may() {
        let path = |text: &str| Absolute::parse(text).unwrap();
        let free = MountTarget::Free(Target::parse("/old").unwrap());
        let own = MountTarget::Own(path("/alloc"));
        for refused in ["/run/host", "/run/host/x", "/", "/dev", "/proc/x", "/alloc"] {
            assert!(free.led_to(path(refused)).is_err(), "{refused}");
        }
        assert_eq!(free.led_to(path("/srv")).unwrap().path(), &path("/srv"));
        assert_eq!(own.led_to(path("/alloc")).unwrap(), own);
        for refused in ["/run/host", "/srv", "/local"] {
            assert!(own.led_to(path(refused)).is_err(), "{refused}");
        }
    }
}
