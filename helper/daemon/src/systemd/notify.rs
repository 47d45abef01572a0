//! Messages to PID 1 about ourselves (sd_notify(3)): ready, alive, and descriptors to keep.
//!
//! The descriptor store is the daemon's only memory: pidfds of payloads (their exit status can be
//! read after they are reaped) and the locks of uid ranges survive our death there.
//!
//! Never waits: a message that PID 1 does not take now is sent later, in its order. PID 1 does not
//! answer, so what fits into its store is counted here.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

/// Size of the store where $FDSTORE is not set (before systemd 254): that of the unit in example/.
const STORE_MAX: usize = 8192;
/// Messages that may wait for PID 1.
const QUEUE_MAX: usize = 1024;
/// Time between two tries to send those.
const AGAIN: Duration = Duration::from_millis(50);

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
    static STORE: RefCell<Store> = RefCell::default();
}

/// Messages that PID 1 has not taken yet.
#[derive(Default)]
struct Queue {
    address: Option<UnixAddr>,
    waiting: VecDeque<(String, Option<OwnedFd>)>,
}

impl Queue {
    fn send(&mut self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.flush();
        if self.waiting.is_empty() {
            match self.send_now(text, fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        if self.waiting.len() == QUEUE_MAX {
            return Err(io::Error::other("PID 1 takes no messages"));
        }
        let fd = fd.map(|fd| fd.try_clone_to_owned()).transpose()?;
        self.waiting.push_back((text.to_owned(), fd));
        Ok(())
    }

    /// Sends as many of the waiting messages as PID 1 takes now.
    fn flush(&mut self) {
        while let Some((text, fd)) = self.waiting.pop_front() {
            match self.send_now(&text, fd.as_ref().map(AsFd::as_fd)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.waiting.push_front((text, fd));
                }
                Err(error) => tracing::error!(%error, text, "not sent to PID 1"),
                Ok(()) => {}
            }
        }
    }

    fn send_now(&mut self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let address = match self.address {
            Some(address) => address,
            None => *self.address.insert(address()?),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let text = [IoSlice::new(text.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg(socket.as_raw_fd(), &text, rights.as_slice(), flags, Some(&address)) {
            // Too many of our descriptors lie in its queue (unix(7)).
            Err(Errno::ETOOMANYREFS | Errno::ENOBUFS) => Err(io::ErrorKind::WouldBlock.into()),
            other => Ok(other.map(drop)?),
        }
    }
}

fn address() -> io::Result<UnixAddr> {
    let path = env::var_os("NOTIFY_SOCKET");
    let path = path.ok_or_else(|| io::Error::other("NOTIFY_SOCKET is not set"))?;
    let path = path.into_encoded_bytes();
    Ok(match path.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(path.as_slice())?,
    })
}

fn send(text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    QUEUE.with_borrow_mut(|queue| queue.send(text, fd))
}

/// Sends what PID 1 did not take at once.
pub(crate) async fn flush() {
    let mut ticks = tokio::time::interval(AGAIN);
    loop {
        ticks.tick().await;
        QUEUE.with_borrow_mut(Queue::flush);
    }
}

/// What the descriptor store holds, by name.
struct Store {
    max: usize,
    names: BTreeMap<String, usize>,
}

impl Default for Store {
    fn default() -> Self {
        let max = env::var("FDSTORE").ok().and_then(|text| text.parse().ok());
        Self { max: max.unwrap_or(STORE_MAX), names: BTreeMap::new() }
    }
}

impl Store {
    /// Counts one more descriptor, if there is room for it.
    fn enter(&mut self, name: &str) -> io::Result<()> {
        if self.names.values().sum::<usize>() >= self.max {
            let max = self.max;
            let reason = format!("full: {max} descriptors (FileDescriptorStoreMax= of the unit)");
            return Err(io::Error::other(reason));
        }
        *self.names.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }
}

/// Start-up is done.
pub(crate) fn ready() {
    if let Err(error) = send("READY=1\nSTATUS=Serving tasks.", None) {
        tracing::warn!(%error, "cannot report readiness to systemd");
    }
}

/// Counts what an earlier process has stored.
pub(crate) fn adopt<'a>(names: impl Iterator<Item = &'a String>) {
    STORE.with_borrow_mut(|store| {
        for name in names {
            *store.names.entry(name.clone()).or_default() += 1;
        }
    });
}

/// Puts a descriptor into the store. It stays there until [`forget`], also when it polls readable.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    STORE.with_borrow_mut(|store| store.enter(name))?;
    send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(fd))
}

/// Takes all descriptors of a name out of the store.
pub(crate) fn forget(name: &str) {
    STORE.with_borrow_mut(|store| store.names.remove(name));
    if let Err(error) = send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None) {
        tracing::warn!(%error, name, "cannot take a descriptor out of the store");
    }
}

/// Reports to PID 1 at half the watchdog's time that the loop still turns.
pub(crate) async fn watchdog() {
    let micros = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
    let Some(micros) = micros else { return };
    let mut ticks = tokio::time::interval(Duration::from_micros(micros / 2));
    loop {
        ticks.tick().await;
        if let Err(error) = send("WATCHDOG=1", None) {
            tracing::warn!(%error, "cannot feed the watchdog");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{bind, getsockname, recv};

    /// A socket as PID 1's, which nobody reads until `recv`.
    fn deaf() -> (OwnedFd, Queue) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).unwrap();
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
        let address = getsockname::<UnixAddr>(socket.as_raw_fd()).unwrap();
        (socket, Queue { address: Some(address), waiting: VecDeque::new() })
    }

    #[test]
    fn c8_a_message_that_is_not_taken_waits_in_its_order() {
        const COUNT: usize = 900;
        let (socket, mut queue) = deaf();
        for number in 0..COUNT {
            queue.send(&number.to_string(), None).unwrap();
        }
        assert!(!queue.waiting.is_empty(), "all fit: the test shows nothing");
        let mut heard = Vec::new();
        let mut buffer = [0; 16];
        while heard.len() < COUNT {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                Err(Errno::EAGAIN) => queue.flush(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(heard, (0..COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(queue.waiting.is_empty());
    }

    #[test]
    fn c9_a_full_store_is_an_error_and_not_a_lost_exit() {
        let mut store = Store { max: 3, names: BTreeMap::new() };
        for name in ["range-1", "leader-1", "leader-1"] {
            store.enter(name).unwrap();
        }
        let error = store.enter("leader-2").unwrap_err().to_string();
        assert!(error.contains("FileDescriptorStoreMax="), "{error}");
        store.names.remove("leader-1");
        store.enter("leader-2").unwrap();
        store.enter("leader-3").unwrap();
        assert!(store.enter("leader-4").is_err());
    }
}
