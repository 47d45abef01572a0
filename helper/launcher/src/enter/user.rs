//! As whom a command runs: found in the files of the running container, as at a start in those of
//! the image.
//!
//! Runs as container root in the container's namespaces, so nothing of the host can be reached. The
//! content is hostile: read up to a bound, and no number outside of the task's ids is taken.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use proto::task_spec::process::User;

use crate::open::{if_there, read_all};
use crate::stage::OwnPath;
use crate::step::{At as _, Problem};
use crate::user::{Accounts, Credentials, FILE_MAX, check_ids, find_entry, resolve};

/// Finds the user's ids and groups.
pub(super) fn find(user: &User, width: u32) -> Result<Credentials, Problem> {
    let (passwd, group) = (read("passwd")?, read("group")?);
    let entry = find_entry(&passwd, &user.user);
    let found = resolve(user, entry, &passwd, &group)?;
    check_ids(width, user, &found)?;
    Ok(found)
}

fn read(name: &str) -> Result<Accounts, Problem> {
    let object = format!("/etc/{name} of the container");
    let root = OwnPath::constant("/").open_dir()?;
    // A FIFO is opened at once and is refused then.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let opened = openat2(&root, &Path::new("etc").join(name), how).map_err(std::io::Error::from);
    let Some(file) = if_there(opened).at(&object)? else {
        return Ok(Accounts { text: String::new(), lacks: "the container has no such file" });
    };
    let file = File::from(file);
    if !file.metadata().at(&object)?.is_file() {
        return Err(Problem::refused(object, "is not a regular file"));
    }
    let bytes = read_all(file, FILE_MAX).map_err(|e| Problem::refused(&object, e))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Accounts { text, lacks: "not in the file" })
}
