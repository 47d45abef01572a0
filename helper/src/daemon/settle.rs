//! What is settled before a decision: whether tasks may run on this systemd, and what kind of image a
//! name means.
//!
//! Never waits for a file system in the loop itself.

use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::path::Absolute;
use proto::plan::Step;
use proto::spec::{Image, ImageKind, TaskSpec};

use super::context::Context;
use crate::policy::Policy;

/// Time for a file system to answer.
const LOOK: Duration = Duration::from_secs(10);

/// Refuses to run anything on a systemd with a known hole that the operator has not accepted.
pub(super) async fn systemd(context: &Context) -> Result<(), Refusal> {
    let version = context.systemd().await;
    match proto::systemd::unfit(&version) {
        Some(unfit) if !context.policy().accepts(&version) => {
            let reason = format!("{unfit}; \"{version}\" added to [systemd] accept lifts that");
            let object = format!("systemd {version}");
            Err(Refusal::new(Code::Policy, Step::Decide.name(), object, reason))
        }
        _ => Ok(()),
    }
}

/// Device of the file system of all allocations; `None` when it cannot be seen or does not answer.
pub(super) async fn device(allocs: &Absolute) -> Option<u64> {
    let path = allocs.to_path();
    // A file system that hangs must not hold the loop up.
    let look = tokio::task::spawn_blocking(move || crate::task::device(&path));
    let abort = look.abort_handle();
    let device = tokio::time::timeout(LOOK, look).await;
    if device.is_err() {
        abort.abort();
    }
    device.ok()?.ok()?
}

/// A name of the store without folder means the disk image `NAME.raw`, as it does for machined.
/// The plugin's account cannot look there; the launcher refuses what is of another kind.
pub(super) async fn kind(spec: &mut TaskSpec, policy: &Policy) -> Result<(), Refusal> {
    let Image::Named(name) = &spec.image else { return Ok(()) };
    let path = policy.images_store.to_path().join(name.as_str());
    let file = path.with_file_name(format!("{name}.raw"));
    // A file system that hangs must not hold the loop up.
    let look = tokio::task::spawn_blocking(move || !path.exists() && file.is_file());
    let abort = look.abort_handle();
    match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(true)) => spec.root.kind = ImageKind::Disk,
        Ok(Ok(false)) => {}
        _ => {
            abort.abort();
            let object = format!("image {name}");
            let reason = format!("the image store {} does not answer", policy.images_store);
            return Err(Refusal::new(Code::Busy, Step::Decide.name(), object, reason));
        }
    }
    Ok(())
}
