//! The socket: who may come in, and one connection's loop.
//!
//! The peer must be the account that owns the socket file, and not root: a plugin that connected
//! before it dropped its rights would be seen as root indefinitely. Anything unexpected closes the
//! connection: descriptors, an empty or cut message, bytes that do not decode, a second request
//! before the reply to the first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, recv};
use proto::error::Code;
use proto::wire::{Reply, Request};
use proto::{codec, limits};
use tokio::time::{timeout, timeout_at};
use tokio_seqpacket::ancillary::AncillaryMessageWriter;
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::context::Context;
use crate::socket::audit::{self, Peer};
use crate::socket::session::Session;

/// Longest time for a reply to be taken by the peer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The listening socket.
pub(crate) struct Door {
    listener: UnixSeqpacketListener,
    owner: u32,
}

impl Door {
    /// Takes the passed socket.
    pub(crate) fn new(socket: OwnedFd) -> Result<Self, String> {
        let describe = |e: io::Error| format!("driver socket: {e}");
        // systemd passes it blocking unless the unit sets NonBlocking=yes.
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| describe(e.into()))?;
        let listener = UnixSeqpacketListener::try_from(socket).map_err(describe)?;
        let path = listener.local_addr().map_err(describe)?;
        let owner = std::fs::symlink_metadata(&path).map_err(describe)?.uid();
        if owner == 0 {
            return Err(format!(
                "{} belongs to root: SocketUser= must name the plugin's account",
                path.display()
            ));
        }
        Ok(Self { listener, owner })
    }

    /// Accepts connections until the process ends.
    pub(crate) async fn serve(mut self, context: Rc<Context>) -> Result<(), String> {
        // A copy for each connection counts them.
        let open = Rc::new(());
        loop {
            let connection = match self.listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of descriptors or memory: others may free some.
                    tracing::error!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(credentials) = connection.peer_cred() else { continue };
            let peer = Peer { uid: credentials.uid(), pid: credentials.pid().unwrap_or(0) };
            if peer.uid != self.owner {
                audit::log_closed(peer, "not the plugin's account");
            } else if Rc::strong_count(&open) > limits::CONNECTIONS_MAX {
                audit::log_closed(peer, "32 connections are open");
            } else {
                let (counted, context) = (open.clone(), context.clone());
                tokio::task::spawn_local(async move {
                    if let Err(why) = converse(&connection, peer, context).await {
                        audit::log_closed(peer, &why);
                    }
                    drop(counted);
                });
            }
        }
    }
}

/// One connection until its end; the error is why we ended it.
async fn converse(
    connection: &UnixSeqpacket,
    peer: Peer,
    context: Rc<Context>,
) -> Result<(), String> {
    let mut session = Session::new(context, peer);
    while let Some(request) = receive(connection, &session).await? {
        let (result, task) = session.answer(&request).await;
        audit::log_decision(peer, &request, &task, result.as_ref().err());
        if has_more(connection)? {
            return Err("a request before the reply to the last".to_owned());
        }
        let fatal = matches!(&result, Err(refusal) if refusal.code == Code::Protocol);
        let reply = Reply { id: request.id, result };
        let bytes = codec::encode(&reply).map_err(|e| e.to_string())?;
        let descriptor = session.descriptor.take();
        match timeout(SEND_TIMEOUT, send(connection, &bytes, descriptor)).await {
            Ok(Ok(_)) => {}
            // It went away while it was being served: its business.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err("it does not take its reply".to_owned()),
        }
        if fatal {
            return Err("protocol error".to_owned());
        }
    }
    Ok(())
}

/// Sends a reply, and the descriptor that goes with it.
async fn send(
    connection: &UnixSeqpacket,
    bytes: &[u8],
    descriptor: Option<OwnedFd>,
) -> io::Result<usize> {
    let mut room = [0; 32];
    let mut with = AncillaryMessageWriter::new(&mut room);
    with.add_fds(descriptor.iter().map(AsFd::as_fd)).map_err(io::Error::other)?;
    connection.send_with_ancillary(bytes, &mut with).await
}

/// The next request; `None` at the end of the connection.
async fn receive(connection: &UnixSeqpacket, session: &Session) -> Result<Option<Request>, String> {
    let next = async {
        drop(connection.as_async_fd().readable().await?);
        // Only now: connections idle most of the time. One byte more than allowed, so that a longer
        // message is seen as such.
        let mut buffer = vec![0; limits::MESSAGE_MAX + 1];
        connection.recv(&mut buffer).await.map(|info| (info, buffer))
    };
    let received = match session.deadline {
        Some(deadline) => timeout_at(deadline, next)
            .await
            .map_err(|_| "no greeting, or a specification begun and not finished".to_owned())?,
        None => next.await,
    };
    // A peer that dies with unread replies causes a reset.
    let Ok((info, buffer)) = received else { return Ok(None) };
    if info.ancillary_truncated() {
        // No room is offered for descriptors, so the kernel has dropped them.
        return Err("it sent descriptors".to_owned());
    }
    if info.bytes_read() == 0 {
        return Ok(None);
    }
    if info.truncated() || info.bytes_read() > limits::MESSAGE_MAX {
        return Err("message too long".to_owned());
    }
    let message = buffer.get(..info.bytes_read()).unwrap_or_default();
    codec::decode(message).map(Some).map_err(|error| {
        audit::count_malformed();
        error.to_string()
    })
}

/// Whether another message waits already.
fn has_more(connection: &UnixSeqpacket) -> Result<bool, String> {
    let mut byte = [0_u8; 1];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(connection.as_raw_fd(), &mut byte, flags) {
        Ok(length) => Ok(length > 0),
        Err(Errno::EAGAIN) => Ok(false),
        // The end of the connection is noticed when the reply is sent.
        Err(Errno::ECONNRESET | Errno::EPIPE) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}
