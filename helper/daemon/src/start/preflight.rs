//! What belongs to a decision: whether tasks may run on this systemd, and what kind of image a
//! name means.
//!
//! Never waits for a file system on the loop's own thread.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::layer::ImageLayer;
use proto::name::ImageName;
use proto::path::Absolute;
use proto::step::Step;
use proto::systemd::Unfit;
use proto::task_spec::{Image, ImageKind, TaskSpec};

use crate::context::Context;
use kernel::image_store;
use policy::{self, Decision, Policy};

/// Time for a file system to answer.
const LOOK: Duration = Duration::from_secs(10);

/// Refuses to run anything on a systemd with a known hole that the operator has not accepted.
pub(crate) async fn check_systemd(context: &Context) -> Result<(), Refusal> {
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

/// Device of the file system of all allocations; `None` when it cannot be seen or does not answer.
pub(crate) async fn find_device(allocs: PathBuf) -> Option<u64> {
    look(move || kernel::kept_layers::device(&allocs)).await?
}

/// Looks at a file system on another thread: one that hangs must not hold the loop up. `None` when
/// it does not answer in time.
async fn look<T: Send + 'static>(at: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let found = tokio::task::spawn_blocking(at);
    let abort = found.abort_handle();
    let found = tokio::time::timeout(LOOK, found).await;
    if found.is_err() {
        // It is not begun if it still waits for a thread.
        abort.abort();
    }
    found.ok()?.ok()
}

/// Decides, and finds which image a name means: without a directory of that name in the image store,
/// `NAME` is the disk image `NAME.raw`, as it is for machined; then an imported image of the store of
/// layers. A name that neither has is the driver's path, if it gave one. The plugin's account cannot
/// look there; the launcher refuses what is of another kind.
///
/// Every reading is judged before anything is looked for: root looks only for what the policy gives
/// in one of them. Only the one that is there becomes a plan, which takes the specification over.
pub(crate) async fn decide(spec: TaskSpec, policy: &Policy) -> Result<Decision, Refusal> {
    decide_by(spec, policy, look_up).await
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// Something of the name itself in the image store.
    Itself,
    /// A file `NAME.raw` there.
    Disk,
    /// An imported image; its layers, the lowest first.
    Layers(Vec<ImageLayer>),
    Nothing,
}

async fn decide_by<L: Future<Output = Result<Found, Refusal>>>(
    mut spec: TaskSpec,
    policy: &Policy,
    look: impl FnOnce(PathBuf, ImageName) -> L,
) -> Result<Decision, Refusal> {
    let decide = |spec| policy::decide(spec, policy).map_err(|denial| denial.refusal);
    if spec.root.kind == ImageKind::Layers {
        // Never the driver's to say: without layers from here, the launcher refuses it.
        return decide(spec);
    }
    let is_disk = spec.root.kind == ImageKind::Disk;
    let (name, other) = match &spec.image {
        Image::Named(name) if !is_disk && !name.as_str().ends_with(".raw") => (name.clone(), None),
        Image::NamedOr(name, other) => (name.clone(), Some((other.clone(), spec.root.kind))),
        Image::Named(_) | Image::Path(_) => return decide(spec),
    };
    let mut refused = None;
    for found in [Found::Itself, Found::Disk, Found::Layers(Vec::new()), Found::Nothing] {
        set_image(&mut spec, &name, other.as_ref(), &found);
        match policy::judge(&spec, policy) {
            Ok(_) => {
                refused = None;
                break;
            }
            Err(denial) => refused = refused.or(Some(denial.refusal)),
        }
    }
    if let Some(refusal) = refused {
        return Err(refusal);
    }
    let itself = policy.images.store.0.to_path().join(name.as_str());
    let found = match look(itself, name.clone()).await {
        // The driver has a path for it: a fault of a store that the job may not mean is no obstacle.
        Err(error) if other.is_some() => {
            tracing::warn!(%name, %error, "not looked for in the image stores");
            Found::Nothing
        }
        found => found?,
    };
    set_image(&mut spec, &name, other.as_ref(), &found);
    match found {
        Found::Layers(layers) => Ok(decide(spec)?.over(layers)),
        Found::Itself | Found::Disk | Found::Nothing => decide(spec),
    }
}

/// Gives the specification the image that a name means where `found` is there.
fn set_image(
    spec: &mut TaskSpec,
    name: &ImageName,
    other: Option<&(Absolute, ImageKind)>,
    found: &Found,
) {
    let ends_as_disk = name.as_str().ends_with(".raw");
    (spec.image, spec.root.kind) = match (other, found) {
        (Some((path, kind)), Found::Nothing) => (Image::Path(path.clone()), *kind),
        (_, Found::Layers(_)) => (Image::Named(name.clone()), ImageKind::Layers),
        (_, Found::Disk) => (Image::Named(name.clone()), ImageKind::Disk),
        _ if ends_as_disk => (Image::Named(name.clone()), ImageKind::Disk),
        _ => (Image::Named(name.clone()), ImageKind::Tree),
    };
}

/// Looks a name up: in the image store, where `itself` would be, then among imported images.
async fn look_up(itself: PathBuf, name: ImageName) -> Result<Found, Refusal> {
    let object = format!("image {name}");
    let disk = itself.with_file_name(format!("{name}.raw"));
    let found = look(move || match () {
        () if itself.exists() => Ok(Found::Itself),
        () if disk.is_file() => Ok(Found::Disk),
        () => Ok(image_store::find(&name)?.map_or(Found::Nothing, Found::Layers)),
    });
    let found: Option<io::Result<Found>> = found.await;
    let (code, reason) = match found {
        Some(Ok(found)) => return Ok(found),
        Some(Err(error)) => (Code::Failed, error.to_string()),
        None => (Code::Busy, "the image store does not answer".to_owned()),
    };
    Err(Refusal::new(code, Step::Decide.name(), object, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::layer::Digest;
    use proto::name::{AllocId, Instance, TaskKey, TaskName};
    use proto::path::Component;
    use proto::plan::Plan;
    use proto::task_spec::{Network, Root};
    use std::cell::Cell;

    const ALLOC: &str = "/var/lib/nomad/alloc/07070707-0707-0707-0707-070707070707";

    /// Place and kind of the image that is decided on, and whether anything was looked for.
    async fn decided(
        file: &str,
        found: Found,
        change: impl FnOnce(&mut TaskSpec),
    ) -> (Result<(String, ImageKind), Code>, bool) {
        let task = TaskName::new("web").unwrap();
        let key = TaskKey { alloc: AllocId([7; 16]), task, instance: Instance(1) };
        let image = Image::Named(ImageName::new("busybox").unwrap());
        let mut spec = TaskSpec::new(key, Absolute::parse(ALLOC).unwrap(), image);
        change(&mut spec);
        let looked = Cell::new(false);
        let look = |itself: PathBuf, name: ImageName| {
            assert!(itself.ends_with("busybox") && name.as_str() == "busybox");
            looked.set(true);
            std::future::ready(Ok(found))
        };
        let policy = policy::parse(file).unwrap();
        let result = decide_by(spec, &policy, look).await;
        let image = |plan: &Plan| {
            let is_found = plan.root.kind == ImageKind::Layers && looked.get();
            assert_eq!(plan.layers.len(), usize::from(is_found));
            (plan.image.to_string(), plan.root.kind)
        };
        (result.map(|decision| image(decision.plan())).map_err(|e| e.code), looked.get())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn s8_nothing_is_looked_for_that_is_not_allowed() {
        for found in [Found::Nothing, Found::Disk, Found::Itself, layers()] {
            let seen = decided("", found, |s| s.network = Network::Host).await;
            assert_eq!(seen, (Err(Code::Policy), false));
        }
        let named = |path: &str, kind| Ok((format!("/var/lib/machines/{path}"), kind));
        let seen = decided("", Found::Itself, |_| {}).await;
        assert_eq!(seen, (named("busybox", ImageKind::Tree), true));
        let seen = decided("", Found::Disk, |_| {}).await;
        assert_eq!(seen, (named("busybox.raw", ImageKind::Disk), true));
        let seen = decided("", Found::Disk, |s| s.root.kind = ImageKind::Disk).await;
        assert_eq!(seen, (named("busybox.raw", ImageKind::Disk), false));
        let raw = |s: &mut TaskSpec| s.image = Image::Named(ImageName::new("a.raw").unwrap());
        let seen = decided("", Found::Disk, raw).await;
        assert_eq!(seen, (named("a.raw", ImageKind::Tree), false));
    }

    fn layers() -> Found {
        let source = Component::new("+import").unwrap();
        Found::Layers(vec![ImageLayer { source, digest: Digest([1; 32]) }])
    }

    /// Names of the image store come first, then those of imported images, then the driver's path.
    /// A driver that says layers gets none.
    #[tokio::test(flavor = "current_thread")]
    async fn an_imported_image_is_what_its_name_means_where_the_store_has_none() {
        let imported = "/var/lib/nomad-nspawn/images/imports/busybox";
        let or = |s: &mut TaskSpec| {
            let path = Absolute::parse("/var/lib/machines/other").unwrap();
            s.image = Image::NamedOr(ImageName::new("busybox").unwrap(), path);
        };
        let claims = |s: &mut TaskSpec| s.root.kind = ImageKind::Layers;
        for change in [|_: &mut TaskSpec| {}, or] {
            let seen = decided("", layers(), change).await;
            assert_eq!(seen, (Ok((imported.to_owned(), ImageKind::Layers)), true));
            let (seen, _) = decided("", Found::Itself, change).await;
            assert_eq!(seen, Ok(("/var/lib/machines/busybox".to_owned(), ImageKind::Tree)));
        }
        let (seen, _) = decided("", Found::Nothing, or).await;
        assert_eq!(seen, Ok(("/var/lib/machines/other".to_owned(), ImageKind::Tree)));
        let seen = decided("", layers(), claims).await;
        assert_eq!(seen, (Ok((imported.to_owned(), ImageKind::Layers)), false));
        let plain = |s: &mut TaskSpec| s.root.mode = Root::Plain;
        assert_eq!(decided("", layers(), plain).await, (Err(Code::Invalid), true));
    }

    /// What one of the two readings does not allow may be allowed in the other.
    #[tokio::test(flavor = "current_thread")]
    async fn s8_the_kind_that_is_there_is_the_one_that_is_judged() {
        const GOLD: &str = "[images]\npaths = [{ path = \"/var/lib/machines\", writable = true }, \
                            \"/var/lib/machines/busybox\"]";
        let plain = |s: &mut TaskSpec| s.root.mode = Root::Plain;
        assert_eq!(decided(GOLD, Found::Itself, plain).await, (Err(Code::Policy), true));
        let (result, looked) = decided(GOLD, Found::Disk, plain).await;
        assert_eq!((result.is_ok(), looked), (true, true));
    }

    #[test]
    fn s16_an_unreadable_version_refuses_and_is_worth_another_try() {
        let policy = |text| policy::parse(text).unwrap();
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
