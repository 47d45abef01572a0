//! Paths in archives.
//!
//! For: a path as components below the layer's root, and the names of whiteouts (image-spec,
//! layer.md, "Whiteouts").
//! Trusts: nothing.
//! Never: lets a component through that leads upwards.

use crate::bounds::Bounds;
use crate::error::{Error, Result, show};

/// Longest name that Linux file systems store, in bytes.
const NAME_MAX: usize = 255;

/// Splits a member's path. A leading slash means the root of the layer, as for every reader of
/// tar. None of the components is empty, `.` or `..`.
pub(crate) fn components<'a>(path: &'a [u8], bounds: &Bounds) -> Result<Vec<&'a [u8]>> {
    if path.is_empty() {
        return Err(Error::archive("a path is empty"));
    }
    if path.len() > bounds.path {
        return Err(Error::Bound(format!("a path is longer than {} bytes", bounds.path)));
    }
    if path.contains(&0) {
        return Err(Error::archive(format!("the path {} contains a NUL", show(path))));
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                return Err(Error::archive(format!("the path {} contains \"..\"", show(path))));
            }
            name if name.len() > NAME_MAX => {
                return Err(Error::archive(format!("a name is longer than {NAME_MAX} bytes")));
            }
            name => components.push(name),
        }
    }
    Ok(components)
}

/// What a member's last component asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// A file of this name.
    Plain(&'a [u8]),
    /// The layers below have no file of this name.
    Whiteout(&'a [u8]),
    /// The layers below have nothing in this directory.
    Opaque,
    /// Bookkeeping of aufs, which is no part of the image.
    Bookkeeping,
}

/// Classifies the name of a member below `parents`.
pub(crate) fn classify<'a>(parents: &[&[u8]], name: &'a [u8]) -> Result<Name<'a>> {
    if parents.iter().any(|parent| parent.starts_with(b".wh..wh.")) {
        return Ok(Name::Bookkeeping);
    }
    if parents.iter().any(|parent| parent.starts_with(b".wh.")) {
        return Err(Error::archive("it lies below a whiteout"));
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(Name::Plain(name)),
        Some(b".wh..opq") => Ok(Name::Opaque),
        Some(rest) if rest.starts_with(b".wh.") => Ok(Name::Bookkeeping),
        Some(b"" | b"." | b"..") => Err(Error::archive("the whiteout names no file")),
        Some(rest) => Ok(Name::Whiteout(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, classify, components};
    use crate::bounds::Bounds;

    #[test]
    fn paths_stay_below_the_root() {
        let split = |path: &str| components(path.as_bytes(), &Bounds::default()).map(|c| c.len());
        assert_eq!(split("a/b").unwrap(), 2);
        assert_eq!(split("/a//./b/").unwrap(), 2);
        assert_eq!(split("./").unwrap(), 0);
        assert_eq!(split("/").unwrap(), 0);
        assert_eq!(split("...").unwrap(), 1);
        let long = "a".repeat(256);
        for bad in ["", "..", "../a", "a/..", "a/../b", "/..", "a\0b", &long, &"a/".repeat(2048)] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whiteouts_are_recognised() {
        let name = |name: &'static str| classify(&[b"a"], name.as_bytes());
        assert_eq!(name(".wh.x").unwrap(), Name::Whiteout(b"x"));
        assert_eq!(name(".wh..wh..opq").unwrap(), Name::Opaque);
        assert_eq!(name(".wh..wh.plnk").unwrap(), Name::Bookkeeping);
        assert_eq!(name(".wh").unwrap(), Name::Plain(b".wh"));
        assert!(name(".wh.").is_err() && name(".wh...").is_err() && name(".wh..").is_err());
        assert!(classify(&[b".wh.a"], b"x").is_err());
        assert_eq!(classify(&[b".wh..wh.plnk"], b"x").unwrap(), Name::Bookkeeping);
    }
}
