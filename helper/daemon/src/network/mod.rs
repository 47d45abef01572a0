//! Networks of tasks' own: addresses, ports, and the packet filter's table.

pub(crate) mod allocate;
pub(crate) mod attached;
pub(crate) mod conntrack;
pub(crate) mod elements;
pub(crate) mod expression;
pub(crate) mod filter;
pub(crate) mod found;
pub(crate) mod hosts_files;
pub(crate) mod link_record;
pub(crate) mod links;
pub(crate) mod networks;
pub(crate) mod pool;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod threads;
pub(crate) mod zones;
