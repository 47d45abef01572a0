//! Files of /etc by which names and the time are found inside. What stands in them is the driver's to
//! choose: here and in the helper they are bytes that container root could have written as well.

use bincode::{Decode, Encode};

use crate::path::Relative;

/// How names and the time are found inside. Each content has at most
/// [`crate::limits::ETC_FILE_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Names {
    /// /etc/resolv.conf.
    pub resolver: EtcFile,
    /// Lines after those of the image's /etc/hosts; empty: the image's stays.
    pub hosts: Vec<u8>,
    /// /etc/localtime.
    pub localtime: EtcFile,
    /// Zone below /usr/share/zoneinfo: where the image has its file, /etc/localtime is a link to it.
    pub zone: Option<Relative>,
}

/// What becomes of a file in /etc.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum EtcFile {
    /// The image's stays.
    #[default]
    Keep,
    /// The image's is deleted.
    Delete,
    /// A file with this content takes its place.
    Put {
        /// The content.
        content: Vec<u8>,
        /// What becomes of a symbolic link of the image there.
        link: ImageLink,
        /// Whether the file cannot be written to.
        read_only: bool,
    },
}

impl EtcFile {
    /// The content that it brings.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        match self {
            Self::Keep | Self::Delete => &[],
            Self::Put { content, .. } => content,
        }
    }
}

/// What becomes of a symbolic link of the image in the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ImageLink {
    /// It stays, and the content does not come.
    Keep,
    /// The content is seen where it leads to.
    Follow,
    /// The content takes its place; where the image itself would change, as with [`Self::Follow`].
    Cover,
    /// The content takes its place, also where the image itself changes.
    Replace,
}
