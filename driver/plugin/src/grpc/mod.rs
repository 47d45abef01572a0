//! The services that Nomad's agent calls: thin, each request is passed on at once.
//!
//! | module | service |
//! |---|---|
//! | [`base`] | BasePlugin: who we are, our configuration |
//! | [`task`] | Driver: tasks |
//! | [`exec`] | Driver: a conversation with a command |
//! | [`stream`] | what the streams of Driver send |
//! | [`host`] | go-plugin's own: controller, broker, stdio, health |
//! | [`server`] | all of them on one socket |

mod base;
mod exec;
mod host;
mod server;
mod stream;
mod task;

pub(crate) use server::serve;
