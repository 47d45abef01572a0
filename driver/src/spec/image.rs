//! Which image a job's `image` means, and what kind of file it is.
//!
//! A relative text is looked up below the agent's working directory, then below the plugin's
//! folder, and is a name in the image store otherwise: the meaning that jobs of the older driver
//! rely on. Where the plugin's account may not look, a path is refused, because it could mean
//! another image than it says, and a name is the store's. Looking is all that happens here; the helper opens the image, and only below the
//! folders of its policy. The plugin's account cannot look into the image store (0700), so there
//! the name alone tells the kind, and the helper's launcher refuses an image that is of another.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use proto::name::ImageName;
use proto::path::Absolute;
use proto::spec::{Image, ImageKind};

use crate::config::Problem;

/// Finds the image. Blocks on the file system.
///
/// # Errors
/// What is wrong with the text, or where nothing was found.
pub(crate) fn resolve(text: &str, folders: &[PathBuf]) -> Result<(Image, ImageKind), Problem> {
    let problem = |rule: String| Problem::new("image", rule).value(text);
    let path = Path::new(text);
    if path.is_absolute() {
        return at(path).map_err(problem);
    }
    for base in folders {
        let candidate = base.join(path);
        match candidate.try_exists() {
            Ok(true) => return at(&candidate).map_err(problem),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && text.contains('/') => {
                return Err(problem(format!(
                    "the plugin's account may not look into a folder on the way to {}",
                    candidate.display()
                ))
                .remedy("write its absolute path, or let others pass: chmod o+x FOLDER"));
            }
            Ok(false) | Err(_) => {}
        }
    }
    if text.contains('/') {
        let places: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        return Err(problem(format!(
            "there is no such file or folder below {}",
            places.join(" or ")
        ))
        .remedy("write an absolute path, or the image's name in the image store"));
    }
    let name = ImageName::new(text).map_err(|e| problem(e.to_string()))?;
    Ok((Image::Named(name), by_name(path)))
}

fn at(path: &Path) -> Result<(Image, ImageKind), String> {
    // `.` components go, so that the text has one form; `..` was refused before.
    let plain: PathBuf =
        path.components().filter(|component| !matches!(component, Component::CurDir)).collect();
    let text = plain.to_str().ok_or("must be UTF-8")?;
    let image = Absolute::parse(text).map(Image::Path).map_err(|e| e.to_string())?;
    let kind = match std::fs::metadata(&plain) {
        Ok(metadata) => by_type(&metadata)?,
        Err(_) => by_name(&plain),
    };
    Ok((image, kind))
}

fn by_type(metadata: &Metadata) -> Result<ImageKind, String> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(ImageKind::Tree)
    } else if kind.is_file() || kind.is_block_device() {
        Ok(ImageKind::Disk)
    } else {
        Err("is neither a folder, nor a file, nor a block device".to_owned())
    }
}

/// What the name says where the plugin cannot look.
fn by_name(path: &Path) -> ImageKind {
    let raw = path.extension().is_some_and(|extension| extension == "raw");
    if raw || path.starts_with("/dev") { ImageKind::Disk } else { ImageKind::Tree }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_win_over_names_in_order() {
        let base = std::env::temp_dir().join(format!("image-{}", std::process::id()));
        let (agent, plugin) = (base.join("agent"), base.join("plugin"));
        for folder in [agent.join("both"), plugin.join("both"), plugin.join("own/deep")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(agent.join("disk.raw"), "").unwrap();
        std::fs::write(plugin.join("disk.img"), "").unwrap();
        let folders = [agent.clone(), plugin.clone()];
        let path = |path: PathBuf| {
            let image = Image::Path(Absolute::parse(path.to_str().unwrap()).unwrap());
            (image, ImageKind::Tree)
        };
        let disk = |(image, _)| (image, ImageKind::Disk);
        let found = |text: &str| resolve(text, &folders);
        assert_eq!(found("both"), Ok(path(agent.join("both"))));
        assert_eq!(found("./own"), Ok(path(plugin.join("own"))));
        assert_eq!(found("own/deep"), Ok(path(plugin.join("own/deep"))));
        let named = |text| (Image::Named(ImageName::new(text).unwrap()), ImageKind::Tree);
        assert_eq!(found("debian"), Ok(named("debian")));
        assert_eq!(found("debian.raw"), Ok(disk(named("debian.raw"))));
        assert_eq!(found("disk.raw"), Ok(disk(path(agent.join("disk.raw")))));
        assert_eq!(found("disk.img"), Ok(disk(path(plugin.join("disk.img")))));
        // Not seen by the plugin, so the helper decides.
        assert_eq!(found("/nowhere//x/"), Ok(path(PathBuf::from("/nowhere/x"))));
        for bad in ["none/here", "a b", ".hidden"] {
            assert!(found(bad).is_err(), "{bad}");
        }
        assert_eq!(found("/nowhere/x.raw"), Ok(disk(path(PathBuf::from("/nowhere/x.raw")))));
        assert_eq!(found("/dev/none/x"), Ok(disk(path(PathBuf::from("/dev/none/x")))));
        let refused = found("/dev/null").unwrap_err().to_string();
        assert!(refused.contains("neither a folder"), "{refused}");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
