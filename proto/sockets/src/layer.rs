//! Layers of images: how their files are named, and the record of an image in the store.
//!
//! A layer is one EROFS file. Its name is the digest of the archive that it was made of, below the
//! name of where that came from: whoever serves archives under one name cannot replace the layers
//! of another. Trusts nothing that it decodes. Never opens a file.

use std::fmt;
use std::path::{Path, PathBuf};

use bincode::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::limits;
use crate::path::Component;

/// The store of layers and of the records of images; root's, 0700.
pub const IMAGES: &str = "/var/lib/nomad-nspawn/images";
/// Its directory of one file for each imported name, which holds the image's id.
pub const IMPORTS: &str = "imports";
/// Its directory of records, by id.
pub const RECORDS: &str = "images";
/// Its directory of layers.
pub const LAYERS: &str = "layers";
/// Where layers of imported files come from. No registry or server has such a name.
pub const IMPORTED: &str = "+import";

/// The form of records that this build reads and writes.
const VERSION: u32 = 1;

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        bytes?.try_into().ok().filter(|_| rest.is_empty()).map(Self)
    }

    /// The UUID of the file system that is made of an archive with this digest: a file system
    /// without one could not be told from another by overlayfs.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        for (to, from) in uuid.iter_mut().zip(self.0) {
            *to = from;
        }
        uuid
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which file of the store a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct ImageLayer {
    /// Where its archive came from: a registry, a server, or [`IMPORTED`].
    pub source: Component,
    /// Digest of its archive.
    pub digest: Digest,
}

impl ImageLayer {
    /// Name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.erofs", self.digest)
    }

    /// Its file below [`IMAGES`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(LAYERS).join(self.source.as_str()).join(self.file_name())
    }
}

impl fmt::Display for ImageLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{IMAGES}/{}", self.path().display())
    }
}

/// A layer, and what its file was when it was taken into the store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StoredLayer {
    /// Which file.
    pub layer: ImageLayer,
    /// Its length in bytes.
    pub size: u64,
    /// Digest of the file itself.
    pub content: Digest,
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    layers: Vec<StoredLayer>,
}

impl ImageRecord {
    /// A record of these layers, the lowest first; none for fewer than one or more than
    /// [`limits::IMAGE_LAYERS_MAX`].
    #[must_use]
    pub fn new(layers: Vec<StoredLayer>) -> Option<Self> {
        (1..=limits::IMAGE_LAYERS_MAX).contains(&layers.len()).then_some(Self { layers })
    }

    /// Its layers, the lowest first.
    #[must_use]
    pub fn layers(&self) -> &[StoredLayer] {
        &self.layers
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// [`CodecError::TooLong`], where the names of sources are long.
    pub fn write(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode(&(VERSION, &self.layers))
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// Another form, or a number of layers that no image has.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        let malformed = |reason: String| Err(CodecError::Malformed(reason));
        match bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) {
            Some(VERSION) => {}
            Some(other) => return malformed(format!("a record of version {other}")),
            None => return malformed("no version".to_owned()),
        }
        let (_, layers): (u32, Vec<StoredLayer>) = codec::decode(bytes)?;
        let count = layers.len();
        Self::new(layers).map_or_else(|| malformed(format!("{count} layers")), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(count: u8) -> Option<ImageRecord> {
        let source = Component::new(IMPORTED).unwrap();
        let layer = |n| ImageLayer { source: source.clone(), digest: Digest([n; 32]) };
        let stored = |n| StoredLayer { layer: layer(n), size: 4096, content: Digest([n; 32]) };
        ImageRecord::new((0..count).map(stored).collect())
    }

    #[test]
    fn digests_are_64_digits_in_lower_case() {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip((0..).step_by(7)).for_each(|(byte, number)| *byte = number);
        let digest = Digest(bytes);
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        let text = digest.to_string();
        for bad in [&text[1..], &format!("{text}0"), &text.to_uppercase(), "", &"é".repeat(32)] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
        assert!(text.starts_with("00070e") && digest.uuid().starts_with(&[0, 7, 14]));
    }

    #[test]
    fn records_have_a_version_and_a_number_of_layers() {
        for count in [1, 128] {
            let record = record(count).unwrap();
            assert_eq!(ImageRecord::read(&record.write().unwrap()), Ok(record));
        }
        assert!(record(0).is_none() && record(129).is_none());
        let mut bytes = record(1).unwrap().write().unwrap();
        bytes[0] = 2;
        let error = ImageRecord::read(&bytes).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        let none = codec::encode(&(VERSION, Vec::<StoredLayer>::new())).unwrap();
        assert!(ImageRecord::read(&none).unwrap_err().to_string().contains("0 layers"));
        assert!(ImageRecord::read(b"abc").is_err());
    }

    #[test]
    fn a_layer_is_one_file_beneath_the_store() {
        let digest = Digest([0xab; 32]);
        let layer = ImageLayer { source: Component::new("registry.example").unwrap(), digest };
        let path = layer.path();
        assert_eq!(path, Path::new("layers/registry.example").join(format!("{digest}.erofs")));
        assert_eq!(layer.to_string(), format!("{IMAGES}/{}", path.display()));
    }
}
