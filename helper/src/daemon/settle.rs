//! What is settled before a decision: whether tasks may run on this systemd, and what kind of image a
//! name means.
//!
//! Never waits for a file system in the loop itself.

use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::name::ImageName;
use proto::path::Absolute;
use proto::plan::Step;
use proto::spec::{Image, ImageKind, TaskSpec};

use super::context::Context;
use crate::policy::Policy;

/// Time for the file system of the image store to answer.
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

/// A name of the store without folder means the disk image `NAME.raw`, as it does for machined; one that
/// the store does not have means the driver's path, if it gave one. The plugin's account cannot look
/// there; the launcher refuses what is of another kind.
pub(super) async fn image(spec: &mut TaskSpec, policy: &Policy) -> Result<(), Refusal> {
    let (name, other) = match &spec.image {
        Image::Named(name) => (name.clone(), None),
        Image::NamedOr(name, other) => (name.clone(), Some(other.clone())),
        Image::Path(_) => return Ok(()),
    };
    let path = policy.images_store.to_path().join(name.as_str());
    let file = path.with_file_name(format!("{name}.raw"));
    // A file system that hangs must not hold the loop up.
    let look = tokio::task::spawn_blocking(move || (path.exists(), file.is_file()));
    let abort = look.abort_handle();
    match tokio::time::timeout(LOOK, look).await {
        Ok(Ok(found)) => settle(spec, name, other, found),
        _ => {
            abort.abort();
            let object = format!("image {name}");
            let reason = format!("the image store {} does not answer", policy.images_store);
            return Err(Refusal::new(Code::Busy, Step::Decide.name(), object, reason));
        }
    }
    Ok(())
}

/// `found`: whether the store has something of the name itself, and a disk image `NAME.raw`.
fn settle(spec: &mut TaskSpec, name: ImageName, other: Option<Absolute>, found: (bool, bool)) {
    let ends_as_disk = name.as_str().ends_with(".raw");
    match (other, found) {
        // The kind is that of the path already.
        (Some(other), (false, false)) => {
            spec.image = Image::Path(other);
            return;
        }
        (_, (false, true)) => spec.root.kind = ImageKind::Disk,
        (Some(_), _) if ends_as_disk => spec.root.kind = ImageKind::Disk,
        (Some(_), _) => spec.root.kind = ImageKind::Tree,
        (None, _) => {}
    }
    spec.image = Image::Named(name);
}
