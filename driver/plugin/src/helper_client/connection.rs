//! One connection to the helper: greeting, then one request at a time.
//!
//! Trusts a peer with uid 0 alone; the socket's path is configuration and could lead anywhere.
//! Whatever does not fit (a reply to another request, a malformed or truncated packet, a descriptor
//! that was not asked for) ends the connection. Nothing is ever sent to a peer that has not proved
//! who it is.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::codec;
use proto::error::Refusal;
use proto::limits;
use proto::wire::{Answer, Exec, Hello, Reply, Request, Verb, Welcome};
use tokio::time::timeout;
use tokio_seqpacket::UnixSeqpacket;

use super::packet::{self, Packet};

/// Time for connecting and greeting: systemd may have to start the helper first.
const GREETING: Duration = Duration::from_secs(5);
/// What the kernel names as the uid at the other end of a socket that is not connected.
const NO_PEER: u32 = u32::MAX;

/// Why the helper cannot be talked to. Each form has a constant text with the remedy: it is the
/// node's health description, and a changing text would make an event of every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Down {
    /// No socket file, or no process listens on it.
    Absent { socket: PathBuf },
    /// The socket is not for this process's uid.
    Denied { uid: u32 },
    /// Another account than root serves the socket.
    Impostor { uid: u32 },
    /// The helper chose a protocol version that was not offered.
    Version { reason: String },
    /// The greeting was refused, for a version that the helper does not support or for another
    /// reason.
    Greeting { reason: String },
    /// It accepts and does not answer.
    Silent,
    /// The connection broke.
    Lost,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { socket } => write!(
                f,
                "the nspawn helper is not running: nobody listens at {}; start it with: \
                 systemctl enable --now nomad-nspawn-helper.socket nomad-nspawn-helper.service",
                socket.display()
            ),
            Self::Denied { uid } => write!(
                f,
                "the nspawn helper's socket is not open to uid {uid}, which this plugin runs as; \
                 let Nomad run as root, or set SocketUser= by: \
                 systemctl edit nomad-nspawn-helper.socket"
            ),
            Self::Impostor { uid } => write!(
                f,
                "the nspawn helper's socket is served by uid {uid} and not by root; \
                 correct helper_socket in the agent's plugin block"
            ),
            Self::Version { reason } => write!(
                f,
                "the nspawn helper is of another version: {reason}; \
                 install driver and helper of the same release"
            ),
            Self::Greeting { reason } => write!(
                f,
                "the nspawn helper refused the greeting: {reason}; see: \
                 journalctl -u nomad-nspawn-helper.service"
            ),
            Self::Silent => f.write_str(
                "the nspawn helper does not answer; see: systemctl status nomad-nspawn-helper.service",
            ),
            Self::Lost => f.write_str(
                "the nspawn helper closed the connection; see: \
                 journalctl -u nomad-nspawn-helper.service",
            ),
        }
    }
}

impl Down {
    /// Why a socket cannot be connected to.
    fn of_connect_error(socket: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::Absent { socket: socket.to_owned() }
            }
            io::ErrorKind::PermissionDenied => {
                Self::Denied { uid: nix::unistd::Uid::effective().as_raw() }
            }
            _ => Self::Lost,
        }
    }
}

impl From<io::Error> for Down {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// A reply's result, and the descriptors that came with it.
type Received = (Result<Answer, Refusal>, Vec<OwnedFd>);

/// An open, greeted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixSeqpacket,
    epoch: u64,
    last_id: u64,
    sent: bool,
}

impl Connection {
    /// Connects, checks who the peer is and exchanges greetings.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn open(path: &Path) -> Result<(Self, Welcome), Down> {
        timeout(GREETING, Self::greet(path)).await.unwrap_or(Err(Down::Silent))
    }

    async fn greet(path: &Path) -> Result<(Self, Welcome), Down> {
        let socket =
            UnixSeqpacket::connect(path).await.map_err(|e| Down::of_connect_error(path, &e))?;
        match socket.peer_cred()?.uid() {
            0 => {}
            // Nobody yet: too many wait to be accepted.
            NO_PEER => return Err(Down::Silent),
            uid => return Err(Down::Impostor { uid }),
        }
        let mut connection = Self { socket, epoch: 0, last_id: 0, sent: false };
        let hello =
            Verb::Hello(Hello { oldest: limits::PROTOCOL_OLDEST, newest: limits::PROTOCOL_NEWEST });
        match connection.call(hello, GREETING).await? {
            Ok(Answer::Welcome(welcome)) => {
                let spoken = limits::PROTOCOL_OLDEST..=limits::PROTOCOL_NEWEST;
                if !spoken.contains(&welcome.version) {
                    let reason = format!("it chose protocol {}", welcome.version);
                    return Err(Down::Version { reason });
                }
                connection.epoch = welcome.epoch;
                Ok((connection, welcome))
            }
            Ok(_) => Err(Down::Lost),
            Err(refusal) => Err(Down::Greeting { reason: refusal.reason }),
        }
    }

    /// Sends one request and waits for its reply. After an error the connection is of no use.
    ///
    /// # Errors
    /// The connection broke, the peer sent something else, or nothing in time.
    pub(crate) async fn call(
        &mut self,
        verb: Verb,
        limit: Duration,
    ) -> Result<Result<Answer, Refusal>, Down> {
        let (result, descriptors) = self.request(verb, limit).await?;
        if descriptors.is_empty() { Ok(result) } else { Err(Down::Lost) }
    }

    /// Sends the request that executes a command, and receives its session's socket.
    ///
    /// # Errors
    /// As [`Self::call`]; also when the reply comes without exactly one descriptor.
    pub(crate) async fn call_exec(
        &mut self,
        exec: Exec,
        limit: Duration,
    ) -> Result<Result<OwnedFd, Refusal>, Down> {
        let (result, descriptors) = self.request(Verb::Exec(exec), limit).await?;
        match (result, <[OwnedFd; 1]>::try_from(descriptors)) {
            (Ok(Answer::Session), Ok([session])) => Ok(Ok(session)),
            (Err(refusal), Err(none)) if none.is_empty() => Ok(Err(refusal)),
            _ => Err(Down::Lost),
        }
    }

    async fn request(&mut self, verb: Verb, limit: Duration) -> Result<Received, Down> {
        self.last_id += 1;
        self.sent = false;
        let request = Request { epoch: self.epoch, id: self.last_id, verb };
        let packet = codec::encode(&request).map_err(|_| Down::Lost)?;
        timeout(limit, self.exchange(&packet)).await.unwrap_or(Err(Down::Silent))
    }

    /// Whether the last request left, so that the peer may have acted on it.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent
    }

    async fn exchange(&mut self, packet: &[u8]) -> Result<Received, Down> {
        let sent = self.socket.send(packet).await?;
        self.sent = true;
        let received = packet::receive::<Reply>(&self.socket).await?;
        let Packet { message: reply, descriptors } = received.ok_or(Down::Lost)?;
        let fits = sent == packet.len() && reply.id == self.last_id;
        if fits { Ok((reply.result, descriptors)) } else { Err(Down::Lost) }
    }

    /// Waits until the helper closes the connection; it never sends anything unasked.
    pub(crate) async fn wait_until_closed(&self) {
        let mut buffer = [0; 1];
        self.socket.recv(&mut buffer).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_seqpacket::UnixSeqpacketListener;

    #[tokio::test]
    async fn a_full_backlog_is_silence_and_no_impostor() {
        let path = std::env::temp_dir().join(format!("backlog-{}.sock", std::process::id()));
        std::fs::remove_file(&path).ok();
        let _nobody_accepts = UnixSeqpacketListener::bind_with_backlog(&path, 0).unwrap();
        let _first = UnixSeqpacket::connect(&path).await.unwrap();
        assert_eq!(Connection::open(&path).await.unwrap_err(), Down::Silent);
        std::fs::remove_file(&path).unwrap();
    }
}
