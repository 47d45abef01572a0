//! One command in a task that runs, asked for over the helper's socket as a driver does it.

use super::{Client, Heard, LIMIT};
use anyhow::{Context as _, Result, bail};
use kernel::syscalls::take_passed_fd;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use proto::error::Refusal;
use proto::exec::{ExecSpec, SessionReport};
use proto::name::{TaskKey, VariableName};
use proto::secret::Secret;
use proto::task_spec::Variable;
use proto::wire::{Answer, Exec, Reply, Verb};
use proto::{codec, limits, parts};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A session.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    /// The driver's ends, once they have come.
    pub streams: Vec<File>,
}

/// How a command ended, and what it wrote; all in the first one when it has a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
}

/// A command with a usual environment, without terminal.
///
/// # Panics
/// Never: the names are constants.
#[must_use]
#[allow(clippy::unwrap_used, reason = "constants")]
pub fn command(key: &TaskKey, words: &[&str]) -> ExecSpec {
    let variable = |name: &str, value: &str| Variable {
        name: VariableName::new(name).unwrap(),
        value: Secret::new(value),
    };
    ExecSpec {
        key: key.clone(),
        words: words.iter().copied().map(Secret::new).collect(),
        environment: vec![variable("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), variable("A", "b c")],
        directory: None,
        user: None,
        terminal: None,
    }
}

/// One packet and its descriptors; `None` at the end of the connection.
fn receive(socket: &OwnedFd, limit: Duration) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))? == 0 {
        bail!("nothing came within {limit:?}");
    }
    let mut buffer = vec![0; limits::MESSAGE_MAX + 1];
    let mut into = [std::io::IoSliceMut::new(&mut buffer)];
    let mut space = cmsg_space!([RawFd; 8]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = match recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags) {
        Err(Errno::ECONNRESET) => return Ok(None),
        other => other?,
    };
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(all) = message {
            // The kernel has just made them for this process.
            fds.extend(all.into_iter().map(take_passed_fd));
        }
    }
    let length = received.bytes;
    buffer.truncate(length);
    Ok((length > 0).then_some((buffer, fds)))
}

impl Client {
    /// Sends the bytes of a specification in parts, then asks for the command.
    ///
    /// # Errors
    /// When no reply comes, or one without a session.
    pub fn exec_bytes(&self, whole: &[u8]) -> Result<Result<Session, Refusal>> {
        for part in parts::split(whole)? {
            match self.ask(Verb::Part(part))? {
                Ok(Answer::Taken) => {}
                Err(refusal) => return Ok(Err(refusal)),
                Ok(other) => bail!("{other:?}"),
            }
        }
        self.send(&self.request(Verb::Exec(Exec { length: u32::try_from(whole.len())? }))?)?;
        let (bytes, mut fds) = receive(&self.socket, LIMIT)?.context("connection closed")?;
        let reply: Reply = codec::decode(&bytes)?;
        match reply.result {
            Ok(Answer::Session) => {
                let socket = fds.pop().filter(|_| fds.is_empty()).context("one descriptor")?;
                Ok(Ok(Session { socket, streams: Vec::new() }))
            }
            Err(refusal) if fds.is_empty() => Ok(Err(refusal)),
            other => bail!("{other:?} with {} descriptors", fds.len()),
        }
    }

    /// Asks for a command.
    ///
    /// # Errors
    /// As [`Self::exec_bytes`].
    pub fn exec(&self, spec: &ExecSpec) -> Result<Result<Session, Refusal>> {
        self.exec_bytes(&codec::encode_whole(spec)?)
    }

    /// Whether the connection has ended.
    ///
    /// # Errors
    /// When a packet is no reply.
    pub fn is_closed(&self) -> Result<bool> {
        Ok(matches!(self.hear(Duration::from_secs(5))?, Heard::Closed))
    }
}

impl Session {
    /// The next report; `None` when the worker was killed.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn next_report(&mut self) -> Result<Option<SessionReport>> {
        let Some((bytes, fds)) = receive(&self.socket, LIMIT)? else { return Ok(None) };
        let report = codec::decode(&bytes)?;
        self.streams.extend(fds.into_iter().map(File::from));
        Ok(Some(report))
    }

    /// Waits until the command runs.
    ///
    /// # Errors
    /// Why it does not.
    pub fn started(&mut self) -> Result<Result<(), Refusal>> {
        loop {
            match self.next_report()? {
                Some(SessionReport::Streams) => {}
                Some(SessionReport::Started) => return Ok(Ok(())),
                Some(SessionReport::Failed(refusal)) => return Ok(Err(refusal)),
                other => bail!("{other:?}"),
            }
        }
    }

    /// Writes to standard input, or to the terminal.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.streams.first_mut().context("streams")?.write_all(text.as_bytes())?)
    }

    /// Closes standard input.
    pub fn close_input(&mut self) {
        if self.streams.len() == 3 {
            drop(self.streams.remove(0));
        }
    }

    /// Reads to the command's end.
    ///
    /// # Errors
    /// When it does not end in time, or was not executed.
    pub fn finish(mut self) -> Result<Executed> {
        let is_terminal = self.streams.len() == 1;
        let mut output = vec![Vec::new(); if is_terminal { 1 } else { 2 }];
        let begun = Instant::now();
        let mut code = None;
        while code.is_none() {
            if begun.elapsed() > LIMIT {
                bail!("the command does not end");
            }
            self.drain(&mut output)?;
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, 5_u16)? == 0 {
                continue;
            }
            match self.next_report()? {
                Some(SessionReport::Exited { code: ended }) => code = Some(ended),
                None => bail!("the worker was killed"),
                Some(other) => bail!("{other:?}"),
            }
        }
        self.drain(&mut output)?;
        let mut output = output.into_iter();
        let mut text = || String::from_utf8_lossy(&output.next().unwrap_or_default()).into_owned();
        Ok(Executed { stdout: text(), stderr: text(), code: code.unwrap_or_default() })
    }

    /// Takes what lies in the streams.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drain(&mut self, output: &mut [Vec<u8>]) -> Result<()> {
        let skip = self.streams.len() - output.len();
        for (stream, into) in self.streams.iter_mut().skip(skip).zip(output) {
            loop {
                let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, 0_u16)? == 0 {
                    break;
                }
                let mut some = [0; 65_536];
                match stream.read(&mut some) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => into.extend_from_slice(some.get(..length).unwrap_or_default()),
                }
            }
        }
        Ok(())
    }

    /// Whether the worker ends the session within the time; reads nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hangs_up(&self, limit: Duration) -> Result<bool> {
        let mut ended = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        Ok(poll(&mut ended, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))? == 1)
    }
}
