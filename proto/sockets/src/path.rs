//! Paths as lists of components, so that no text is ever split, joined or normalised on the
//! privileged side.
//!
//! A [`Component`] is one name in a directory: not empty, not `.` or `..`, without slash, NUL or
//! other control character. A [`Relative`] path is walked beneath an open directory and cannot
//! leave it.

use std::fmt;
use std::path::PathBuf;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::limits;
use crate::name::{InvalidName, check_component, text_name};

text_name!(
    /// One name in a directory.
    Component, "path component", check_component
);

/// A path below some directory: components in order, possibly none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode)]
pub struct Relative(Vec<Component>);

impl Relative {
    /// Takes the components.
    ///
    /// # Errors
    /// More than [`limits::COMPONENTS_MAX`] components.
    pub fn new(components: Vec<Component>) -> Result<Self, InvalidName> {
        if components.len() > limits::COMPONENTS_MAX {
            return Err(InvalidName { kind: "path", rule: "at most 64 components" });
        }
        Ok(Self(components))
    }

    /// The components in order.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.0
    }

    /// The path in the kernel's spelling; `.` for no component.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        if self.0.is_empty() {
            return PathBuf::from(".");
        }
        self.0.iter().map(Component::as_str).collect()
    }
}

impl<C> Decode<C> for Relative {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let components = Vec::<Component>::decode(decoder)?;
        Self::new(components).map_err(|e| DecodeError::OtherString(e.to_string()))
    }
}

bincode::impl_borrow_decode!(Relative);

/// An absolute path: the components below `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Absolute(Relative);

impl Absolute {
    /// Reads an absolute path as people write it. Doubled and closing slashes are taken; `.`, `..`
    /// and control characters are not.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(InvalidName { kind: "path", rule: "must begin with /" });
        };
        let components: Result<Vec<_>, _> =
            rest.split('/').filter(|part| !part.is_empty()).map(Component::new).collect();
        Ok(Self(Relative::new(components?)?))
    }

    /// The components below `/`.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        self.0.components()
    }

    /// The rest of this path below `root`, when it is `root` or below it.
    #[must_use]
    pub fn below(&self, root: &Self) -> Option<Relative> {
        let rest = self.components().strip_prefix(root.components())?;
        Some(Relative(rest.to_vec()))
    }

    /// This path with further components.
    ///
    /// # Errors
    /// More than [`limits::COMPONENTS_MAX`] components.
    pub fn join(&self, below: &[Component]) -> Result<Self, InvalidName> {
        Relative::new([self.components(), below].concat()).map(Self)
    }

    /// The path in the kernel's spelling.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(self.components().iter().map(Component::as_str));
        path
    }
}

impl fmt::Display for Absolute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_path().display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn below_needs_whole_components() {
        let root = Absolute::parse("/var/lib/machines").unwrap();
        let inside = Absolute::parse("/var/lib/machines/a/b").unwrap();
        assert_eq!(inside.below(&root).unwrap().to_path(), PathBuf::from("a/b"));
        assert!(Absolute::parse("/var/lib/machines2/a").unwrap().below(&root).is_none());
        assert_eq!(root.below(&root).unwrap().to_path(), PathBuf::from("."));
    }

    proptest! {
        /// The oracle is the standard library's own reading of the text.
        #[test]
        fn an_absolute_path_never_climbs(text in "/?([a-z.]{0,3}/?){0,8}") {
            let wild = std::path::Path::new(&text)
                .components()
                .any(|c| matches!(c, std::path::Component::ParentDir));
            if let Ok(path) = Absolute::parse(&text) {
                prop_assert!(!wild && text.starts_with('/'));
                prop_assert_eq!(path.to_path(), std::path::PathBuf::from(&text).components().collect::<PathBuf>());
            }
        }
    }
}
