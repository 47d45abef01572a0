//! The store as this tool writes it.
//!
//! Nothing counts before it is whole: a file is made in a directory below `incoming`, synced, and
//! renamed to its place; layers first, then the record that names them, then the name that names the
//! record. What goes, goes in the other order. A crash leaves files that no record names, never a
//! record without its files. Each tool holds a lock while it commits or removes; a directory below
//! `incoming` whose lock nobody holds is a leftover.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::open::create;
use kernel::{image_store, syscalls};
use nix::fcntl::{Flock, FlockArg};
use proto::layer::{Digest, IMAGES, IMPORTED, IMPORTS, ImageLayer, ImageRecord, LAYERS, RECORDS};
use proto::name::ImageName;

/// Its directory of what is not finished.
const INCOMING: &str = "incoming";
/// Looks for writers of a finished file: PID 1 closes its own descriptors of an ended unit a moment
/// later.
const TRIES: u32 = 200;
/// Time between two.
const PAUSE: Duration = Duration::from_millis(25);

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn below(part: &str) -> PathBuf {
    Path::new(IMAGES).join(part)
}

/// The opened store.
pub(super) struct Store(OwnedFd);

impl Store {
    /// Opens it; `None` where there is none.
    pub(super) fn find() -> Result<Option<Self>, String> {
        image_store::open().map(|found| found.map(Self)).map_err(at(Path::new(IMAGES)))
    }

    /// Opens it, and makes what is missing.
    pub(super) fn find_or_make() -> Result<Self, String> {
        let layers = below(LAYERS).join(IMPORTED);
        for directory in [layers, below(RECORDS), below(IMPORTS), below(INCOMING)] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(at(&directory))?;
        }
        Self::find()?.ok_or_else(|| format!("{IMAGES} was removed meanwhile"))
    }

    /// The imported names and what they mean.
    pub(super) fn names(&self) -> Result<Vec<(ImageName, Digest)>, String> {
        let mut all = Vec::new();
        for name in entries(&below(IMPORTS))? {
            let name = ImageName::new(name).map_err(|e| format!("{IMAGES}/{IMPORTS}: {e}"))?;
            let id = image_store::read_import(&self.0, &name).map_err(|e| e.to_string())?;
            all.extend(id.map(|id| (name, id)));
        }
        all.sort();
        Ok(all)
    }

    /// The record of an image.
    pub(super) fn record(&self, id: Digest) -> Result<ImageRecord, String> {
        image_store::read_record(&self.0, id).map_err(|e| e.to_string())
    }

    /// Opens the file of a layer, where that is good.
    pub(super) fn open_layer(&self, layer: &ImageLayer) -> io::Result<File> {
        image_store::open_layer(&self.0, layer)
    }

    /// Waits until nobody else commits or removes; lasts as long as the result.
    fn lock() -> Result<Flock<File>, String> {
        lock(&below(INCOMING), FlockArg::LockExclusive).map_err(at(&below(INCOMING)))
    }

    /// A directory for something that is not finished; what nobody works at any more goes.
    pub(super) fn begin(&self) -> Result<Transfer, String> {
        let _all = Self::lock()?;
        for name in entries(&below(INCOMING))? {
            let directory = below(INCOMING).join(name);
            match lock(&directory, FlockArg::LockExclusiveNonblock) {
                Ok(_) => fs::remove_dir_all(&directory).map_err(at(&directory))?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(at(&directory)(error)),
            }
        }
        let path = below(INCOMING).join(std::process::id().to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(at(&path))?;
        let held = lock(&path, FlockArg::LockExclusiveNonblock).map_err(at(&path))?;
        Ok(Transfer { path, _held: held })
    }

    /// Makes a finished image count under a name. `layer`: the file of its one layer where that is
    /// new.
    pub(super) fn commit(
        &self,
        transfer: &Transfer,
        (name, id): (&ImageName, Digest),
        record: &ImageRecord,
        layer: Option<&Path>,
    ) -> Result<(), String> {
        let _all = Self::lock()?;
        let [stored] = record.layers() else { return Err("an import has one layer".to_owned()) };
        let place = Path::new(IMAGES).join(stored.layer.path());
        match layer {
            Some(new) => put(new, &place)?,
            None if place.exists() => {}
            None => return Err("its layer was removed meanwhile: import it again".to_owned()),
        }
        let bytes = record.write().map_err(|e| e.to_string())?;
        for (bytes, place) in [
            (bytes, below(RECORDS).join(id.to_string())),
            (format!("{id}\n").into_bytes(), below(IMPORTS).join(name.as_str())),
        ] {
            let new = transfer.path("new");
            let mut file = create(&new).map_err(at(&new))?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(at(&new))?;
            put(&new, &place)?;
        }
        self.remove_unneeded().map(drop)
    }

    /// Removes a name, and what no other needs; returns the bytes of layers that went.
    pub(super) fn remove(&self, name: &ImageName) -> Result<u64, String> {
        let _all = Self::lock()?;
        let path = below(IMPORTS).join(name.as_str());
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!("there is no imported image {name}"));
            }
            other => other.map_err(at(&path))?,
        }
        sync(&below(IMPORTS))?;
        self.remove_unneeded()
    }

    /// Removes records that no name means, then layers that no record names. A task that runs keeps
    /// the file that it has mounted. The caller holds the lock.
    fn remove_unneeded(&self) -> Result<u64, String> {
        let ids: HashSet<_> = self.names()?.into_iter().map(|(_, id)| id).collect();
        let mut needed = HashSet::new();
        for name in entries(&below(RECORDS))? {
            match Digest::parse(&name).filter(|id| ids.contains(id)) {
                Some(id) => match self.record(id) {
                    Ok(record) => {
                        needed.extend(record.layers().iter().map(|stored| stored.layer.file_name()))
                    }
                    Err(error) => {
                        eprintln!("nomad-nspawnctl: {error}; no layer is removed before that");
                        return Ok(0);
                    }
                },
                None => remove_file(&below(RECORDS).join(name))?,
            }
        }
        sync(&below(RECORDS))?;
        let (layers, mut freed) = (below(LAYERS).join(IMPORTED), 0_u64);
        for name in entries(&layers)?.into_iter().filter(|name| !needed.contains(name)) {
            let path = layers.join(name);
            freed = freed.saturating_add(fs::metadata(&path).map_err(at(&path))?.len());
            remove_file(&path)?;
        }
        Ok(freed)
    }
}

/// Something that is not finished, in a directory that goes with it.
pub(super) struct Transfer {
    path: PathBuf,
    /// Whoever finds it unlocked may remove it.
    _held: Flock<File>,
}

impl Transfer {
    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("nomad-nspawnctl: {}: {error}", self.path.display());
        }
    }
}

/// Closes a converter's file to all writers and judges it; returns its length.
///
/// The converter is not trusted: it could have passed the file on, or have changed it after it was
/// judged, so the kernel is asked for writers after the mode has closed it.
pub(super) fn seal(path: &Path, digest: Digest) -> Result<u64, String> {
    let file = File::open(path).map_err(at(path))?;
    file.set_permissions(Permissions::from_mode(0o400)).map_err(at(path))?;
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match syscalls::check_no_writer(file.as_fd()) {
            Ok(()) => break,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(at(path)(error)),
            Err(_) if tries == 0 => {
                return Err("a process of the converter still has its file open".to_owned());
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    file.sync_all().map_err(at(path))?;
    let meta = image_store::check_layer(&file, digest).map_err(at(path))?;
    Ok(meta.len())
}

/// Renames a finished file to its place, for good.
fn put(new: &Path, place: &Path) -> Result<(), String> {
    fs::rename(new, place).map_err(at(place))?;
    place.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> Result<(), String> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))
}

fn remove_file(path: &Path) -> Result<(), String> {
    fs::remove_file(path).map_err(at(path))
}

fn lock(directory: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(directory)?, how).map_err(|(_, error)| error.into())
}

/// Names in a directory; those that are not text are nobody's of ours.
fn entries(directory: &Path) -> Result<Vec<String>, String> {
    let all = fs::read_dir(directory).map_err(at(directory))?;
    let names = all.map(|entry| entry.map(|entry| entry.file_name().into_string()));
    let names: io::Result<Vec<_>> = names.collect();
    Ok(names.map_err(at(directory))?.into_iter().flatten().collect())
}
