//! The kernel's settings of links (/proc/sys/net/ipv4/conf and ipv6/conf), and forwarding.
//!
//! /proc/sys/net shows the network namespace of the process that looks a path up, but a directory
//! that is open stays with the namespace in which it was opened. Trusts names of links from the
//! kernel and the daemon. Never writes to `default`: links of others are made from it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use kernel::netlink::Socket;
use nix::fcntl::OFlag;
use proto::link::LINK_PREFIX;

use super::rtnetlink;
use crate::open::{self, Mounts, if_there};
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// The name under which the kernel shows what holds for all links.
const ALL: &str = "all";

/// The settings of one family in one network namespace.
pub(super) struct Settings {
    directory: OwnedFd,
    place: &'static str,
}

/// Settings of both families; of IPv6 where the kernel has it.
pub(super) struct Both {
    pub(super) v4: Settings,
    pub(super) v6: Option<Settings>,
}

impl Both {
    /// Opens those of the process's network namespace.
    pub(super) fn open() -> Result<Self, Problem> {
        let open = |place| {
            let opened = OwnPath::constant(place).open(open::HANDLE);
            let directory = if_there(opened).at(place)?;
            Ok(directory.map(|directory| Settings { directory, place }))
        };
        let missing = "/proc/sys/net/ipv4/conf";
        let v4 = open(missing)?.ok_or_else(|| Problem::refused(missing, "is not there"))?;
        // Not there with ipv6.disable=1 on the kernel's command line.
        Ok(Self { v4, v6: open("/proc/sys/net/ipv6/conf")? })
    }

    /// Sees to it that the kernel forwards packets between links.
    pub(super) fn check_forwarding(
        &self,
        host: &mut Socket,
        enable: bool,
        with_v6: bool,
    ) -> Result<(), Problem> {
        self.v4.forward(enable, || Ok(()))?;
        match self.v6.as_ref().filter(|_| with_v6) {
            Some(v6) => v6.forward(enable, || v6.keep_advertisements(host)),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// Writes one.
    pub(super) fn set(&self, link: &str, key: &str, value: &str) -> Result<(), Problem> {
        let written = self.open(link, key, OFlag::O_WRONLY);
        let written = written.and_then(|mut file| file.write_all(value.as_bytes()));
        written.at(format!("{} = {value}", self.name(link, key)))
    }

    /// Switches forwarding on where it is off and `enable` allows it, after `before`.
    fn forward(
        &self,
        enable: bool,
        before: impl FnOnce() -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        if self.is(ALL, "forwarding", "1")? {
            return Ok(());
        }
        if !enable {
            let reason = "is 0, and [network] forwarding = \"check\" in the policy file leaves it \
                          so: tasks would reach nobody but this host; set it to 1 in \
                          /etc/sysctl.d, or use forwarding = \"enable\"";
            return Err(Problem::refused(self.name(ALL, "forwarding"), reason));
        }
        before()?;
        self.set(ALL, "forwarding", "1")
    }

    fn is(&self, link: &str, key: &str, value: &str) -> Result<bool, Problem> {
        let mut text = String::new();
        let read = self.open(link, key, OFlag::O_RDONLY);
        // A link that has gone meanwhile has no settings.
        let read = if_there(read.and_then(|mut file| file.read_to_string(&mut text)));
        Ok(read.at(self.name(link, key))?.is_some() && text.trim_end() == value)
    }

    fn open(&self, link: &str, key: &str, flags: OFlag) -> io::Result<File> {
        let path = Path::new(link).join(key);
        open::beneath(self.directory.as_fd(), &path, flags, Mounts::Stay).map(File::from)
    }

    fn name(&self, link: &str, key: &str) -> String {
        format!("{}/{link}/{key}", self.place)
    }

    /// Lets links that take their routes from a router's advertisements go on doing so: 1 means
    /// "unless this host forwards", 2 means "always" (ip-sysctl.rst of the kernel). Those that
    /// forward already, or do not listen, are left alone.
    fn keep_advertisements(&self, host: &mut Socket) -> Result<(), Problem> {
        let mut links = Vec::new();
        let read = |_, content: &[u8]| links.extend(rtnetlink::Known::read(content));
        host.dump(rtnetlink::all_links(), read).at("links of the host")?;
        // Those of tasks never listen, though one that another start makes right now may not have
        // got so far.
        for link in links.iter().filter(|link| !link.name.starts_with(LINK_PREFIX)) {
            let listens =
                self.is(&link.name, "accept_ra", "1")? && self.is(&link.name, "forwarding", "0")?;
            if listens {
                self.set(&link.name, "accept_ra", "2")?;
            }
        }
        Ok(())
    }
}
