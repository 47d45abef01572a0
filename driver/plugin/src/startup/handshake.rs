//! go-plugin's start: the cookie, the variables of the handshake, and the one line on standard
//! output.
//!
//! Trusts the agent that set the variables; takes nothing else from the environment. Never writes
//! anything but the line to standard output: the agent reads its first line as the handshake.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Nomad's cookie variable and value: proof of being started by an agent, no secret.
const COOKIE: (&str, &str) = (
    "NOMAD_PLUGIN_MAGIC_COOKIE",
    "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255",
);

/// Version of Nomad's plugin protocol that this driver implements.
const PROTOCOL: &str = "2";

/// What the agent's environment asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// PLUGIN_UNIX_SOCKET_DIR: directory for the socket.
    pub(crate) socket_dir: Option<PathBuf>,
    /// PLUGIN_UNIX_SOCKET_GROUP: group that may connect, by name or number.
    pub(crate) socket_group: Option<String>,
    /// Directory for temporary files, for an agent that is not root.
    pub(crate) temporary: PathBuf,
}

/// Reads the variables of the handshake through `variable`.
///
/// # Errors
/// A message for the person who started the program by hand, or an agent of another protocol.
pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Request, String> {
    if variable(COOKIE.0).is_none_or(|value| value != COOKIE.1) {
        return Err(format!(
            "nomad-driver-nspawn {} is a plugin of the Nomad agent and is not run by hand. \
             Install it as \"nspawn\" in the agent's plugin_dir and add a block \
             plugin \"nspawn\" {{}} to the agent's configuration.",
            env!("CARGO_PKG_VERSION")
        ));
    }
    // Absent in go-plugin hosts that negotiate nothing.
    if let Some(versions) = variable("PLUGIN_PROTOCOL_VERSIONS") {
        let versions = versions.to_string_lossy();
        if !versions.split(',').any(|v| v.trim() == PROTOCOL) {
            return Err(format!(
                "the agent offers the plugin protocol versions {versions}; this driver speaks \
                 version {PROTOCOL}"
            ));
        }
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    Ok(Request {
        socket_dir: set("PLUGIN_UNIX_SOCKET_DIR").map(PathBuf::from),
        socket_group: set("PLUGIN_UNIX_SOCKET_GROUP")
            .map(|group| group.to_string_lossy().into_owned()),
        temporary: set("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
    })
}

/// The handshake line for a socket that already accepts.
pub(crate) fn line(socket: &Path) -> String {
    format!("1|{PROTOCOL}|unix|{}|grpc|\n", socket.display())
}

/// Prints the line and flushes it.
///
/// # Errors
/// Standard output has no reader: the agent has exited.
pub(crate) fn announce(socket: &Path) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line(socket).as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Request, String> {
        read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cookie_is_demanded() {
        assert!(with(&[]).unwrap_err().contains("not run by hand"));
        assert!(with(&[(COOKIE.0, "x")]).is_err());
        assert!(with(&[COOKIE]).is_ok());
    }

    #[test]
    fn version_two_must_be_offered() {
        let offer = |versions| with(&[COOKIE, ("PLUGIN_PROTOCOL_VERSIONS", versions)]);
        assert!(offer("2").is_ok());
        assert!(offer("1,2").is_ok());
        assert!(offer("1,3").unwrap_err().contains("1,3"));
        assert!(offer("12").is_err());
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let request = with(&[COOKIE, ("PLUGIN_UNIX_SOCKET_DIR", "")]).unwrap();
        assert_eq!(request.socket_dir, None);
        let request = with(&[COOKIE, ("PLUGIN_UNIX_SOCKET_DIR", "/x")]).unwrap();
        assert_eq!(request.socket_dir, Some(PathBuf::from("/x")));
    }

    #[test]
    fn the_line_has_six_fields() {
        let line = line(Path::new("/run/a/plugin.sock"));
        assert_eq!(line, "1|2|unix|/run/a/plugin.sock|grpc|\n");
        assert_eq!(line.trim().split('|').count(), 6);
    }
}
