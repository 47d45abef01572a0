//! Links and ports in network namespaces that the tests make: nothing of the machine's own network
//! is used. They need root and `ip` (iproute2).
#![allow(clippy::disallowed_methods, reason = "the tests' own files of /proc")]

mod attach;
mod link;
mod namespace;
mod networkd;
mod ports;
