//! What a job would ask of the helper: the same reading and the same rules as at a start, for
//! `nomad-nspawnctl policy explain`. Asks nobody and changes nothing.

use std::path::PathBuf;

use nomad_proto::drivers::TaskConfig;
use proto::task_spec::TaskSpec;

use crate::config::plugin::PluginConfig;
use crate::node::usage::Compute;
use crate::translate::{Node, build};

/// The specification of a task on a node with this version of systemd (0: not known) and the
/// plugin's default configuration; relative images are looked up below `directories`.
///
/// # Errors
/// Every problem of the job in one text, as the task's events would show it.
pub fn specification(
    task: &TaskConfig,
    systemd: u32,
    directories: &[PathBuf],
) -> Result<TaskSpec, String> {
    let config = PluginConfig::default();
    let cores = Compute::of_host().cores();
    let node = Node::of_host(systemd, None, cores, &config, directories);
    build(task, &node).map_err(|failure| failure.to_string())
}
