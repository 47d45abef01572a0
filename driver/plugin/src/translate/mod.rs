//! From Nomad's task configuration to the helper's task specification.
//!
//! | module | idea |
//! |---|---|
//! | [`specification`] | all of them together, for one task on one [`node`] |
//! | [`image`] | which image, and what kind of file it is |
//! | [`root`] | what becomes of it; the user namespace |
//! | [`paths`], [`targets`] | paths on the host, and the places inside that are taken |
//! | [`binds`], [`tmpfs`], [`overlays`], [`mount_blocks`] | mounts |
//! | [`devices`], [`credentials`] | device nodes and credentials |
//! | [`process`], [`isolation`] | the payload, and what confines it |
//! | [`attached`] | networks of the operator's, and of systemd-nspawn |
//! | [`network`], [`own_network`], [`ports`] | network, with its zone, addresses and ports |
//! | [`resolver`], [`hosts`] | name resolution |
//! | [`timezone`] | /etc/localtime |
//! | [`host_files`] | copies of the host's files in the task's /etc |
//! | [`output`] | log streams and journal fields |
//! | [`resources`], [`signal`] | limits and signals |
//! | [`version`] | what this node's systemd is too old for |
//!
//! Pure apart from looking for the image and reading what tasks get of the host's /etc. Everything wrong with a job is collected and reported at
//! once; what this version cannot do is refused, never silently ignored. Nothing here guards
//! anything: the helper judges the specification by its own policy.

mod attached;
mod binds;
mod credentials;
mod devices;
mod host_files;
mod hosts;
pub(crate) mod image;
mod isolation;
mod mount_blocks;
mod network;
mod node;
mod output;
mod overlays;
mod own_network;
mod paths;
pub(crate) mod ports;
mod process;
mod resolver;
pub(crate) mod resources;
mod root;
pub(crate) mod signal;
mod specification;
mod targets;
#[cfg(test)]
mod tests;
mod timezone;
mod tmpfs;
mod version;

pub(crate) use node::Node;
pub(crate) use process::Probe;
pub(crate) use specification::{build, image_of, probe_of};
