//! `reload`: as `systemctl reload`, which says of a bad policy file only that the reload failed.
//!
//! The file is judged here with the daemon's own reader first, so that the person sees the line. The
//! daemon's unit judges it again before anything is signalled.

use std::path::Path;

use super::{POLICY, output};

const UNIT: &str = "nomad-nspawn-helper.service";

/// Has the daemon read its policy file; `false` when that is bad.
///
/// # Errors
/// systemd cannot have it reloaded.
pub(super) fn run() -> Result<bool, String> {
    let bad = match crate::find_policy(Path::new(POLICY)) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("{POLICY} is gone")),
        Err(reason) => Some(reason),
    };
    if let Some(reason) = bad {
        println!("not reloaded, the old policy stays in force: {reason}");
        return Ok(false);
    }
    output("systemctl", &["reload", UNIT])?;
    println!("{POLICY} is in force");
    Ok(true)
}
