//! Figures for Prometheus: what Nomad does not publish itself.

pub(crate) mod endpoint;
pub(crate) mod figures;
pub(crate) mod histogram;
pub(crate) mod socket;
