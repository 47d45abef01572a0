//! System call filters of payloads, read from outside, and the scanner of starts whose cache is damaged.

pub mod damage;
pub mod read;
pub mod scan;

pub use read::Filters;
