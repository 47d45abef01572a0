//! Files of the host in the container: binds, file systems in memory, overlays, hidden paths,
//! devices, credentials.
//!
//! Places come from the policy and are opened beneath their roots without following any link; what
//! is mounted is a clone made from that descriptor, never from a path. Everything lies on the
//! stage, so it goes with the task's mount namespace; only an ephemeral overlay's upper layer lies
//! on disk, where `clean` takes it away.
//!
//! Never gives the payload a device node or a set-uid program of the host through a mount, and
//! never writes to the host beyond mount points that container root could have made itself.

mod binds;
pub(super) mod credentials;
mod devices;
mod overlays;
mod prepare;
mod source;

pub(super) use prepare::prepare;
