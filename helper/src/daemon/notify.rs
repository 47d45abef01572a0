//! What we tell PID 1 about ourselves (sd_notify(3)): ready, alive, and descriptors to keep.
//!
//! The descriptor store is the daemon's only memory: pidfds of payloads (their exit status can be
//! read after they are reaped) and the locks of uid ranges survive our death there.

use std::env;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};

fn send(text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let path = env::var_os("NOTIFY_SOCKET");
    let path = path.ok_or_else(|| io::Error::other("NOTIFY_SOCKET is not set"))?;
    let path = path.into_encoded_bytes();
    let address = match path.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(path.as_slice())?,
    };
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    let (text, flags) = ([IoSlice::new(text.as_bytes())], MsgFlags::MSG_NOSIGNAL);
    sendmsg(socket.as_raw_fd(), &text, rights.as_slice(), flags, Some(&address))?;
    Ok(())
}

/// Start-up is done.
pub(super) fn ready() {
    if let Err(error) = send("READY=1\nSTATUS=Serving tasks.", None) {
        tracing::warn!(%error, "cannot report readiness to systemd");
    }
}

/// Puts a descriptor into the store. It stays there until [`forget`], also when it polls readable.
pub(super) fn store(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(fd))
}

/// Takes all descriptors of a name out of the store.
pub(super) fn forget(name: &str) {
    if let Err(error) = send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None) {
        tracing::warn!(%error, name, "cannot take a descriptor out of the store");
    }
}

/// Tells PID 1 at half the watchdog's time that the loop still turns.
pub(super) async fn watchdog() {
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
