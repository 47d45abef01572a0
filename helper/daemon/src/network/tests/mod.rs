//! The table on this kernel, in network namespaces that the tests make: `nft` lists what the code
//! loaded, and packets go where docs/NETWORK.md says.

mod attached;
mod connections;
pub(super) mod namespaces;
mod removal;
mod table;
mod traffic;
