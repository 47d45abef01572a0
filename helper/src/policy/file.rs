//! The policy file: root-owned, closed to writers, read whole or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proto::limits;
use proto::path::Absolute;
use serde::Deserialize;

/// What the helper allows. Defaults are strict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where image names are looked up.
    pub images_store: Absolute,
    /// Folders below which image paths may lie.
    pub images_paths: Vec<Absolute>,
    /// Folders in which Nomad keeps allocations.
    pub alloc_dirs: Vec<Absolute>,
    /// Uid of the Nomad agent.
    pub agent_uid: u32,
    /// Whether every task needs a user namespace.
    pub userns_require: bool,
    /// Kinds of network that tasks may have: `private`, `group`, `host`.
    pub network_allow: Vec<String>,
    /// Folders with network namespaces that tasks may join.
    pub netns_paths: Vec<Absolute>,
    /// Tasks at once.
    pub max_tasks: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    images: RawImages,
    nomad: RawNomad,
    userns: RawUserns,
    network: RawNetwork,
    limits: RawLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawImages {
    store: Option<String>,
    paths: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawNomad {
    alloc_dirs: Option<Vec<String>>,
    agent_uid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawUserns {
    require: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawNetwork {
    allow: Option<Vec<String>>,
    netns_paths: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    max_tasks: Option<usize>,
}

/// Reads the policy file; a missing one means the defaults.
///
/// # Errors
/// In words: who could write it, or which line is wrong.
pub fn load(path: &Path) -> Result<Policy, String> {
    let told = |e: io::Error| format!("{}: {e}", path.display());
    match check_owners(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => parse(""),
        Err(e) => Err(told(e)),
        Ok(()) => {
            let text = fs::read_to_string(path).map_err(told)?;
            parse(&text).map_err(|e| format!("{}: {e}", path.display()))
        }
    }
}

/// The file and every folder above it must be root's and closed to other writers.
fn check_owners(path: &Path) -> io::Result<()> {
    for part in path.ancestors() {
        let meta = fs::symlink_metadata(part)?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 || meta.is_symlink() {
            return Err(io::Error::other(format!(
                "{} must belong to root, be no link and not be writable by others",
                part.display()
            )));
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Policy, String> {
    let raw: Raw = toml::from_str(text).map_err(|e| e.to_string())?;
    let allow = raw.network.allow.unwrap_or_else(|| vec!["private".into(), "group".into()]);
    if let Some(odd) =
        allow.iter().find(|kind| !["private", "group", "host"].contains(&kind.as_str()))
    {
        return Err(format!("[network] allow: \"{odd}\" is not one of private, group, host"));
    }
    Ok(Policy {
        images_store: path(
            "[images] store",
            raw.images.store.as_deref().unwrap_or("/var/lib/machines"),
        )?,
        images_paths: paths("[images] paths", raw.images.paths, &["/var/lib/machines"])?,
        alloc_dirs: paths(
            "[nomad] alloc_dirs",
            raw.nomad.alloc_dirs,
            &["/var/lib/nomad/alloc", "/opt/nomad/data/alloc"],
        )?,
        agent_uid: raw.nomad.agent_uid.unwrap_or(0),
        userns_require: raw.userns.require.unwrap_or(true),
        network_allow: allow,
        netns_paths: paths(
            "[network] netns_paths",
            raw.network.netns_paths,
            &["/run/netns", "/var/run/netns"],
        )?,
        max_tasks: raw.limits.max_tasks.unwrap_or(limits::TASKS_MAX).min(limits::TASKS_MAX),
    })
}

fn path(key: &str, text: &str) -> Result<Absolute, String> {
    Absolute::parse(text).map_err(|e| format!("{key}: \"{text}\" is {e}"))
}

fn paths(key: &str, given: Option<Vec<String>>, default: &[&str]) -> Result<Vec<Absolute>, String> {
    let texts = given.unwrap_or_else(|| default.iter().map(|&text| text.to_owned()).collect());
    texts.iter().map(|text| path(key, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_strict_and_the_example_says_the_same() {
        let strict = parse("").unwrap();
        assert!(strict.userns_require);
        assert!(!strict.network_allow.contains(&"host".to_owned()));
        let example = include_str!("../../../example/policy.toml");
        assert_eq!(parse(example).unwrap(), strict);
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        for bad in [
            "[images]\npath = []",
            "[network]\nallow = [\"veth0\"]",
            "[nomad]\nalloc_dirs = [\"relative\"]",
            "[images]\nstore = \"/a/../b\"",
            "[userns]\nrequire = \"no\"",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let dir = std::env::temp_dir().join(format!("nspawn-policy-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("policy.toml");
        fs::write(&file, "").unwrap();
        // The temporary folder itself is writable by all.
        assert!(load(&file).unwrap_err().contains("must belong to root"));
        assert_eq!(load(Path::new("/etc/no-such-folder/policy.toml")), Ok(parse("").unwrap()));
        fs::remove_dir_all(&dir).unwrap();
    }
}
