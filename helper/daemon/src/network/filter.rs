//! The table `inet nomad_nspawn` in the kernel: made, replaced, given up, and kept up to date with
//! the tasks, each in one transaction (nfnetlink).
//!
//! The socket owns the table: no other program changes it, `nft flush ruleset` leaves it, and it
//! goes with the last copy of the socket, which PID 1 keeps while the daemon restarts. Trusts the
//! daemon's links. It touches no other table, and waits for nobody.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use kernel::netlink::{self, Message, Socket};
use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};

use super::elements::Elements;
use super::table::{self, NAME, Rules};

/// Bytes that the kernel may hold for the socket in each direction: the elements of 4,096 tasks
/// with several ports each, and the refusal of each message, which repeats it. Nothing is reserved.
const BUFFER: usize = 64 << 20;

/// Ends of a batch (linux/netfilter/nfnetlink.h), whose header names the subsystem
/// NFNL_SUBSYS_NFTABLES.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const BATCH: [u8; 4] = [0, 0, 0, 10];

/// Why the table is not as it should be. Nothing of the request has an effect then.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another program has made the table its own.
    Owned,
    /// A port of the host leads to another task.
    Taken {
        /// The host's.
        port: SocketAddr,
        /// The other task's.
        task: SocketAddr,
    },
    /// What else the kernel reports.
    Kernel(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned => write!(
                f,
                "packet filter table inet {NAME} belongs to another program, and only that one may \
                 change it: end it (`nft list table inet {NAME}` shows its name)"
            ),
            Self::Taken { port, task } => write!(
                f,
                "{port} leads to port {} of the task at {} already: choose another static port, \
                 or stop that task",
                task.port(),
                task.ip()
            ),
            Self::Kernel(error) => write!(
                f,
                "packet filter table inet {NAME}: {error}: it needs CAP_NET_ADMIN, and Linux 5.12 \
                 or newer with nf_tables (inet, nat, masq, fib, reject)"
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// The table, and the socket that owns it.
#[derive(Debug)]
pub(crate) struct PacketFilter {
    socket: Socket,
    /// What is in the table of tasks' elements.
    elements: Elements,
}

impl PacketFilter {
    /// Opens a socket of the network namespace that the thread is in. There is no table yet.
    ///
    /// # Errors
    /// The kernel's, without CAP_NET_ADMIN too.
    pub(crate) fn open() -> io::Result<Self> {
        Self::new(Socket::open(SockProtocol::NetlinkNetFilter)?)
    }

    /// Takes over the socket of an earlier process, and with it the table. Which tasks are in it
    /// shows at the first [`Self::replace`], which comes before all else.
    ///
    /// # Errors
    /// The kernel's, without CAP_NET_ADMIN too.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Self> {
        Self::new(Socket::adopt(fd))
    }

    fn new(socket: Socket) -> io::Result<Self> {
        setsockopt(&socket.fd(), sockopt::SndBufForce, &BUFFER)?;
        setsockopt(&socket.fd(), sockopt::RcvBufForce, &BUFFER)?;
        Ok(Self { socket, elements: Elements::default() })
    }

    /// The socket, for PID 1's descriptor store: the table lives as long as any copy of it.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// Replaces the table, whoever made it, by one with these rules and tasks that the socket owns.
    /// Established connections go on.
    ///
    /// # Errors
    /// The table belongs to another program, or the kernel's. The old table stays then.
    pub(crate) fn replace(
        &mut self,
        rules: &Rules,
        tasks: impl IntoIterator<Item: Into<Elements>>,
    ) -> Result<(), Failure> {
        self.make(rules, tasks, true)
    }

    /// As [`Self::replace`], and gives the table up: it stays when the socket is closed, and others
    /// may change it. For a stop at which the descriptor store goes too.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub(crate) fn release(
        &mut self,
        rules: &Rules,
        tasks: impl IntoIterator<Item: Into<Elements>>,
    ) -> Result<(), Failure> {
        self.make(rules, tasks, false)
    }

    fn make(
        &mut self,
        rules: &Rules,
        tasks: impl IntoIterator<Item: Into<Elements>>,
        owned: bool,
    ) -> Result<(), Failure> {
        let mut elements = Elements::default();
        for task in tasks {
            elements.insert(task.into());
        }
        let mut messages = table::delete().to_vec();
        messages.extend(table::create(rules, owned));
        messages.extend(elements.additions());
        self.send(messages)?;
        self.elements = elements;
        Ok(())
    }

    /// Adds a task's elements; what is there already may be there.
    ///
    /// # Errors
    /// A port leads to another task, or the kernel's.
    pub(crate) fn add(&mut self, task: impl Into<Elements>) -> Result<(), Failure> {
        let elements: Elements = task.into();
        if let Some((port, task)) = self.elements.conflict(&elements) {
            return Err(Failure::Taken { port, task });
        }
        self.send(elements.additions())?;
        self.elements.insert(elements);
        Ok(())
    }

    /// Removes a task's elements; what is not there, or belongs to another task, is left out.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn remove(&mut self, task: impl Into<Elements>) -> Result<(), Failure> {
        let elements = self.elements.shared(task.into());
        self.send(elements.removals(&self.elements))?;
        self.elements.remove(&elements);
        Ok(())
    }

    /// Sends one transaction. The last message alone is acknowledged: the kernel answers in the
    /// order of the messages, so a refusal of another comes first.
    fn send(&mut self, mut messages: Vec<Message>) -> Result<(), Failure> {
        let Some(last) = messages.pop() else { return Ok(()) };
        let begin = std::iter::once(Message::silent(BATCH_BEGIN, &BATCH));
        let end = [last.with_ack(true), Message::silent(BATCH_END, &BATCH)];
        let batch = begin.chain(messages).chain(end).collect();
        self.socket.request(batch).map_err(|netlink::Failure { message, error }| {
            // Without the capability the kernel refuses the batch itself.
            if message > 0 && error.raw_os_error() == Some(Errno::EPERM as i32) {
                Failure::Owned
            } else {
                Failure::Kernel(error)
            }
        })
    }
}
