//! Netlink (netlink(7)): messages, and a socket that waits for the kernel's answer to each.
//!
//! Messages are built of numbers and names of ours. Trusts what comes from the kernel, and takes
//! nothing from another process's socket. Never waits: the kernel answers within the call that sends.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    socket,
};

/// Flags of a message (netlink(7)); each request also has NLM_F_REQUEST and NLM_F_ACK.
pub const CREATE: u16 = 0x400;
/// See [`CREATE`]: fails where the object exists.
pub const EXCLUSIVE: u16 = 0x200;
/// See [`CREATE`]: takes the place of an equal object.
pub const REPLACE: u16 = 0x100;
/// See [`CREATE`]: the answer is a list.
pub const DUMP: u16 = 0x300;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// Message types of every protocol.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of a message's own header.
const HEADER: usize = 16;
/// The kernel answers a dump in pieces of at most 32 KiB.
const RECEIVE: usize = 64 * 1024;
/// Flag of an attribute that holds others.
const NESTED: u16 = 0x8000;

/// One message, or a part of it.
#[derive(Debug, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request with the header of its family (ifinfomsg, nfgenmsg and so on).
    #[must_use]
    pub fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        Self::raw(kind, flags | REQUEST | ACK, family_header)
    }

    /// A request that the kernel does not acknowledge, as the ends of a batch.
    #[must_use]
    pub fn silent(kind: u16, family_header: &[u8]) -> Self {
        Self::raw(kind, REQUEST, family_header)
    }

    /// Chooses whether the kernel acknowledges it. In a long batch the answers would not fit in the
    /// socket's buffer; a refusal is answered always.
    #[must_use]
    pub fn with_ack(mut self, wanted: bool) -> Self {
        if let Some([low, high]) = self.0.get_mut(6..8) {
            let flags = u16::from_ne_bytes([*low, *high]);
            let flags = if wanted { flags | ACK } else { flags & !ACK };
            [*low, *high] = flags.to_ne_bytes();
        }
        self
    }

    fn raw(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and port: see [`Socket::request`].
        bytes.extend([0; 8]);
        bytes.extend(family_header);
        Self(bytes).aligned()
    }

    /// Adds an attribute.
    #[must_use]
    pub fn put(self, kind: u16, value: impl AsRef<[u8]>) -> Self {
        self.with(kind, |mut message| {
            message.0.extend(value.as_ref());
            message
        })
    }

    /// Adds the header of a family inside of an attribute that consists of others.
    #[must_use]
    pub fn put_header(mut self, header: impl AsRef<[u8]>) -> Self {
        self.0.extend(header.as_ref());
        self.aligned()
    }

    /// Adds an attribute that is a text, which ends with NUL.
    #[must_use]
    pub fn put_text(self, kind: u16, text: &str) -> Self {
        self.put(kind, [text.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that consists of others.
    #[must_use]
    pub fn nest(self, kind: u16, content: impl FnOnce(Self) -> Self) -> Self {
        self.with(kind | NESTED, content)
    }

    fn with(mut self, kind: u16, content: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut message = content(self);
        // One that is too long is refused by the kernel.
        let length = u16::try_from(message.0.len() - at).unwrap_or(u16::MAX);
        if let Some(place) = message.0.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        message.aligned()
    }

    fn aligned(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Fills in what is known when it is sent.
    fn finish(&mut self, sequence: u32) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (at, number) in [(0, length), (8, sequence)] {
            if let Some(place) = self.0.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
    }

    fn is_acknowledged(&self) -> bool {
        self.0.get(6).is_some_and(|flags| u16::from(*flags) & ACK != 0)
    }
}

/// What the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// Place of the message among those sent.
    pub message: usize,
    /// The kernel's error.
    pub error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (message {})", self.error, self.message)
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { message: 0, error: errno.into() }
    }
}

/// A netlink socket. It belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // Port 0: the kernel chooses a free one.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self::adopt(fd))
    }

    /// Takes over the socket of an earlier process. What that one did not read is skipped: its
    /// numbers are others.
    #[must_use]
    pub fn adopt(fd: OwnedFd) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let sequence = RandomState::new().hash_one(()).to_ne_bytes();
        let [a, b, c, d, ..] = sequence;
        Self { fd, sequence: u32::from_ne_bytes([a, b, c, d]) }
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends messages at once; returns when the kernel has acknowledged each.
    ///
    /// # Errors
    /// The first that it refuses. In a batch of nfnetlink none has an effect then; elsewhere those
    /// before it have.
    pub fn request(&mut self, messages: Vec<Message>) -> Result<(), Failure> {
        let count = messages.len();
        let mut missing = messages.iter().filter(|message| message.is_acknowledged()).count();
        let first = self.send(messages)?;
        while missing > 0 {
            for (kind, sequence, content) in parse(&self.receive()?) {
                let Some(message) = place(sequence, first, count) else { continue };
                if kind != ERROR {
                    continue;
                }
                match errno(content) {
                    0 => missing = missing.saturating_sub(1),
                    errno => {
                        let error = io::Error::from_raw_os_error(errno);
                        return Err(Failure { message, error });
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks for a list; `each` is called with the type and the content of each entry, which begins
    /// with the header of its family.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(
        &mut self,
        question: Message,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        let first = self.send(vec![question])?;
        loop {
            for (kind, sequence, content) in parse(&self.receive()?) {
                if place(sequence, first, 1).is_none() {
                    continue;
                }
                match kind {
                    DONE | ERROR => {
                        return match errno(content) {
                            0 => Ok(()),
                            errno => Err(Errno::from_raw(errno).into()),
                        };
                    }
                    kind => each(kind, content),
                }
            }
        }
    }

    /// Sends messages as one datagram; returns the number of the first.
    fn send(&mut self, messages: Vec<Message>) -> Result<u32, Failure> {
        let first = self.sequence;
        // May be megabytes: one copy, beside each message for a moment.
        let length = messages.iter().map(|message| message.0.len()).sum();
        let mut bytes = Vec::with_capacity(length);
        for mut message in messages {
            message.finish(self.sequence);
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend_from_slice(&message.0);
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(first)
    }

    /// The kernel's next datagram. It answers while we send: what is not there yet never comes.
    fn receive(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; RECEIVE];
        loop {
            let (length, from) = match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut bytes) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            // Processes may send to each other's netlink sockets.
            if from.is_some_and(|from| from.pid() == 0) {
                bytes.truncate(length);
                return Ok(bytes);
            }
        }
    }
}

/// Place of a message among those sent; `None` for an answer to an earlier request.
fn place(sequence: u32, first: u32, count: usize) -> Option<usize> {
    let place = usize::try_from(sequence.wrapping_sub(first)).ok()?;
    (place < count).then_some(place)
}

/// Number of the error that an answer reports; 0 for none.
fn errno(content: &[u8]) -> i32 {
    let number = content.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    number.saturating_neg()
}

/// The messages of a datagram: type, sequence number, content.
fn parse(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut messages = Vec::new();
    while let Some(&[a, b, c, d, k, l, _, _, s, t, u, v, ..]) = bytes.first_chunk::<HEADER>() {
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(0);
        let Some(content) = bytes.get(HEADER..length) else { break };
        messages.push((u16::from_ne_bytes([k, l]), u32::from_ne_bytes([s, t, u, v]), content));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// The attributes of a message's content, behind the header of its family: type without flags,
/// value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, k, l] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags.
        Some((u16::from_ne_bytes([k, l]) & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RTM_GETLINK and RTM_DELLINK (rtnetlink(7)), with IFLA_IFNAME.
    const GET_LINK: u16 = 18;
    const DELETE_LINK: u16 = 17;
    const NAME: u16 = 3;

    #[test]
    fn the_loopback_link_is_listed() {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        let mut names = Vec::new();
        for _ in 0..2 {
            names.clear();
            let question = Message::new(GET_LINK, DUMP, &[0; 16]);
            socket
                .dump(question, |_, content| {
                    let of_link = attributes(content.get(16..).unwrap_or_default());
                    names
                        .extend(of_link.filter(|(kind, _)| *kind == NAME).map(|(_, n)| n.to_vec()));
                })
                .unwrap();
        }
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
    }

    #[test]
    fn the_message_that_fails_is_named() {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        let lookup = |name: &str| Message::new(GET_LINK, 0, &[0; 16]).put_text(NAME, name);
        let missing = Message::new(DELETE_LINK, 0, &[0; 16]).put_text(NAME, "nv-missing");
        let failure = socket.request(vec![lookup("lo"), missing.clone()]).unwrap_err();
        assert_eq!((failure.message, failure.error.raw_os_error()), (1, Some(libc::ENODEV)));
        // What is left of the first is not taken for an answer to the second.
        socket.request(vec![lookup("lo")]).unwrap();
        assert_eq!(socket.request(vec![missing]).unwrap_err().message, 0);
    }

    #[test]
    fn a_refusal_is_answered_without_the_wish_for_an_acknowledgement() {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        let lookup = || Message::new(GET_LINK, 0, &[0; 16]).put_text(NAME, "lo");
        let missing = Message::new(DELETE_LINK, 0, &[0; 16]).put_text(NAME, "nv-missing");
        let sent = vec![lookup().with_ack(false), missing.with_ack(false), lookup()];
        let failure = socket.request(sent).unwrap_err();
        assert_eq!((failure.message, failure.error.raw_os_error()), (1, Some(libc::ENODEV)));
        socket.request(vec![lookup().with_ack(false), lookup()]).unwrap();
        socket.request(vec![lookup().with_ack(false).with_ack(true)]).unwrap();
    }

    #[test]
    fn attributes_are_read_back() {
        let message =
            Message::new(1, 0, &[7; 5]).put(3, [1]).nest(4, |part| part.put_text(5, "ab"));
        let mut message = message;
        message.finish(9);
        let all = parse(&message.0);
        let [(1, 9, content)] = all[..] else { panic!("{all:?}") };
        let fields: Vec<_> = attributes(content.get(8..).unwrap()).collect();
        assert_eq!(fields[0], (3, &[1][..]));
        assert_eq!(attributes(fields[1].1).collect::<Vec<_>>(), [(5, &b"ab\0"[..])]);
        assert!(attributes(&[9, 0, 1]).next().is_none());
        assert!(attributes(&[9, 0, 1, 0, 1]).next().is_none());
        assert!(attributes(&[0, 0, 0, 0]).next().is_none());
    }
}
