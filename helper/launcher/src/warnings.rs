//! Remarks on what systemd-nspawn will probably not find in the image: directory, init, command.
//!
//! It says so to the journal alone, and only some of it. A remark never stops a start, because only
//! the container itself can know: mounts and name services may still bring what is missing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, readlinkat};
use proto::path::Absolute;
use proto::plan::Plan;
use proto::task_spec::Payload;

use super::open::{self, Mounts};
use super::stage::OwnPath;

/// Directories of a command without a slash (DEFAULT_PATH of systemd).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where systemd-nspawn looks for an init.
const INITS: [&str; 3] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"];
/// Links that are followed for one path, as many as the kernel follows.
const LINKS: usize = 40;

/// What does not seem to be there.
pub(super) fn collect(plan: &Plan) -> Vec<String> {
    let Ok(root) = OwnPath::root().open_dir() else { return Vec::new() };
    let has = |path: &str| has(plan, &root, path);
    let mut hints = Vec::new();
    if let Some(directory) = &plan.process.directory
        && !has(&directory.to_string())
    {
        hints.push(format!("working directory {directory}: not in the image"));
    }
    let words = match &plan.payload {
        Payload::Command { words } | Payload::ProcessTwo { words } => words.first(),
        Payload::Boot { .. } => {
            if !INITS.iter().any(|init| has(init)) {
                let mend = "boot = false runs a command instead";
                hints.push(format!("boot: the image has no {}; {mend}", INITS.join(", ")));
            }
            None
        }
    };
    if let Some(command) = words {
        let command = command.reveal();
        let path = plan.environment.iter().find(|variable| variable.name.as_str() == "PATH");
        let path = path.map_or(PATH, |path| path.value.reveal());
        let found = if command.contains('/') {
            !command.starts_with('/') || has(command)
        } else {
            path.split(':').any(|directory| has(&format!("{directory}/{command}")))
        };
        if !found {
            // Not which: words of a command are secrets, and remarks are logged and shown.
            hints.push("command: its first word is not in the image".to_owned());
        }
    }
    hints
}

/// Whether something is there, or may come with a mount: also where links of the image lead.
fn has(plan: &Plan, root: &OwnedFd, path: &str) -> bool {
    // Such as a relative directory of the job's PATH.
    if Absolute::parse(path).is_err() {
        return true;
    }
    let (mut real, mut rest) = (PathBuf::from("/"), PathBuf::from(path));
    for _ in 0..LINKS {
        match walk(plan, root, &mut real, &rest) {
            Walk::There => return true,
            Walk::Missing => return false,
            Walk::Link(next) => rest = next,
        }
    }
    true
}

/// How a walk without links ends.
enum Walk {
    /// It is there, or nobody can see that from here.
    There,
    Missing,
    /// At a link: what is left to walk from where it lies.
    Link(PathBuf),
}

fn walk(plan: &Plan, root: &OwnedFd, real: &mut PathBuf, rest: &Path) -> Walk {
    let mut parts = rest.components();
    while let Some(part) = parts.next() {
        match part {
            Component::RootDir => *real = PathBuf::from("/"),
            Component::ParentDir => drop(real.pop()),
            Component::Prefix(_) | Component::CurDir => {}
            Component::Normal(name) => {
                real.push(name);
                let absolute = real.to_str().map(Absolute::parse);
                let Some(Ok(absolute)) = absolute else { return Walk::There };
                if is_mounted_over(plan, &absolute) {
                    return Walk::There;
                }
                let below = real.strip_prefix("/").unwrap_or(real);
                let found = open::beneath(root.as_fd(), below, OFlag::O_PATH, Mounts::Stay);
                let found = match found {
                    Ok(found) => found,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Walk::Missing,
                    Err(_) => return Walk::There,
                };
                if open::metadata(&found).is_ok_and(|meta| meta.is_symlink()) {
                    real.pop();
                    let Ok(target) = readlinkat(&found, "") else { return Walk::There };
                    return Walk::Link(Path::new(&target).join(parts.as_path()));
                }
            }
        }
    }
    Walk::There
}

/// Whether systemd-nspawn or the job mounts something there, or above it.
pub(super) fn is_mounted_over(plan: &Plan, path: &Absolute) -> bool {
    let files = &plan.files;
    let own = ["/alloc", "/local", "/secrets", "/dev", "/proc", "/run", "/sys", "/tmp"];
    let mut targets = (files.binds.iter().map(|bind| &bind.target))
        .chain(files.tmpfs.iter().map(|tmpfs| &tmpfs.target))
        .chain(files.overlays.iter().map(|overlay| &overlay.target));
    own.iter().any(|own| path.to_path().starts_with(own))
        || targets.any(|target| path.below(target.path()).is_some())
}
