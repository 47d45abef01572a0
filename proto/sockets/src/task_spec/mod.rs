//! What the driver asks the helper to start: one task, in components, enums and numbers.
//!
//! There is no systemd-nspawn option and no unit property in it; a path is a list of components. Every
//! value is judged by the helper's policy; nothing is taken because the driver said so.
//!
//! | module | idea |
//! |---|---|
//! | [`spec`] | one task: everything below together |
//! | [`image`], [`root`], [`users`] | the image, what becomes of it, the user namespace |
//! | [`payload`] | what runs, and its environment |
//! | [`process`] | as whom and how the payload runs, and what confines it |
//! | [`files`] | binds, file systems in memory, overlays, devices, credentials |
//! | [`network`] | the network |
//! | [`resolver`] | name resolution and time zone |
//! | [`output`] | log streams and journal fields |
//! | [`resources`] | limits of the unit, out of memory, reachable addresses |

pub mod files;
pub mod image;
pub mod network;
pub mod output;
pub mod payload;
pub mod process;
pub mod resolver;
pub mod resources;
pub mod root;
pub mod spec;
pub mod users;

pub use files::Files;
pub use image::{Image, ImageKind};
pub use network::Network;
pub use output::{Label, Logs};
pub use payload::{Payload, Variable};
pub use process::{Isolation, Process};
pub use resolver::Names;
pub use resources::Resources;
pub use root::{Layer, Ownership, Pivot, Root, RootFs, Volatile};
pub use spec::TaskSpec;
pub use users::Users;
