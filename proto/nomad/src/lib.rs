//! Nomad's and go-plugin's gRPC messages, generated from the files in `proto/nomad/proto`.
//!
//! The modules mirror the packages, because generated code refers to other packages by path. For the
//! plugin and the tests alone: no root process links this crate.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]
#![allow(
    unreachable_pub,
    elided_lifetimes_in_paths,
    clippy::indexing_slicing,
    reason = "generated code"
)]

/// `hashicorp.nomad.plugins.…`
pub mod hashicorp {
    /// `hashicorp.nomad.…`
    pub mod nomad {
        /// `hashicorp.nomad.plugins.…`
        pub mod plugins {
            /// The base service of every plugin.
            pub mod base {
                /// The package itself.
                pub mod proto {
                    tonic::include_proto!("hashicorp.nomad.plugins.base.proto");
                }
            }
            /// The task driver service.
            pub mod drivers {
                /// The package itself.
                pub mod proto {
                    tonic::include_proto!("hashicorp.nomad.plugins.drivers.proto");
                }
            }
            /// Types that both services use.
            pub mod shared {
                /// Configuration schemas.
                pub mod hclspec {
                    tonic::include_proto!("hashicorp.nomad.plugins.shared.hclspec");
                }
                /// Attributes and errors.
                pub mod structs {
                    tonic::include_proto!("hashicorp.nomad.plugins.shared.structs");
                }
            }
        }
    }
}

/// go-plugin's own services.
pub mod plugin {
    tonic::include_proto!("plugin");
}

/// The gRPC health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

pub use hashicorp::nomad::plugins::base::proto as base;
pub use hashicorp::nomad::plugins::drivers::proto as drivers;
pub use hashicorp::nomad::plugins::shared::{hclspec, structs};
