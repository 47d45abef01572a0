//! One packet of the helper's sockets, together with the descriptors that came with it.
//!
//! Whatever came is owned from the moment it is read: descriptors that the caller does not take are
//! closed. It never decides what a packet means.

use std::io;
use std::os::fd::OwnedFd;

use proto::codec;
use proto::limits;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::OwnedAncillaryMessage;

/// Most descriptors that a packet of the helper carries: the three streams of a command.
const DESCRIPTORS_MAX: usize = 3;

/// Room for their control message, and for one more so that too many are noticed; aligned as the
/// kernel's header is (cmsg(3)).
#[repr(align(8))]
struct Control([u8; 64]);

/// A packet, decoded.
#[derive(Debug)]
pub(crate) struct Packet<T> {
    /// The message.
    pub(crate) message: T,
    /// What came with it, in order.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Receives one packet; `None` at the end of the connection.
///
/// # Errors
/// The socket's, or `InvalidData` for a packet that is cut off, holds something else or carries
/// too many descriptors.
pub(crate) async fn receive<T: bincode::Decode<()>>(
    socket: &UnixSeqpacket,
) -> io::Result<Option<Packet<T>>> {
    // A byte more than allowed, so that a longer packet is seen to be one.
    let mut buffer = vec![0; limits::MESSAGE_MAX + 1];
    let mut control = Control([0; 64]);
    let (info, ancillary) = socket.recv_with_ancillary(&mut buffer, &mut control.0).await?;
    let mut descriptors = Vec::new();
    for message in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(list) = message {
            descriptors.extend(list);
        }
    }
    let Some(bytes) = buffer.get(..info.bytes_read()).filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let is_cut = info.truncated() || info.ancillary_truncated();
    if is_cut || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let message = codec::decode(bytes).map_err(|error| {
        tracing::warn!(%error, "the helper sent a packet that cannot be read");
        io::Error::from(io::ErrorKind::InvalidData)
    })?;
    Ok(Some(Packet { message, descriptors }))
}
