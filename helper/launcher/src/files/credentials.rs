//! Credentials: files of the stage that systemd-nspawn hands to the container's PID 1.
//!
//! No content is ever on a command line or in an environment.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use proto::limits::CREDENTIAL_MAX;
use proto::path::Relative;
use proto::plan::TaskDirs;
use proto::task_spec::files::{Credential, CredentialContent};

use super::prepare::Context;
use crate::open::{self, Mounts};
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Decrypts with this host's key.
const CREDS: &str = "/usr/bin/systemd-creds";

/// Writes all of them to the stage.
pub(super) fn load_all(context: &mut Context<'_>) -> Result<(), Problem> {
    // What all of them together may hold, as for systemd's services.
    let mut room = CREDENTIAL_MAX;
    for (number, credential) in context.plan.files.credentials.iter().enumerate() {
        let object = format!("credential {}", credential.name);
        let mut content = match &credential.content {
            CredentialContent::Value(value) => value.reveal().as_bytes().to_vec(),
            CredentialContent::File(below) => read(&context.plan.task_dirs, below)?,
        };
        let mut path = OwnPath::on_stage(format!("credential{number}"));
        path.write_new(&content)?;
        if credential.encrypted {
            content = decrypt(credential, &path)?;
            path = OwnPath::on_stage(format!("credential{number}.plain"));
            path.write_new(&content)?;
        }
        room = room.checked_sub(content.len()).ok_or_else(|| {
            Problem::refused(&object, "all credentials of a task together: at most 1 MiB")
        })?;
        let option = format!("--load-credential={}:{path}", credential.name);
        context.extras.arguments.push(option);
    }
    Ok(())
}

/// Reads a file below the task's own directory, in which the payload may have made anything.
pub(crate) fn read(dirs: &TaskDirs, below: &Relative) -> Result<Vec<u8>, Problem> {
    let path = Path::new(dirs.task.as_str()).join(below.to_path());
    let object = format!("credential source {}/{}", dirs.alloc_dir, path.display());
    let alloc_dir = open::place(&dirs.alloc_dir, open::HANDLE).at(&object)?;
    let handle =
        open::beneath(alloc_dir.as_fd(), &path, OFlag::O_PATH, Mounts::Cross).at(&object)?;
    if !open::metadata(&handle).at(&object)?.is_file() {
        return Err(Problem::refused(object, "is not a regular file"));
    }
    let file = File::from(OwnPath::of_handle(&handle).open(OFlag::O_RDONLY).at(&object)?);
    match open::read_all(file, CREDENTIAL_MAX) {
        // Not the system's error: it is too long.
        Err(error) if error.raw_os_error().is_none() => {
            Err(Problem::refused(object, format!("cannot be a credential: {error}")))
        }
        other => other.at(object),
    }
}

/// Decrypts a file of the stage.
fn decrypt(credential: &Credential, from: &OwnPath) -> Result<Vec<u8>, Problem> {
    let object = format!("credential {}", credential.name);
    let output = Command::new(CREDS)
        .arg("decrypt")
        .arg(format!("--name=nomad.{}", credential.name))
        .args(["--newline=no", "-", "-"])
        .env_clear()
        .stdin(Stdio::from(from.open(OFlag::O_RDONLY).at(&object)?))
        .output()
        .at(CREDS)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = format!("systemd-creds cannot decrypt it with this host's key: {}", said.trim());
    Err(Problem::refused(object, reason))
}
