//! A raw client of the helper's socket: any bytes, any descriptors, any account.
//!
//! For the tests that attack the helper. It connects from outside the instance through the socket's
//! inode, by a thread that has taken on the wanted account, so that the helper sees that account as
//! its peer. It keeps to no order of the protocol by itself, and it trusts no answer.

mod handmade;
mod session;

pub use handmade::Handmade;
pub use session::{Executed, Session, command};

use crate::Rig;
use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    socket,
};
use proto::error::Refusal;
use proto::task_spec::TaskSpec;
use proto::wire::{Answer, Hello, Reply, Request, Start, Verb, Welcome};
use proto::{codec, limits, parts};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The socket's path inside an instance.
pub const SOCKET: &str = "/run/nomad-nspawn/helper.sock";
/// No answer takes longer than this.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The helper's socket, seen from outside the instance.
#[derive(Debug)]
pub struct Door {
    inode: File,
    owner: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    epoch: Cell<u64>,
    last: Cell<u64>,
}

/// What came back.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, in tests")]
pub enum Heard {
    /// A reply that decodes.
    Reply(Reply),
    /// The helper has ended the connection.
    Closed,
    /// Nothing within the time.
    Silence,
}

/// Runs `action` in a thread that has no other identity than `uid`, and no capability.
///
/// # Errors
/// When the caller may not change its account.
pub fn as_uid<T: Send>(uid: u32, action: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || -> Result<T> {
            // The kernel's calls change one thread alone, the C library's would change them all.
            set_thread_groups(&[])?;
            let gid = Gid::from_raw(uid);
            set_thread_res_gid(gid, gid, gid)?;
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid)?;
            Ok(action())
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread of another account panicked"))?
    })
}

impl Door {
    /// Finds the socket of an instance.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(rig: &Rig) -> Result<Self> {
        let inode = rig.open(SOCKET, OFlag::O_PATH, 0)?;
        let owner = inode.metadata()?.uid();
        Ok(Self { inode, owner })
    }

    /// The account that owns the socket.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Connects as the account that the calling thread has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect_here(&self) -> io::Result<Client> {
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        // The link names the inode: its path inside need not be walked.
        let path = format!("/proc/self/fd/{}", self.inode.as_raw_fd());
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
        Ok(Client { socket, epoch: Cell::new(0), last: Cell::new(0) })
    }

    /// Connects as any account.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect_as(&self, uid: u32) -> Result<Client> {
        Ok(as_uid(uid, || self.connect_here())??)
    }

    /// Connects as the account that owns the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self) -> Result<Client> {
        self.connect_as(self.owner)
    }

    /// Connects as the owner and greets.
    ///
    /// # Errors
    /// When the helper does not welcome us.
    pub fn enter(&self) -> Result<Client> {
        let client = self.connect()?;
        client.greet()?;
        Ok(client)
    }
}

impl Client {
    /// Sends one packet of any content.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_with(bytes, &[])
    }

    /// Sends one packet with descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send_with(&self, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[] } else { rights.as_slice() };
        let data = [IoSlice::new(bytes)];
        sendmsg::<()>(self.socket.as_raw_fd(), &data, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// When the packet is no reply of the helper.
    pub fn hear(&self, limit: Duration) -> Result<Heard> {
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, limit)? == 0 {
            return Ok(Heard::Silence);
        }
        let mut buffer = vec![0; limits::MESSAGE_MAX + 1];
        let length = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET) => return Ok(Heard::Closed),
            other => other?,
        };
        let message = buffer.get(..length).unwrap_or_default();
        Ok(Heard::Reply(codec::decode(message).context("not a reply")?))
    }

    /// Bytes of replies that lie unread in the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unread(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.socket)?)
    }

    /// Whether the helper ends the connection within the time; reads nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hangs_up(&self, limit: Duration) -> Result<bool> {
        let mut ended = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        Ok(poll(&mut ended, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))? == 1)
    }

    /// The next request's bytes, with this connection's epoch.
    ///
    /// # Errors
    /// When it is too long for a packet.
    pub fn request(&self, verb: Verb) -> Result<Vec<u8>> {
        self.last.set(self.last.get() + 1);
        let epoch = if matches!(verb, Verb::Hello(_)) { 0 } else { self.epoch.get() };
        Ok(codec::encode(&Request { epoch, id: self.last.get(), verb })?)
    }

    /// One well-formed request and its reply.
    ///
    /// # Errors
    /// When no reply comes, or another's.
    pub fn ask(&self, verb: Verb) -> Result<Result<Answer, Refusal>> {
        self.send(&self.request(verb)?)?;
        match self.hear(LIMIT)? {
            Heard::Reply(reply) if reply.id == self.last.get() => Ok(reply.result),
            other => bail!("no reply to request {}: {other:?}", self.last.get()),
        }
    }

    /// Greets the helper; later requests carry its epoch.
    ///
    /// # Errors
    /// When it does not welcome us.
    pub fn greet(&self) -> Result<Welcome> {
        let hello = Hello { oldest: limits::PROTOCOL_OLDEST, newest: limits::PROTOCOL_NEWEST };
        match self.ask(Verb::Hello(hello))? {
            Ok(Answer::Welcome(welcome)) => {
                self.epoch.set(welcome.epoch);
                Ok(welcome)
            }
            other => bail!("not welcome: {other:?}"),
        }
    }

    /// Makes later requests carry this epoch.
    pub fn pretend_epoch(&self, epoch: u64) {
        self.epoch.set(epoch);
    }

    /// The epoch that requests carry.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Sends the bytes of a specification in parts, then asks for the start.
    ///
    /// # Errors
    /// When no reply comes.
    pub fn start_bytes(&self, whole: &[u8]) -> Result<Result<Answer, Refusal>> {
        for part in parts::split(whole)? {
            match self.ask(Verb::Part(part))? {
                Ok(Answer::Taken) => {}
                other => return Ok(other),
            }
        }
        self.ask(Verb::Start(Start { length: u32::try_from(whole.len())? }))
    }

    /// Asks for the start of a well-formed specification.
    ///
    /// # Errors
    /// When it is too large to be encoded or no reply comes.
    pub fn start(&self, spec: &TaskSpec) -> Result<Result<Answer, Refusal>> {
        self.start_bytes(&codec::encode_whole(spec)?)
    }
}
