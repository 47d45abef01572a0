//! The daemon's end of the socket to a launcher.
//!
//! Trusts the launcher, which is ours and root. Never waits for one without a bound of its caller.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proto::error::Refusal;
use proto::parts;
use proto::plan::{FilterSource, Order, Plan, Report};
use proto::step::Step;
use proto::{codec, limits};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::OwnedAncillaryMessage;

/// Time for a message that has been sent before the payload could run.
const STREAMS: Duration = Duration::from_secs(1);

/// What a launcher has prepared.
pub(crate) struct Prepared {
    /// Remarks for the journal and the task's events.
    pub(crate) notes: Vec<String>,
    /// Where systemd-nspawn's messages arrive, if it is given a socket for them.
    pub(crate) messages: Option<OwnedFd>,
    /// Where the system call filters come from.
    pub(crate) filters: FilterSource,
    /// Whether the cache lacks them.
    pub(crate) lacks_filters: bool,
    /// For a payload that is held back until its network is complete: a pipe that ends with the
    /// process which connects it.
    pub(crate) connector: Option<OwnedFd>,
}

/// The socket to one launcher.
pub(crate) struct Launcher {
    socket: UnixSeqpacket,
    /// Writers of the log FIFOs that came before they were asked for.
    writers: RefCell<Option<[OwnedFd; 2]>>,
}

impl Launcher {
    /// Makes the pair; the second end is for the unit's standard input.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // The launcher reads blocking; the flag belongs to each end alone.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let socket = UnixSeqpacket::try_from(ours)?;
        Ok((Self { socket, writers: RefCell::default() }, theirs))
    }

    async fn send(&self, order: &Order) -> Result<(), String> {
        let bytes = codec::encode(order).map_err(|e| e.to_string())?;
        self.socket.send(&bytes).await.map(drop).map_err(|e| e.to_string())
    }

    async fn send_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        let failed = |reason: String| Refusal::failed(Step::SendPlan.name(), "launcher", reason);
        let whole = codec::encode_whole(plan).map_err(|e| failed(e.to_string()))?;
        let length = u32::try_from(whole.len()).map_err(|e| failed(e.to_string()))?;
        for part in parts::split(&whole).map_err(|e| failed(e.to_string()))? {
            self.send(&Order::Part(part)).await.map_err(failed)?;
        }
        self.send(&Order::Prepare { length }).await.map_err(failed)
    }

    /// Lets it execute systemd-nspawn.
    pub(crate) async fn go(&self) -> Result<(), Refusal> {
        let sent = self.send(&Order::Go).await;
        sent.map_err(|reason| Refusal::failed(Step::Go.name(), "launcher", reason))
    }

    /// Sends the plan ahead, where it waits for the launcher, and receives the first report: the
    /// launcher's pid.
    pub(crate) async fn begin(&self, plan: &Plan) -> Result<u32, Refusal> {
        self.send_plan(plan).await?;
        match self.receive().await? {
            (Report::Begun { pid }, _) => Ok(pid),
            _ => Err(unexpected()),
        }
    }

    /// Receives the report that everything is prepared.
    pub(crate) async fn receive_prepared(&self) -> Result<Prepared, Refusal> {
        match self.receive().await? {
            (Report::Prepared { notes, held_back, filters, lacks_filters }, fds) => {
                let mut fds = fds.into_iter();
                let (messages, connector) = (fds.next(), fds.next());
                if held_back != connector.is_some() {
                    return Err(unexpected());
                }
                Ok(Prepared { notes, messages, connector, filters, lacks_filters })
            }
            _ => Err(unexpected()),
        }
    }

    /// Waits until the payload's network is complete, for a payload that is held back until then.
    pub(crate) async fn await_connected(&self) -> Result<(), Refusal> {
        loop {
            match self.receive().await? {
                (Report::Streams, fds) => *self.writers.borrow_mut() = fds.try_into().ok(),
                (Report::Connected, _) => return Ok(()),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Writers of the log FIFOs of a payload that runs. Without them it runs as well.
    pub(crate) async fn receive_writers(&self) -> Option<[OwnedFd; 2]> {
        if let Some(writers) = self.writers.take() {
            return Some(writers);
        }
        let received = tokio::time::timeout(STREAMS, self.receive()).await;
        match received {
            Ok(Ok((Report::Streams, fds))) => fds.try_into().ok(),
            _ => None,
        }
    }

    /// The next report, unless it is a failure, and the descriptors that came with it.
    async fn receive(&self) -> Result<(Report, Vec<OwnedFd>), Refusal> {
        let failed = |reason: String| Refusal::failed(Step::ReadPlan.name(), "launcher", reason);
        let (mut buffer, mut room) = (vec![0; limits::MESSAGE_MAX], [0; 64]);
        let received = self.socket.recv_with_ancillary(&mut buffer, &mut room).await;
        let (info, ancillary) = received.map_err(|e| failed(e.to_string()))?;
        let fds = ancillary.into_messages().filter_map(|message| match message {
            OwnedAncillaryMessage::FileDescriptors(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        let message = buffer.get(..info.bytes_read()).unwrap_or_default();
        if message.is_empty() {
            return Err(failed("ended without a word".to_owned()));
        }
        match codec::decode(message).map_err(|e| failed(e.to_string()))? {
            Report::Failed(refusal) => Err(refusal),
            report => Ok((report, fds)),
        }
    }
}

fn unexpected() -> Refusal {
    Refusal::failed(Step::ReadPlan.name(), "launcher", "reports out of order")
}
