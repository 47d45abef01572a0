//! From a file to an image with a name.
//!
//! The file is copied first and never looked at again: what is digested is what is converted,
//! whoever may change the file meanwhile. Reads no archive itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kernel::open::create;
use nix::sys::statvfs::statvfs;
use proto::layer::{Digest, IMPORTED, ImageLayer, ImageRecord, StoredLayer};
use proto::name::ImageName;
use proto::path::Component;

use super::convert;
use super::store::{Store, Transfer, seal};

/// Imports a root file system: a tar archive, compressed or not.
///
/// # Errors
/// What stands in the way; nothing counts then.
pub(super) fn run(file: &Path, name: ImageName) -> Result<(), String> {
    let at = |error: io::Error| format!("{}: {error}", file.display());
    let archive = File::open(file).map_err(at)?;
    if archive.metadata().map_err(at)?.is_dir() {
        let reason = "is a directory: import an archive of it, or copy it into the image store";
        return Err(format!("{}: {reason}", file.display()));
    }
    let store = Store::find_or_make()?;
    let transfer = store.begin()?;
    let part = transfer.path("part");
    copy(archive, &part, room(&part)?).map_err(at)?;
    let digest = sha256(&part)?;
    let source = Component::new(IMPORTED).map_err(|e| e.to_string())?;
    let layer = ImageLayer { source, digest };
    let stored = find(&store, &layer);
    let is_new = stored.is_none();
    let (stored, report) = match stored {
        Some(stored) => (stored, "nothing to convert: its layer is in the store".to_owned()),
        None => make(&transfer, &part, layer).map_err(|e| format!("{}: {e}", file.display()))?,
    };
    let record = ImageRecord::new(vec![stored]).ok_or("an image has layers")?;
    let new = transfer.path("out");
    store.commit(&transfer, (&name, digest), &record, is_new.then_some(new.as_path()))?;
    println!("{name} is image {digest}: {report}");
    Ok(())
}

/// Bytes that may be written there: tasks write to the same file system, and starts are refused where
/// less is left (`[limits] min_free` of the policy, by default).
fn room(path: &Path) -> Result<u64, String> {
    const LEFT: u64 = 1 << 30;
    let parent = path.parent().unwrap_or(path);
    let at = |error: nix::errno::Errno| format!("{}: {error}", parent.display());
    let found = statvfs(parent).map_err(at)?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    let room = free.saturating_sub(LEFT);
    if room == 0 {
        return Err(format!("{}: less than 1 GiB is free", parent.display()));
    }
    Ok(room)
}

fn copy(from: File, to: &Path, room: u64) -> io::Result<()> {
    let mut from = from.take(room);
    io::copy(&mut from, &mut create(to)?)?;
    if from.limit() == 0 {
        return Err(io::Error::other(format!("does not fit: less than 1 GiB beside {room} bytes")));
    }
    Ok(())
}

/// The layer as the store has it: the record of an earlier import of the same bytes, where that can be
/// read and the file is good. It is made again otherwise.
fn find(store: &Store, layer: &ImageLayer) -> Option<StoredLayer> {
    let record = store.record(layer.digest).ok()?;
    let stored = record.layers().iter().find(|stored| stored.layer == *layer)?;
    store.open_layer(layer).is_ok().then(|| stored.clone())
}

/// Has the layer made; returns it with the converter's report.
fn make(
    transfer: &Transfer,
    part: &Path,
    layer: ImageLayer,
) -> Result<(StoredLayer, String), String> {
    let new = transfer.path("out");
    let at = |error: io::Error| format!("{}: {error}", new.display());
    let mut how = OpenOptions::new();
    let output = how.read(true).write(true).create_new(true).mode(0o600).open(&new).map_err(at)?;
    let archive = File::open(part).map_err(at)?;
    let report = convert::run(archive, output, layer.digest, room(&new)?)?;
    let size = seal(&new, layer.digest)?;
    let content = sha256(&new)?;
    Ok((StoredLayer { layer, size, content }, report))
}

/// The digest of a file that nobody else can write.
fn sha256(path: &Path) -> Result<Digest, String> {
    let at = |error: io::Error| format!("sha256sum {}: {error}", path.display());
    let file = File::open(path).map_err(at)?;
    let output = Command::new("sha256sum").stdin(file).stderr(Stdio::inherit()).output();
    let output = output.map_err(at)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digest = text.split(' ').next().and_then(Digest::parse).filter(|_| output.status.success());
    digest.ok_or_else(|| format!("sha256sum {}: {}", path.display(), output.status))
}
