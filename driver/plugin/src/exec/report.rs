//! What the worker that executes a command reports on its session's socket, in a fixed order.
//!
//! Whatever does not fit that order ends the session. Nothing is ever sent: closing the socket
//! hangs the command up.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use proto::error::Refusal;
use proto::exec::SessionReport;
use tokio_seqpacket::UnixSeqpacket;

use super::stream::Stream;
use crate::error::Failure;
use crate::helper_client::packet;

/// The driver's ends of a command's streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// A terminal's master.
    Terminal(Stream),
    /// Three pipes.
    Pipes {
        /// Written.
        stdin: Stream,
        /// Read.
        stdout: Stream,
        /// Read.
        stderr: Stream,
    },
}

/// A session's socket.
#[derive(Debug)]
pub(super) struct Reports(UnixSeqpacket);

impl Reports {
    /// Takes the socket that came with the helper's reply.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Failure> {
        let take = || -> io::Result<UnixSeqpacket> {
            let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
            fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
            UnixSeqpacket::try_from(socket)
        };
        take().map(Self).map_err(|error| lost(&error.to_string()))
    }

    /// Waits for the streams.
    pub(super) async fn receive_streams(&self, is_terminal: bool) -> Result<Streams, Failure> {
        let (report, descriptors) = self.receive().await?;
        let SessionReport::Streams = report else { return Err(out_of_order(report)) };
        let streams = descriptors.into_iter().map(Stream::new).collect::<io::Result<Vec<_>>>();
        let streams = streams.map_err(|error| lost(&error.to_string()))?;
        let mut streams = streams.into_iter();
        match (is_terminal, streams.next(), streams.next(), streams.next()) {
            (true, Some(master), None, None) => Ok(Streams::Terminal(master)),
            (false, Some(stdin), Some(stdout), Some(stderr)) => {
                Ok(Streams::Pipes { stdin, stdout, stderr })
            }
            _ => Err(lost("it sent other streams than those that were asked for")),
        }
    }

    /// Waits until the command is executed.
    pub(super) async fn receive_start(&self) -> Result<(), Failure> {
        match self.receive_alone().await? {
            SessionReport::Started => Ok(()),
            other => Err(out_of_order(other)),
        }
    }

    /// Waits for the command's end: its exit code.
    pub(super) async fn receive_exit(&self) -> Result<i32, Failure> {
        match self.receive_alone().await? {
            SessionReport::Exited { code } => Ok(code),
            other => Err(out_of_order(other)),
        }
    }

    async fn receive_alone(&self) -> Result<SessionReport, Failure> {
        let (report, descriptors) = self.receive().await?;
        if descriptors.is_empty() { Ok(report) } else { Err(out_of_order(report)) }
    }

    async fn receive(&self) -> Result<(SessionReport, Vec<OwnedFd>), Failure> {
        match packet::receive(&self.0).await {
            Ok(Some(packet)) => Ok((packet.message, packet.descriptors)),
            Ok(None) => Err(lost("it was killed")),
            Err(error) => Err(lost(&error.to_string())),
        }
    }
}

fn out_of_order(report: SessionReport) -> Failure {
    match report {
        SessionReport::Failed(refusal) => refused(&refusal),
        other => lost(&format!("it reported {other:?} out of order")),
    }
}

/// Longest object of a refusal that comes before its reason; a task's key says nothing new.
const OBJECT_MAX: usize = 40;

/// As short as can be: `nomad alloc exec` shows little of it. Another try is the user's to decide, so it
/// is never recoverable in Nomad's sense.
pub(super) fn refused(refusal: &Refusal) -> Failure {
    let Refusal { object, reason, .. } = refusal;
    Failure::permanent(match object.len() {
        1..=OBJECT_MAX => format!("{object}: {reason}"),
        _ => reason.clone(),
    })
}

fn lost(why: &str) -> Failure {
    Failure::permanent(format!(
        "the command's exit code is lost with its worker ({why}); see on the node: journalctl -u \
         'nomad-nspawn-enter-*'"
    ))
}
