//! The whole specification of one task.

use bincode::{Decode, Encode};

use super::files::Files;
use super::image::Image;
use super::network::Network;
use super::output::{Label, Logs};
use super::payload::{Payload, Variable};
use super::process::{Isolation, Process};
use super::resolver::Names;
use super::resources::Resources;
use super::root::{Layer, Root, RootFs};
use super::users::Users;
use crate::limits;
use crate::name::TaskKey;
use crate::path::Absolute;

/// One task to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TaskSpec {
    /// Which run of which task.
    pub key: TaskKey,
    /// The allocation's directory as Nomad names it; its last component must be the allocation id.
    pub alloc_dir: Absolute,
    /// The image.
    pub image: Image,
    /// What becomes of the image.
    pub root: RootFs,
    /// What runs in it.
    pub payload: Payload,
    /// As whom and how it runs.
    pub process: Process,
    /// What confines it.
    pub isolation: Isolation,
    /// The task's user namespace.
    pub users: Users,
    /// The task's network.
    pub network: Network,
    /// Name resolution and time zone.
    pub names: Names,
    /// Further files.
    pub files: Files,
    /// The task's environment, complete.
    pub environment: Vec<Variable>,
    /// Where the two output streams go.
    pub logs: Logs,
    /// Journal fields of the task.
    pub labels: Vec<Label>,
    /// Signal that asks the payload to end, as a Linux signal number; `None`: the start mode's own.
    pub stop_signal: Option<u8>,
    /// Time between that signal and the kill at host shutdown, in milliseconds.
    pub kill_timeout_ms: u64,
    /// Limits of the unit.
    pub resources: Resources,
}

impl TaskSpec {
    /// A task of which nothing else is asked: an ephemeral root, the image's shell, a user
    /// namespace, loopback alone, Nomad's FIFOs.
    #[must_use]
    pub fn new(key: TaskKey, alloc_dir: Absolute, image: Image) -> Self {
        Self {
            key,
            alloc_dir,
            image,
            root: RootFs::tree(Root::Ephemeral(Layer::Disk)),
            payload: Payload::Command { words: Vec::new() },
            process: Process::default(),
            isolation: Isolation::default(),
            users: Users::Pick,
            network: Network::Loopback,
            names: Names::default(),
            files: Files::default(),
            environment: Vec::new(),
            logs: Logs::Fifos,
            labels: Vec::new(),
            stop_signal: None,
            kill_timeout_ms: 5_000,
            resources: Resources::default(),
        }
    }

    /// Whether its start may wait for more than its payload.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.start_limit_s() > limits::START_TIMEOUT_S
    }

    /// Time that the helper gives the start, in seconds, before it undoes it.
    #[must_use]
    pub fn start_limit_s(&self) -> u64 {
        let ready = self.process.ready.limit_s().unwrap_or_default();
        let address = match &self.network {
            Network::Container(container) => container.wait_s,
            _ => 0,
        };
        limits::START_TIMEOUT_S.saturating_add(ready.into()).saturating_add(address.into())
    }
}
