//! The messages of systemd-nspawn about one task: passed on to the journal under the task's unit,
//! and its errors kept while the task starts, for the task's event.
//!
//! Trusts the sender to be systemd-nspawn, whose messages may hold names of the job and of the
//! image: each is made one printable line of bounded length. A payload cannot write here; what it
//! can make systemd-nspawn report is bounded in number. Never waits for the journal, and nothing but
//! text is lost with it: without a receiver systemd-nspawn drops its messages (log.c).

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::rc::Rc;

use proto::error::printable;
use tokio::net::UnixDatagram;

use crate::process::Process;
use crate::systemd::units::names;
use crate::tasks::record::Record;
use kernel::layout::JOURNAL;

/// Most messages of one run; its end adds nothing to its beginning.
const MOST: u32 = 200;
/// Longest message that is read.
const LENGTH: usize = 8192;
/// Errors that are kept: the first is the cause, the others what came of it.
const ERRORS: usize = 4;
/// The most important priority below an error (syslog(3)).
const WARNING: u8 = 4;

/// The receiver of one run.
pub(crate) struct Messages {
    socket: UnixDatagram,
    /// Fields of every line.
    fields: String,
    errors: RefCell<Vec<String>>,
    left: Cell<u32>,
}

impl Messages {
    /// Takes messages until systemd-nspawn ends.
    pub(crate) fn listen(socket: OwnedFd, record: &Record, main: Process) -> io::Result<Rc<Self>> {
        let socket = net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        let mut fields = format!(
            "SYSLOG_IDENTIFIER=systemd-nspawn\nOBJECT_SYSTEMD_UNIT={}\n",
            names::task(record.unit())
        );
        for field in record.fields() {
            fields.push_str(&String::from_utf8_lossy(&field));
            fields.push('\n');
        }
        let messages = Rc::new(Self {
            socket: UnixDatagram::from_std(socket)?,
            fields,
            errors: RefCell::default(),
            left: Cell::new(MOST),
        });
        let listener = messages.clone();
        tokio::task::spawn_local(async move {
            while listener.left.get() > 0 {
                tokio::select! {
                    readable = listener.socket.readable() => if readable.is_err() { break },
                    _ = main.await_end() => break,
                }
                listener.drain();
            }
            listener.drain();
        });
        Ok(messages)
    }

    /// The errors so far, in one line; empty when there are none.
    pub(crate) fn errors(&self) -> String {
        self.drain();
        self.errors.borrow().join("; ")
    }

    /// Takes what waits: systemd-nspawn has written it before it ended.
    fn drain(&self) {
        let mut message = vec![0; LENGTH];
        while self.left.get() > 0
            && let Ok(length) = self.socket.try_recv(&mut message)
        {
            self.left.set(self.left.get() - 1);
            self.take(&String::from_utf8_lossy(message.get(..length).unwrap_or_default()));
        }
    }

    fn take(&self, message: &str) {
        let Some((text, priority)) = parse(message) else { return };
        if priority < WARNING && self.errors.borrow().len() < ERRORS {
            self.errors.borrow_mut().push(text.clone());
        }
        let line = format!("PRIORITY={priority}\n{}MESSAGE={text}\n", self.fields);
        if let Err(error) = self.socket.try_send_to(line.as_bytes(), JOURNAL) {
            tracing::warn!(%error, text, "a message of systemd-nspawn is not in the journal");
        }
    }
}

/// Text and priority of a message in the journal's own form (systemd's "Native Journal Protocol").
fn parse(message: &str) -> Option<(String, u8)> {
    let field = |name| message.lines().find_map(|line| line.strip_prefix(name));
    let priority = field("PRIORITY=").and_then(|number| number.parse().ok());
    Some((printable(field("MESSAGE=")?), priority.filter(|number| *number < 8).unwrap_or(WARNING)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_printable_line_with_its_priority() {
        let whole = "PRIORITY=3\nCODE_FILE=a.c\nMESSAGE=Failed to x\u{1b}[1m: No such file\n";
        assert_eq!(parse(whole), Some(("Failed to x [1m: No such file".to_owned(), 3)));
        assert_eq!(parse("PRIORITY=99\nMESSAGE=a\n"), Some(("a".to_owned(), WARNING)));
        assert_eq!(parse("PRIORITY=3\n"), None);
        let long = parse(&format!("MESSAGE={}", "x".repeat(8000))).unwrap();
        assert!(long.0.len() <= proto::limits::TEXT_MAX);
    }
}
