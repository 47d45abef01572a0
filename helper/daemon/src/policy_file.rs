//! The policy file: where it is, and when it is read.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use policy::Policy;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::exec::workers;
use crate::network::networks;

/// The policy file.
pub(crate) const PATH: &str = "/etc/nomad-nspawn/policy.toml";

/// The policy to begin with: that of the file, else the strict defaults.
///
/// # Errors
/// In words: who could write the file, or which line is wrong.
pub(crate) fn at_start() -> Result<Policy, String> {
    if let Some(policy) = find(Path::new(PATH))? {
        return Ok(policy);
    }
    tracing::warn!("{PATH} is missing: the strict defaults are in force");
    policy::parse("")
}

fn find(path: &Path) -> Result<Option<Policy>, String> {
    policy::from_file(path, kernel::root_file::read(path))
}

/// The policy file of a running helper. One that is gone is an accident: its `deny` and `limits`
/// must not go with it.
fn read_again() -> Result<Policy, String> {
    find(Path::new(PATH))?
        .ok_or_else(|| format!("{PATH} is gone; for the strict defaults put an empty file there"))
}

fn not_read(error: &str) {
    tracing::error!(%error, "policy not read: the old one stays in force");
}

/// Whether the daemon would take the policy file.
pub(crate) fn check() -> ExitCode {
    match read_again() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            not_read(&error);
            ExitCode::FAILURE
        }
    }
}

/// Reads the policy again on SIGHUP; a bad file leaves the old policy in force.
pub(crate) async fn reload_on_hangup(context: Rc<Context>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match read_again() {
            Ok(policy) => {
                *context.policy.borrow_mut() = Rc::new(policy);
                networks::refresh(&context);
                workers::release_unneeded(&context);
                tracing::info!("policy read again");
            }
            Err(error) => not_read(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::parse;
    use std::fs;

    fn load(path: &Path) -> Result<Policy, String> {
        find(path)?.map_or_else(|| parse(""), Ok)
    }
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Everything that makes a file not root's alone, in a directory that is.
    #[test]
    fn only_a_file_that_is_roots_alone_is_read() {
        assert!(nix::unistd::geteuid().is_root(), "it makes files of root's: run it as root");
        let dir = Path::new("/run").join(format!("nspawn-policy-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        mode(&dir, 0o755).unwrap();
        let file = dir.join("policy.toml");
        fs::write(&file, "[limits]\nmax_tasks = 7").unwrap();
        let refused = |words: &str| {
            let error = load(&file).unwrap_err();
            assert!(error.contains(words) && error.starts_with('/'), "{words}: {error}");
        };
        mode(&file, 0o644).unwrap();
        assert_eq!(load(&file).unwrap().limits.max_tasks.0, 7);
        mode(&file, 0o664).unwrap();
        refused("must belong to root");
        mode(&file, 0o646).unwrap();
        refused("must belong to root");
        mode(&file, 0o644).unwrap();
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        refused("must belong to root");
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        mode(&dir, 0o777).unwrap();
        refused(dir.to_str().unwrap());
        mode(&dir, 0o755).unwrap();
        fs::write(&file, vec![b'#'; 64 * 1024 + 1]).unwrap();
        refused("longer than 64 KiB");
        fs::write(&file, vec![b'#'; 64 * 1024]).unwrap();
        assert!(load(&file).is_ok());
        fs::write(&file, [0xff]).unwrap();
        refused("UTF-8");
        fs::write(&file, "\n[limits]\nmax = 7").unwrap();
        refused("policy.toml: line 3: max = 7: unknown field");
        fs::remove_file(&file).unwrap();
        assert_eq!(load(&file), parse(""), "a missing file means the defaults");
        assert_eq!(find(&file), Ok(None));
        fs::write(dir.join("good"), "").unwrap();
        symlink("good", &file).unwrap();
        refused("symbolic link");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        refused("must be a regular file");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_protects_nothing() {
        let file = std::env::temp_dir().join("no-such-policy.toml");
        assert!(load(&file).unwrap_err().contains("must belong to root"));
        assert_eq!(load(Path::new("/etc/no-such-directory/policy.toml")), parse(""));
    }
}
