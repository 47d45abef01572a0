//! What a job would ask of the helper: the same reading and the same rules as at a start, for
//! `nomad-nspawnctl policy explain`. Asks nobody and changes nothing.

use std::path::PathBuf;

use proto::nomad::drivers::TaskConfig;
use proto::spec::TaskSpec;

/// The specification of a task; relative images are looked up below `folders`.
///
/// # Errors
/// Every problem of the job in one text, as the task's events would show it.
pub fn specification(task: &TaskConfig, folders: &[PathBuf]) -> Result<TaskSpec, String> {
    crate::spec::build(task, folders).map_err(|failure| failure.to_string())
}
