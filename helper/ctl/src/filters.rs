//! `filters`: what the cache of system call filters holds, and whether it is right.

use crate::output;

/// The launcher, which alone can read filters.
const LAUNCHER: &str = "/usr/libexec/nomad-nspawn/nomad-nspawn-task";

/// Prints the entries.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn list() -> Result<bool, String> {
    let all = entries()?;
    if all.is_empty() {
        println!("the cache is empty");
    }
    for entry in all {
        let state = if entry.is_current { "current" } else { "stale" };
        println!("{} {state} {} filters: {}", entry.name, entry.count, entry.options.join(" "));
    }
    Ok(true)
}

/// Has each current entry made again, in a unit of its own, and compares; ends with 1 where one
/// differs.
///
/// # Errors
/// The cache cannot be read.
pub(crate) fn verify() -> Result<bool, String> {
    let mut is_right = true;
    for entry in entries()?.into_iter().filter(|entry| entry.is_current) {
        let fixed = ["--wait", "--pipe", "--quiet", "--collect", "--property=Delegate=yes"];
        let mut words = fixed.to_vec();
        words.extend(["--", LAUNCHER, "filters-verify"]);
        words.extend(entry.options.iter().map(String::as_str));
        match output("systemd-run", &words) {
            Ok(_) => println!("{} is right", entry.name),
            Err(reason) => {
                is_right = false;
                println!("{} is wrong: {reason}", entry.name);
            }
        }
    }
    Ok(is_right)
}

fn entries() -> Result<Vec<launcher::CachedFilters>, String> {
    launcher::cached_filters().map_err(|e| format!("{}: {e}", kernel::layout::FILTERS))
}
