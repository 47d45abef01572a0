//! Makes EROFS files of image layers.
//!
//! For: one stream of tar, compressed or not, becomes one EROFS file, which the launcher mounts as
//! a layer of a task's root. docs/IMAGES.md describes the format.
//! Trusts: nothing that it reads; neither the stream nor the layers below.
//! Never: opens a path, makes a file, a process or a connection. It reads the streams that it is
//! given and writes the one file that it is given.
#![forbid(unsafe_code)]

mod bounds;
mod bytes;
mod compression;
mod convert;
mod erofs;
mod error;
mod layer;
mod stream;
mod tar;

pub use bounds::Bounds;
pub use convert::{Below, Options, RootAttributes, Summary, convert};
pub use erofs::reader::Lower;
pub use error::Error;
