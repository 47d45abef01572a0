//! Which image a job's `image` means.
//!
//! A relative text is looked up below the agent's working directory, then below the plugin's
//! folder, and is a name in the image store otherwise: the meaning that jobs of the older driver
//! rely on. Looking is all that happens here; the helper opens the image, and only below the
//! folders of its policy.

use std::path::{Component, Path, PathBuf};

use proto::name::ImageName;
use proto::path::Absolute;
use proto::spec::Image;

use crate::config::Problem;

/// Finds the image. Blocks on the file system.
///
/// # Errors
/// What is wrong with the text, or where nothing was found.
pub(crate) fn resolve(text: &str, folders: &[PathBuf]) -> Result<Image, Problem> {
    let problem = |rule: String| Problem::new("image", rule).value(text);
    let path = Path::new(text);
    if path.is_absolute() {
        return folder(path).map_err(problem);
    }
    for base in folders {
        let candidate = base.join(path);
        if candidate.is_dir() {
            return folder(&candidate).map_err(problem);
        }
    }
    if text.contains('/') {
        let places: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        return Err(problem(format!("there is no such folder below {}", places.join(" or ")))
            .remedy("write an absolute path, or the image's name in the image store"));
    }
    ImageName::new(text).map(Image::Named).map_err(|e| problem(e.to_string()))
}

fn folder(path: &Path) -> Result<Image, String> {
    if path.is_file() {
        return Err("is a file; this version runs images that are folders".to_owned());
    }
    // `.` components go, so that the text has one form; `..` was refused before.
    let plain: PathBuf =
        path.components().filter(|component| !matches!(component, Component::CurDir)).collect();
    let text = plain.to_str().ok_or("must be UTF-8")?;
    Absolute::parse(text).map(Image::Path).map_err(|e| e.to_string())
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
        let folders = [agent.clone(), plugin.clone()];
        let path = |path: PathBuf| Image::Path(Absolute::parse(path.to_str().unwrap()).unwrap());
        let found = |text: &str| resolve(text, &folders);
        assert_eq!(found("both"), Ok(path(agent.join("both"))));
        assert_eq!(found("./own"), Ok(path(plugin.join("own"))));
        assert_eq!(found("own/deep"), Ok(path(plugin.join("own/deep"))));
        assert_eq!(found("debian"), Ok(Image::Named(ImageName::new("debian").unwrap())));
        // Not seen by the plugin, so the helper decides.
        assert_eq!(found("/nowhere//x/"), Ok(path(PathBuf::from("/nowhere/x"))));
        for bad in ["none/here", "a b", ".hidden"] {
            assert!(found(bad).is_err(), "{bad}");
        }
        let disk = agent.join("disk.raw");
        let refused = found(disk.to_str().unwrap()).unwrap_err().to_string();
        assert!(refused.contains("is a file"), "{refused}");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
