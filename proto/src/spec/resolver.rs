//! Name resolution inside: /etc/resolv.conf and /etc/hosts.

use std::net::IpAddr;

use bincode::{Decode, Encode};

use super::process::HostName;
use crate::name::text_name;

fn check_domain(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 253 {
        return Err("1 to 253 bytes");
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        Ok(())
    } else {
        Err("letters, digits and ._- only")
    }
}

fn check_option(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("1 to 64 bytes");
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-.".contains(&b)) {
        Ok(())
    } else {
        Err("letters, digits and :_-. only (resolv.conf(5))")
    }
}

text_name!(
    /// A search domain of a resolver.
    SearchDomain, "search domain", check_domain
);
text_name!(
    /// An option of a resolver (resolv.conf(5)).
    ResolverOption, "resolver option", check_option
);

/// How names are resolved inside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Names {
    /// /etc/resolv.conf.
    pub resolver: Resolver,
    /// Lines added to /etc/hosts.
    pub hosts: Vec<HostEntry>,
    /// /etc/localtime.
    pub timezone: Timezone,
}

/// What becomes of /etc/resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Resolver {
    /// The image's stays.
    #[default]
    Off,
    /// The image's is deleted.
    Delete,
    /// One of the host's takes its place.
    Host {
        /// How.
        how: ResolverUse,
        /// Which.
        which: ResolverFile,
    },
    /// The job's own.
    Own {
        /// Nameservers, at most [`crate::limits::NAMESERVERS_MAX`].
        servers: Vec<IpAddr>,
        /// Search domains.
        searches: Vec<SearchDomain>,
        /// Options.
        options: Vec<ResolverOption>,
    },
}

/// How a resolver file of the host gets into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ResolverUse {
    /// A copy, unless the image has a symbolic link there.
    Copy,
    /// A copy in any case.
    Replace,
    /// A read-only bind.
    Bind,
}

/// Which resolver file of the host (systemd-nspawn(1), `--resolv-conf=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ResolverFile {
    /// /etc/resolv.conf.
    Host,
    /// systemd's own, with the local stub.
    Static,
    /// The servers that systemd-resolved uses itself, else /etc/resolv.conf.
    Uplink,
    /// The local stub of systemd-resolved, with the search domains of the host.
    Stub,
}

/// What becomes of /etc/localtime (systemd-nspawn(1), `--timezone=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Timezone {
    /// The image's stays.
    #[default]
    Off,
    /// A copy of the host's file.
    Copy,
    /// A read-only bind of the host's file.
    Bind,
    /// A symbolic link to the file of the same name in the image.
    Symlink,
    /// The image's is deleted.
    Delete,
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HostEntry {
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: HostName,
}
