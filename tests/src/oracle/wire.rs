//! Specifications as a driver sends them that checks nothing.
//!
//! A mount point of a place that the protocol's type refuses cannot stand in a specification. It stands
//! there under a mark, and is written into the bytes without it.

use std::borrow::Cow;

use proto::codec::{self, CodecError};
use proto::path::Absolute;
use proto::target::Target;
use proto::task_spec::TaskSpec;

/// First component of a place that the type refuses; no other path begins with it.
const MARK: &str = "refused";

/// The mount point, under the mark where the type refuses it.
#[allow(clippy::expect_used, reason = "nothing refuses the mark")]
#[must_use]
pub fn target(path: &Absolute) -> Target {
    Target::new(path.clone()).unwrap_or_else(|_| {
        let marked = format!("/{MARK}{path}");
        Target::parse(&marked).expect("a place below the mark")
    })
}

/// The place that a mount point stands for.
#[must_use]
pub fn place(target: &Target) -> String {
    let text = target.to_string();
    match text.strip_prefix(&format!("/{MARK}")) {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => text,
    }
}

fn is_marked(target: &Target) -> bool {
    place(target) != target.to_string()
}

/// Every mount point of a specification.
pub(super) fn targets(spec: &TaskSpec) -> Vec<&Target> {
    let files = &spec.files;
    let mut all: Vec<&Target> = files.binds.iter().map(|bind| &bind.target).collect();
    all.extend(files.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    all.extend(files.overlays.iter().map(|overlay| &overlay.target));
    all.extend(files.devices.iter().map(|device| &device.target));
    all.extend(&files.inaccessible);
    all.extend(spec.root.pivot.iter().filter_map(|pivot| pivot.old.as_ref()));
    all
}

/// The bytes, with the refused places where their marks were.
///
/// # Errors
/// When it is too large to be sent.
pub fn bytes(spec: &TaskSpec) -> Result<Vec<u8>, CodecError> {
    let mut whole = codec::encode_whole(spec)?;
    for target in targets(spec).into_iter().filter(|target| is_marked(target)) {
        let from = codec::encode(target)?;
        let path = Absolute::parse(&place(target));
        let to = codec::encode(&path.map_err(|e| CodecError::Malformed(e.to_string()))?)?;
        if let Some(at) = whole.windows(from.len()).position(|some| some == from) {
            whole.splice(at..at + from.len(), to);
        }
    }
    Ok(whole)
}

/// What arrives of a specification; `None`: it cannot be decoded.
#[must_use]
pub fn received(spec: &TaskSpec) -> Option<Cow<'_, TaskSpec>> {
    if !targets(spec).into_iter().any(is_marked) {
        return Some(Cow::Borrowed(spec));
    }
    codec::decode_whole(&bytes(spec).ok()?).ok().map(Cow::Owned)
}
