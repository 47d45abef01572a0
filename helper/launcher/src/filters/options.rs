//! What systemd-nspawn's system call filters depend on, beside its own program and libraries.
//!
//! The filters are computed from the capabilities that the payload keeps and from the rules of the
//! job (setup_seccomp() of nspawn-seccomp.c). Trusts the plan; pure.
//!
//! Version 262 filters address families where `--restrict-address-families=` asks for it, which no start
//! does, and announces that a later version will by default. Such a version installs more filters, so that
//! no set of it is made (`fill`), and what a start says about families belongs here before it is added
//! to those that have been tried (`choose`).

use proto::capability::Capabilities;
use proto::task_spec::process::{SyscallName, SyscallRule};

use super::entry;

/// Of one set of filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The payload's bounding set, as the bundle gives it.
    pub(crate) bounding: Capabilities,
    /// The rules of the job, in their order.
    pub(crate) rules: Vec<SyscallRule>,
}

impl Options {
    /// Those of jobs without rules.
    pub(super) fn usual(bounding: Capabilities) -> Self {
        Self { bounding, rules: Vec::new() }
    }

    /// As words of a command line; none of them holds white space.
    pub(crate) fn words(&self) -> Vec<String> {
        let bounding = format!("{:x}", self.bounding.mask());
        let rules = self
            .rules
            .iter()
            .map(|SyscallRule { allow, name }| format!("{}{name}", if *allow { "" } else { "~" }));
        std::iter::once(bounding).chain(rules).collect()
    }

    /// What the daemon keeps of them for each task ([`kernel::layout::filter_options`]).
    pub(super) fn line(&self) -> String {
        format!("{} {}", entry::name(self), self.words().join(" "))
    }

    /// Reads [`Self::words`].
    pub(crate) fn parse(words: &[&str]) -> Option<Self> {
        let (bounding, rules) = words.split_first()?;
        let bounding = Capabilities::of_mask(u64::from_str_radix(bounding, 16).ok()?);
        let rule = |word: &&str| {
            let (allow, name) = match word.strip_prefix('~') {
                Some(name) => (false, name),
                None => (true, *word),
            };
            Some(SyscallRule { allow, name: SyscallName::new(name).ok()? })
        };
        Some(Self { bounding, rules: rules.iter().map(rule).collect::<Option<_>>()? })
    }
}
