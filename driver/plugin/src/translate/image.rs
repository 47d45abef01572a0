//! Which image a job's `image` means, and what kind of file it is.
//!
//! A relative path is looked up below the agent's working directory, then below the plugin's
//! directory, as jobs of the older driver rely on. Where the plugin's account may not look, it is
//! refused, because it could mean another image than it says. A name without a slash is the image
//! store's, and names something in the plugin's directory where the store does not have it; what
//! lies in the agent's working directory, which is often /, is not an image for it. Looking is all
//! that happens here; the helper opens the image, and only below the directories of its policy. The
//! plugin's account cannot look into the image store (0700), so the helper settles which of the two
//! a name is, the name alone gives the kind, and the helper's launcher refuses an image that is of
//! another.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use proto::name::ImageName;
use proto::path::Absolute;
use proto::task_spec::{Image, ImageKind};

use crate::config::Problem;

/// Finds the image. The last of `directories` is the plugin's. Blocks on the file system.
///
/// # Errors
/// What is wrong with the text, or where nothing was found.
pub(crate) fn resolve(text: &str, directories: &[PathBuf]) -> Result<(Image, ImageKind), Problem> {
    let problem = |rule: String| Problem::new("image", rule).value(text);
    let path = Path::new(text);
    if path.is_absolute() {
        return at(path).map_err(problem);
    }
    if !text.contains('/') {
        return find_named(text, directories.last()).map_err(problem);
    }
    for base in directories {
        let candidate = base.join(path);
        match candidate.try_exists() {
            Ok(true) => return at(&candidate).map_err(problem),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(problem(format!(
                    "the plugin's account may not look into a directory on the way to {}",
                    candidate.display()
                ))
                .remedy("write its absolute path, or let others pass: chmod o+x DIRECTORY"));
            }
            Ok(false) | Err(_) => {}
        }
    }
    let places: Vec<String> = directories.iter().map(|f| f.display().to_string()).collect();
    Err(problem(format!("there is no such file or directory below {}", places.join(" or ")))
        .remedy("write an absolute path, or the image's name in the image store"))
}

/// A name of the image store, with the path that it is where the store does not have it.
fn find_named(text: &str, plugin: Option<&PathBuf>) -> Result<(Image, ImageKind), String> {
    let beside = plugin.map(|directory| directory.join(text)).filter(|path| path.exists());
    let beside = beside.and_then(|path| at(&path).ok());
    match (ImageName::new(text), beside) {
        (Ok(name), Some((Image::Path(path), kind))) => Ok((Image::NamedOr(name, path), kind)),
        (Ok(name), _) => Ok((Image::Named(name), by_name(Path::new(text)))),
        (Err(_), Some(beside)) => Ok(beside),
        (Err(rule), None) => Err(rule.to_string()),
    }
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
        Err("is neither a directory, nor a file, nor a block device".to_owned())
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
    fn a_path_is_found_in_order_and_a_name_beside_the_plugin_alone() {
        let base = std::env::temp_dir().join(format!("image-{}", std::process::id()));
        let (agent, plugin) = (base.join("agent"), base.join("plugin"));
        for directory in [agent.join("both"), plugin.join("both"), plugin.join("own/deep")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::create_dir_all(agent.join("nix")).unwrap();
        std::fs::create_dir_all(plugin.join("a b")).unwrap();
        std::fs::write(agent.join("disk.raw"), "").unwrap();
        std::fs::write(plugin.join("disk.img"), "").unwrap();
        let directories = [agent.clone(), plugin.clone()];
        let path = |path: PathBuf| {
            let image = Image::Path(Absolute::parse(path.to_str().unwrap()).unwrap());
            (image, ImageKind::Tree)
        };
        let disk = |(image, _)| (image, ImageKind::Disk);
        let found = |text: &str| resolve(text, &directories);
        assert_eq!(found("./both"), Ok(path(agent.join("both"))));
        assert_eq!(found("./own"), Ok(path(plugin.join("own"))));
        assert_eq!(found("own/deep"), Ok(path(plugin.join("own/deep"))));
        let named = |text| (Image::Named(ImageName::new(text).unwrap()), ImageKind::Tree);
        let or = |text, path: PathBuf| {
            let path = Absolute::parse(path.to_str().unwrap()).unwrap();
            (Image::NamedOr(ImageName::new(text).unwrap(), path), ImageKind::Tree)
        };
        assert_eq!(found("debian"), Ok(named("debian")));
        assert_eq!(found("nix"), Ok(named("nix")));
        assert_eq!(found("both"), Ok(or("both", plugin.join("both"))));
        assert_eq!(found("a b"), Ok(path(plugin.join("a b"))));
        assert_eq!(found("debian.raw"), Ok(disk(named("debian.raw"))));
        assert_eq!(found("./disk.raw"), Ok(disk(path(agent.join("disk.raw")))));
        assert_eq!(found("disk.raw"), Ok(disk(named("disk.raw"))));
        assert_eq!(found("disk.img"), Ok(disk(or("disk.img", plugin.join("disk.img")))));
        // Not seen by the plugin, so the helper decides.
        assert_eq!(found("/nowhere//x/"), Ok(path(PathBuf::from("/nowhere/x"))));
        for bad in ["none/here", "b c", ".hidden"] {
            assert!(found(bad).is_err(), "{bad}");
        }
        assert_eq!(found("/nowhere/x.raw"), Ok(disk(path(PathBuf::from("/nowhere/x.raw")))));
        assert_eq!(found("/dev/none/x"), Ok(disk(path(PathBuf::from("/dev/none/x")))));
        let refused = found("/dev/null").unwrap_err().to_string();
        assert!(refused.contains("neither a directory"), "{refused}");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
