//! Files of the host's /etc that tasks get copies of. Everybody may read them; they are read again at each
//! start. Trusts their content as little as the job's: the helper bounds it again.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use proto::limits::ETC_FILE_MAX;
use proto::task_spec::resolver::{EtcFile, ImageLink};

use crate::config::Problem;

/// How files of the host are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFiles {
    /// The content of a file; an error without kind says itself what is wrong.
    pub(crate) read: fn(&str) -> io::Result<Vec<u8>>,
    /// Where a symbolic link leads to.
    pub(crate) link: fn(&str) -> io::Result<PathBuf>,
}

impl HostFiles {
    /// Those of this host.
    pub(crate) const REAL: Self = Self { read, link: |path| std::fs::read_link(path) };

    /// The file's content for the task; a file that cannot be read is a problem of the key. `hint`: what
    /// it means that the file is missing.
    pub(super) fn copy(
        &self,
        key: &str,
        (path, hint): (&str, &str),
        remedy: &str,
        link: ImageLink,
        problems: &mut Vec<Problem>,
    ) -> EtcFile {
        let rule = match (self.read)(path) {
            Ok(content) => return put(content, link),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                format!("{path} is not a file on this host ({hint})")
            }
            // The plugin's own sandbox knows where the link led when the plugin started.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => format!(
                "{path} of the host cannot be read by the plugin: it leads elsewhere than when the \
                 plugin started (restart the Nomad agent), or not everybody may read it"
            ),
            Err(e) => format!("{path} of the host: {e}"),
        };
        problems.push(Problem::new(key, rule).remedy(remedy));
        EtcFile::Keep
    }
}

/// A regular file, as long as the helper takes one.
fn read(path: &str) -> io::Result<Vec<u8>> {
    // Opened only then: a FIFO would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut content = Vec::new();
    let most = u64::try_from(ETC_FILE_MAX).unwrap_or(u64::MAX);
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() > ETC_FILE_MAX {
        return Err(io::Error::other(format!("is longer than {ETC_FILE_MAX} bytes")));
    }
    Ok(content)
}

/// A file of the task's own; what is seen through a link of the image is read-only, as a bind is.
pub(super) fn put(content: Vec<u8>, link: ImageLink) -> EtcFile {
    EtcFile::Put { content, link, read_only: link == ImageLink::Follow }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        assert_eq!(read("/dev/zero").unwrap_err().kind(), io::ErrorKind::NotFound);
        let path = std::env::temp_dir().join(format!("names-{}", std::process::id()));
        let path = path.to_str().unwrap();
        std::fs::write(path, vec![0; ETC_FILE_MAX]).unwrap();
        assert_eq!(read(path).unwrap().len(), ETC_FILE_MAX);
        std::fs::write(path, vec![0; ETC_FILE_MAX + 1]).unwrap();
        assert!(read(path).unwrap_err().to_string().contains("longer"));
        std::fs::remove_file(path).unwrap();
    }
}
