//! What is settled before a decision: whether tasks may run on this systemd, and what kind of image a
//! name means.
//!
//! Never waits for a file system in the loop itself.

use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::plan::Step;
use proto::spec::{Image, ImageKind, TaskSpec};
use proto::systemd::Unfit;

use super::context::Context;
use crate::policy::Policy;

/// Time for the file system of the image store to answer.
const LOOK: Duration = Duration::from_secs(10);

/// Refuses to run anything on a systemd with a known hole that the operator has not accepted.
pub(super) async fn systemd(context: &Context) -> Result<(), Refusal> {
    judge_version(&context.systemd().await, &context.policy())
}

fn judge_version(version: &str, policy: &Policy) -> Result<(), Refusal> {
    match proto::systemd::unfit(version) {
        // No list can accept what is not known; PID 1 may answer the next try.
        Some(unfit @ Unfit::Unknown) => {
            Err(Refusal::new(Code::Busy, Step::Decide.name(), "systemd", unfit.to_string()))
        }
        Some(unfit) if !policy.accepts(version) => {
            let reason = format!("{unfit}; \"{version}\" added to [systemd] accept lifts that");
            let object = format!("systemd {version}");
            Err(Refusal::new(Code::Policy, Step::Decide.name(), object, reason))
        }
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s16_an_unreadable_version_refuses_and_is_worth_another_try() {
        let policy = |text| crate::policy::parse(text).unwrap();
        for text in ["", "preset = \"compat\""] {
            let refusal = judge_version("", &policy(text)).unwrap_err();
            assert!(refusal.code == Code::Busy && refusal.is_retryable(), "{refusal}");
            assert!(judge_version("257.13", &policy(text)).is_ok());
        }
        let refusal = judge_version("257.11", &policy("")).unwrap_err();
        assert!(!refusal.is_retryable(), "{refusal}");
        assert!(judge_version("257.11", &policy("[systemd]\naccept = [\"257.11\"]")).is_ok());
    }
}
