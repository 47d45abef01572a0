//! PID 1, machined and the descriptor store.

pub(crate) mod bus;
pub(crate) mod confinement;
pub(crate) mod fd_store;
pub(crate) mod machined;
pub(crate) mod notify;
pub(crate) mod share;
pub(crate) mod units;
