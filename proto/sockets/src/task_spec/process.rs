//! The payload's process: as whom and where it runs, and what confines it.

use std::fmt;

use bincode::{Decode, Encode};

use crate::capability::Capabilities;
use crate::limits;
use crate::name::{Checked, InvalidName, check_machine_name, is_made_of, require, text_name};
use crate::path::Absolute;

fn check_user(text: &str) -> Checked {
    require((1..=limits::VALUE_MAX).contains(&text.len()), "1 to 255 bytes")?;
    require(!text.starts_with('-'), "no leading dash")?;
    require(!text.bytes().all(|b| b.is_ascii_digit()), "not a number")?;
    require(is_made_of(text, "._-$"), "letters, digits and ._-$ only")
}

fn check_syscall(text: &str) -> Checked {
    let name = text.strip_prefix('@').unwrap_or(text);
    require((1..=64).contains(&name.len()), "1 to 64 bytes")?;
    let is_lower = !name.bytes().any(|b| b.is_ascii_uppercase());
    let rule = "a system call's name, or a group's with @ (systemd.exec(5))";
    require(is_lower && is_made_of(name, "_-"), rule)
}

fn check_sysctl(text: &str) -> Checked {
    let are_parts = text.len() <= limits::VALUE_MAX && text.contains('.');
    require(are_parts, "parts joined by dots, at most 255 bytes")?;
    let is_part = |part: &str| !part.is_empty() && is_made_of(part, "_-");
    let rule = "parts of letters, digits, _ and -, joined by dots (sysctl(8))";
    require(text.split('.').all(is_part), rule)
}

fn check_value(text: &str) -> Checked {
    require(text.len() <= limits::VALUE_MAX, "at most 255 bytes")?;
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t');
    require(is_plain, "printable ASCII only")
}

fn check_context(text: &str) -> Checked {
    require((1..=limits::VALUE_MAX).contains(&text.len()), "1 to 255 bytes")?;
    require(text.split(':').count() >= 4, "user:role:type:level")?;
    require(is_made_of(text, "_.:,-"), "letters, digits and _.:,- only")
}

text_name!(
    /// The name of a user or group of the image; never a number.
    UserName, "user", check_user
);
text_name!(
    /// A host name (RFC 1123): the same labels as a machine name has.
    HostName, "host name", check_machine_name
);
text_name!(
    /// A system call, or with `@` a group of systemd's (systemd.exec(5)).
    SyscallName, "system call", check_syscall
);
text_name!(
    /// A kernel setting below /proc/sys, in the spelling of sysctl(8).
    SysctlName, "sysctl", check_sysctl
);
text_name!(
    /// A kernel setting's value.
    SysctlValue, "sysctl value", check_value
);
text_name!(
    /// An SELinux security context (selinux(8)).
    SelinuxContext, "SELinux context", check_context
);

/// A user or a group, as the container counts them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Account {
    /// By number.
    Id(u32),
    /// By its name in the image.
    Name(UserName),
}

impl Account {
    fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return UserName::new(text).map(Self::Name);
        }
        let number = text.parse().ok().filter(|id| is_id(*id));
        number.map(Self::Id).ok_or(InvalidName { kind: "user", rule: "no such number" })
    }
}

/// Whether a user or group can have the number: -1 means "none" to the kernel, in 32 bits and in 16,
/// and systemd takes neither.
#[must_use]
pub const fn is_id(number: u32) -> bool {
    number != u32::MAX && number != 0xffff
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// As whom the payload runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct User {
    /// The user.
    pub user: Account,
    /// Its only group; `None`: the groups that the image gives the user.
    pub group: Option<Account>,
}

impl User {
    /// Reads `user` or `user:group`, each a name or a number.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(Account::parse(group)?)),
            None => (text, None),
        };
        Ok(Self { user: Account::parse(user)?, group })
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => self.user.fmt(f),
        }
    }
}

/// As whom, where and how the payload runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Process {
    /// As whom; `None`: root. Not for a booted image.
    pub user: Option<User>,
    /// Working directory inside; `None`: `/`, or the user's home for the image's shell.
    pub directory: Option<Absolute>,
    /// Host name; `None`: the machine name.
    pub hostname: Option<HostName>,
    /// What is behind the payload's console.
    pub console: Console,
    /// When the task counts as started.
    pub ready: Ready,
}

/// What is behind the payload's console (systemd-nspawn(1), `--console=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Console {
    /// `read-only` for a booted image, `pipe` for a command.
    #[default]
    Automatic,
    /// A terminal, with standard input.
    Interactive,
    /// A terminal, whose output is the task's standard output.
    ReadOnly,
    /// A terminal that nobody reads.
    Passive,
    /// The three streams themselves.
    Pipe,
}

/// When a task counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Ready {
    /// When its payload is executed.
    #[default]
    Started,
    /// When PID 1 of the container says `READY=1` (sd_notify(3)).
    Notify {
        /// Time for it in seconds, 1 to [`limits::READY_TIMEOUT_MAX_S`]; then the start has failed.
        timeout_s: u32,
    },
    /// When the task's network namespace has an address that is neither loopback nor link-local.
    Network {
        /// Time for it in seconds, as for [`Self::Notify`].
        timeout_s: u32,
    },
}

impl Ready {
    /// The time for it in seconds, when the start waits for more than the payload.
    #[must_use]
    pub fn limit_s(self) -> Option<u32> {
        match self {
            Self::Started => None,
            Self::Notify { timeout_s } | Self::Network { timeout_s } => Some(timeout_s),
        }
    }

    /// Whether PID 1 of the container says that it is ready.
    #[must_use]
    pub fn is_notified(self) -> bool {
        matches!(self, Self::Notify { .. })
    }
}

/// What confines the payload beyond its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Isolation {
    /// Capabilities beyond systemd-nspawn's own set.
    pub add: Capabilities,
    /// Capabilities that it shall not have; wins over everything else.
    pub drop: Capabilities,
    /// Whether set-uid files and file capabilities have no effect inside.
    pub no_new_privileges: bool,
    /// Changes of systemd-nspawn's list of allowed system calls, in order.
    pub syscalls: Vec<SyscallRule>,
    /// Kernel settings in the task's own namespaces.
    pub sysctls: Vec<Sysctl>,
    /// Process limits.
    pub limits: Vec<ProcessLimit>,
    /// SELinux context of the payload.
    pub selinux: Option<SelinuxContext>,
}

/// One change of the list of allowed system calls.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SyscallRule {
    /// Whether it is added; taken out otherwise.
    pub allow: bool,
    /// Which.
    pub name: SyscallName,
}

/// One kernel setting.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Sysctl {
    /// Its name.
    pub name: SysctlName,
    /// Its value.
    pub value: SysctlValue,
}

/// One process limit (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ProcessLimit {
    /// Which.
    pub resource: LimitName,
    /// The soft limit; `None`: infinity.
    pub soft: Option<u64>,
    /// The hard limit; `None`: infinity.
    pub hard: Option<u64>,
}

/// Declares the process limits with their names.
macro_rules! limit_names {
    ($($name:ident = $text:literal,)*) => {
        /// A process limit of systemd-nspawn's `--rlimit=`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum LimitName { $($name,)* }

        impl LimitName {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name as systemd-nspawn takes it: that of getrlimit(2) without `RLIMIT_`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

limit_names! {
    AddressSpace = "AS",
    Core = "CORE",
    Cpu = "CPU",
    Data = "DATA",
    FileSize = "FSIZE",
    Locks = "LOCKS",
    LockedMemory = "MEMLOCK",
    MessageQueues = "MSGQUEUE",
    Nice = "NICE",
    OpenFiles = "NOFILE",
    Processes = "NPROC",
    ResidentSet = "RSS",
    RealtimePriority = "RTPRIO",
    RealtimeTime = "RTTIME",
    PendingSignals = "SIGPENDING",
    Stack = "STACK",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number_with_or_without_a_group() {
        let name = |name: &str| Account::Name(UserName::new(name).unwrap());
        for (text, user, group) in [
            ("app", name("app"), None),
            ("1000", Account::Id(1000), None),
            ("0:0", Account::Id(0), Some(Account::Id(0))),
            ("1000:media", Account::Id(1000), Some(name("media"))),
            ("www-data:33", name("www-data"), Some(Account::Id(33))),
            ("4294967294", Account::Id(4_294_967_294), None),
        ] {
            let parsed = User::parse(text).unwrap();
            assert_eq!(parsed, User { user, group }, "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        for text in
            ["", ":", "a:", ":a", "a:b:c", "-1", "65535", "4294967295", "4294967296", "a b", "+1"]
        {
            assert!(User::parse(text).is_err(), "{text}");
        }
        // No number travels as a name, so that each has one reading.
        assert!(UserName::new("1000").is_err());
    }
}
