//! `relay`: carries the output of one task to the host's journal and to Nomad's FIFOs.
//!
//! It runs in a unit of its own, so that it outlives the task by the moment in which the last lines
//! are handed over, and ends when the task's pipes have come to their end.
//!
//! The bytes are the payload's. They are copied and not read, with one exception: the number in
//! front of a line that the container's systemd-journald forwards picks the stream.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto::error::Refusal;
use proto::plan::{FilterSource, Plan, Report};
use proto::step::Step;
use proto::task_spec::Logs;

use super::daemon_link::{self, Orders};
use super::output::{self, NAMES};
use super::step::{At, Problem, Steps};

/// Longest line that a container's systemd-journald may forward in one piece.
const LINE_MAX: usize = 256 * 1024;

/// Runs `relay`.
pub(super) fn main() -> ExitCode {
    daemon_link::serve("relay", run)
}

fn run(orders: &Orders, plan: Plan, steps: &mut Steps) -> Result<(), Refusal> {
    let (pipes, journal, fifos, syslog) = steps.run(Step::Logs, || {
        let [stdout, stderr] = NAMES.map(|stream| open_pipe(&plan, stream));
        let syslog = match plan.logs {
            Logs::Container { priority } => Some((bind_syslog(&plan)?, priority)),
            _ => None,
        };
        let fifos = output::find_fifos(&plan, None)?;
        Ok(([stdout?, stderr?], output::journal(&plan)?, fifos, syslog))
    })?;
    steps.run(Step::Go, || {
        let (held_back, lacks_filters) = (false, false);
        let (notes, filters) = (Vec::new(), FilterSource::Missing);
        let report = Report::Prepared { notes, held_back, filters, lacks_filters };
        orders.report(&report).at("helper socket")
    })?;
    // When the helper is gone, the task has got its "go" if it writes anything.
    if steps.run(Step::Go, || orders.wait_for_go()).is_err() && !has_begun(&pipes) {
        return Ok(());
    }
    let fifos = steps.run(Step::Exec, || fifos.open(None))?;
    carry(pipes, journal, fifos, syslog);
    Ok(())
}

/// Opens a pipe whose other end the launcher has; without one this must not wait.
fn open_pipe(plan: &Plan, stream: &str) -> Result<OwnedFd, Problem> {
    let path = output::pipe(plan.unit, stream);
    let pipe = path.open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).at(&path)?;
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).at(&path)?;
    Ok(pipe)
}

/// Makes the socket that takes the place of a syslog daemon's in the container.
fn bind_syslog(plan: &Plan) -> Result<UnixDatagram, Problem> {
    let path = output::pipe(plan.unit, "syslog");
    let socket = path.bind_datagrams().at(&path)?;
    path.set_owner(Some(plan.container_root())).at(path)?;
    Ok(socket)
}

/// Waits for the task's first words; false when it ended without any.
fn has_begun(pipes: &[OwnedFd; 2]) -> bool {
    let [a, b] = pipes;
    let mut polled = [a, b].map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
    while poll(&mut polled, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    !polled.iter().all(|fd| fd.revents() == Some(PollFlags::POLLHUP))
}

/// Copies until both pipes have ended.
fn carry(
    pipes: [OwnedFd; 2],
    journal: [OwnedFd; 2],
    fifos: [OwnedFd; 2],
    syslog: Option<(UnixDatagram, u8)>,
) {
    let done = AtomicBool::new(false);
    let mut sinks = journal.map(|journal| Sinks(vec![File::from(journal)]));
    let fifos = fifos.map(File::from);
    thread::scope(|scope| {
        if let Some((socket, priority)) = &syslog {
            let [stdout, stderr] = fifos;
            scope.spawn(|| forward(socket, *priority, &done, stdout, stderr));
        } else {
            sinks.iter_mut().zip(fifos).for_each(|(sinks, fifo)| sinks.0.push(fifo));
        }
        let copies = pipes.into_iter().zip(sinks).map(|(pipe, mut sinks)| {
            scope.spawn(move || io::copy(&mut File::from(pipe), &mut sinks))
        });
        for copy in copies.collect::<Vec<_>>() {
            if let Ok(Err(error)) = copy.join() {
                eprintln!("relay: cannot read the task's output: {error}");
            }
        }
        done.store(true, Ordering::Relaxed);
        if let Some((socket, _)) = &syslog
            && let Err(error) = socket.shutdown(Shutdown::Read)
        {
            eprintln!("relay: {error}");
        }
    });
}

/// Everywhere that a stream goes. What can no longer be written to is left out, and said once.
struct Sinks(Vec<File>);

impl Write for Sinks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.retain_mut(|sink| match sink.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("relay: a stream of the task's output is lost: {error}");
                false
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what the container's systemd-journald forwards, a line each, until the task has ended.
fn forward(socket: &UnixDatagram, priority: u8, done: &AtomicBool, stdout: File, stderr: File) {
    let mut buffer = vec![0; LINE_MAX];
    let (mut stdout, mut stderr) = (Sinks(vec![stdout]), Sinks(vec![stderr]));
    loop {
        let length = match socket.recv(&mut buffer) {
            Ok(0) if done.load(Ordering::Relaxed) => return,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return eprintln!("relay: the container's journal is lost: {error}"),
        };
        let (level, text) = level(buffer.get(..length).unwrap_or_default());
        let sink = if level <= priority { &mut stderr } else { &mut stdout };
        let line = [text.trim_ascii_end(), b"\n"].concat();
        // Sinks report what they lose.
        let Ok(()) = sink.write_all(&line) else { return };
    }
}

/// The priority in front of a line of the syslog protocol (RFC 3164), and the rest; info without.
fn level(message: &[u8]) -> (u8, &[u8]) {
    let parse = || {
        let rest = message.strip_prefix(b"<")?;
        let (number, text) = rest.split_at_checked(rest.iter().position(|b| *b == b'>')?)?;
        let number: u8 = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((number % 8, text.get(1..)?))
    };
    parse().unwrap_or((6, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_whatever_is_in_front_of_it() {
        for (message, expected, text) in [
            ("<30>Nov 24 10:00:00 sshd[1]: x", 6, "Nov 24 10:00:00 sshd[1]: x"),
            ("<27>x", 3, "x"),
            ("<0>", 0, ""),
            ("<>x", 6, "<>x"),
            ("<999>x", 6, "<999>x"),
            ("<3", 6, "<3"),
            ("", 6, ""),
        ] {
            assert_eq!(level(message.as_bytes()), (expected, text.as_bytes()), "{message}");
        }
        assert_eq!(level(b"<\xff>x"), (6, &b"<\xff>x"[..]));
    }
}
