//! From the text of a policy file to a [`Policy`].
//!
//! The defaults are the two files in example/, word for word: what an operator reads there is what
//! holds without a file. An unknown key, a wrong type or a value out of range is an error.

use std::io;
use std::path::Path;

use proto::path::Absolute;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::model::{Derived, Policy};
use super::values::Preset;

const STRICT: &str = include_str!("../../../example/policy.toml");
const COMPAT: &str = include_str!("../../../example/policy-compat.toml");

/// What the strict preset never binds, beside the images and Nomad's data.
const NEVER: &str = "/proc /sys /dev /run /var/lib/nomad-nspawn \
                     /etc/nomad-nspawn /usr/libexec/nomad-nspawn";

/// Longest part of a line in a message, in bytes.
const SHOWN: usize = 120;

/// What a read of the policy file means; `None` when there is none.
///
/// # Errors
/// In words, with the path: why it could not be read, or which line is wrong.
pub fn from_file(path: &Path, content: io::Result<String>) -> Result<Option<Policy>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match content {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(named(&e)),
        Ok(text) => parse(&text).map(Some).map_err(|e| named(&e)),
    }
}

/// Reads a policy text.
///
/// # Errors
/// One line: the number and the text of the line, and the rule that it breaks.
pub fn parse(text: &str) -> Result<Policy, String> {
    let at = |start: usize, rule: &str| {
        let before = text.get(..start).unwrap_or(text);
        let number = before.bytes().filter(|byte| *byte == b'\n').count();
        let mut line = text.lines().nth(number).unwrap_or_default().trim().to_owned();
        line.truncate(line.floor_char_boundary(SHOWN));
        format!("line {}: {line}: {}", number + 1, rule.replace('\n', " "))
    };
    let wrong = |error: Error| at(error.span().map_or(0, |span| span.start), error.message());
    let file = DeTable::parse(text).map_err(wrong)?;
    let preset = file.get_ref().get("preset").and_then(|preset| preset.get_ref().as_str());
    let defaults = if preset == Some("compat") { COMPAT } else { STRICT };
    let mut merged = DeTable::parse(defaults).map_err(wrong)?;
    for (section, value) in file.into_inner() {
        let name = section.get_ref().as_ref();
        match (merged.get_mut().get_mut(name).map(Spanned::get_mut), value.get_ref()) {
            (Some(DeValue::Table(known)), DeValue::Table(keys)) => {
                // The key as well as the value: its span is what an error points to.
                for (key, value) in keys {
                    known.remove(key.get_ref().as_ref());
                    known.insert(key.clone(), value.clone());
                }
            }
            // serde would take an array: the values of a struct in their order, without names.
            (Some(DeValue::Table(_)), _) => {
                return Err(at(section.span().start, &format!("[{name}] must be a table")));
            }
            _ => {
                merged.get_mut().remove(name);
                merged.get_mut().insert(section, value);
            }
        }
    }
    let mut policy = Policy::deserialize(Deserializer::from(merged)).map_err(wrong)?;
    policy.derived = derive(&policy);
    Ok(policy)
}

/// What follows from the keys: Nomad's other directories, and what the strict preset never shows.
fn derive(policy: &Policy) -> Derived {
    let alloc_dirs = &policy.nomad.alloc_dirs;
    let alloc_mounts: Vec<_> = alloc_dirs.iter().filter_map(mounts).collect();
    if policy.preset.0 == Preset::Compat {
        return Derived { alloc_mounts, ..Derived::default() };
    }
    let nomad_data: Vec<_> = alloc_dirs.iter().filter_map(parent).collect();
    let never: Vec<_> = NEVER.split(' ').filter_map(|path| Absolute::parse(path).ok()).collect();
    let images_never = [never.as_slice(), &nomad_data].concat();
    let mut binds_never = [never.as_slice(), &alloc_mounts].concat();
    binds_never.push(policy.images.store.0.clone());
    binds_never.extend(policy.images.paths.iter().map(|entry| entry.path.clone()));
    Derived { alloc_mounts, nomad_data, images_never, binds_never }
}

fn parent(path: &Absolute) -> Option<Absolute> {
    let path = path.to_path();
    Absolute::parse(path.parent().unwrap_or(&path).to_str()?).ok()
}

/// Where Nomad (1.8) mounts what is below `alloc_dir` again: beside its data directory.
fn mounts(alloc_dir: &Absolute) -> Option<Absolute> {
    Absolute::parse(&format!("{}/alloc_mounts", parent(&parent(alloc_dir)?)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::capability::Capabilities;
    use proto::plan::Unprotected;

    #[test]
    fn an_empty_file_is_strict() {
        let strict = parse("").unwrap();
        assert_eq!(parse(STRICT).unwrap(), strict);
        assert_eq!(parse("preset = \"strict\"").unwrap(), strict);
        assert!(strict.userns.require && strict.binds.unprotected.0 == Unprotected::Refuse);
        let lists = [&strict.binds.read_only, &strict.binds.read_write, &strict.userns.except];
        assert!(lists.iter().all(|list| list.is_empty()));
        assert!(strict.devices.allow.is_empty() && strict.lsm.profiles.is_empty());
        assert!(strict.syscalls.allow_extra.is_empty() && strict.systemd.accept.is_empty());
        assert!(!strict.network.allow.iter().any(|kind| kind.0 == "host"));
        assert!(
            NEVER.split(' ').all(|path| strict
                .derived
                .binds_never
                .iter()
                .any(|p| p.to_string() == path))
        );
        let nomad: Vec<_> = strict.derived.nomad_data.iter().map(ToString::to_string).collect();
        assert_eq!(nomad, ["/var/lib/nomad", "/opt/nomad/data"]);
        let own = parse("[nomad]\nalloc_dirs = [\"/alloc\", \"/data/nomad/alloc\"]").unwrap();
        for (policy, expected) in [
            (&strict, ["/var/lib/alloc_mounts", "/opt/nomad/alloc_mounts"]),
            (&own, ["/alloc_mounts", "/data/alloc_mounts"]),
        ] {
            let mounts: Vec<_> =
                policy.derived.alloc_mounts.iter().map(ToString::to_string).collect();
            assert_eq!(mounts, expected);
            assert!(
                policy
                    .derived
                    .alloc_mounts
                    .iter()
                    .all(|path| policy.derived.binds_never.contains(path))
            );
        }
    }

    #[test]
    fn the_compat_preset_allows_what_the_older_driver_did() {
        let compat = parse("preset = \"compat\"").unwrap();
        assert_eq!(parse(COMPAT).unwrap(), compat);
        assert!(!compat.userns.require && compat.binds.unprotected.0 == Unprotected::AsAsked);
        assert!(compat.derived.binds_never.is_empty() && compat.derived.nomad_data.is_empty());
        assert!(
            compat.derived.images_never.is_empty()
                && compat.derived.alloc_mounts == parse("").unwrap().derived.alloc_mounts
        );
        assert_eq!(compat.caps.allow.0, Capabilities::ALL);
        // Other keys override it.
        let narrow = parse("preset = \"compat\"\n[userns]\nrequire = true").unwrap();
        assert!(narrow.userns.require && narrow.binds.unprotected.0 == Unprotected::AsAsked);
    }

    #[test]
    fn sizes_and_image_directories_have_two_spellings() {
        for (text, bytes) in [
            ("\"2g\"", 2 << 30),
            ("\"64M\"", 64 << 20),
            ("1_048_576", 1 << 20),
            ("\"2097152\"", 2 << 20),
        ] {
            let policy = parse(&format!("[limits]\nmemory = {text}")).unwrap();
            assert_eq!(policy.limits.memory.map(|size| size.0), Some(bytes), "{text}");
        }
        let directories =
            parse("[images]\npaths = [\"/a\", { path = \"/b\", writable = true }]").unwrap();
        let read: Vec<_> = directories.images.paths.iter().map(|entry| entry.writable).collect();
        assert_eq!(read, [false, true]);
        assert!(parse("[systemd]\naccept = [\"257.9-1\"]").unwrap().accepts("257.9-1"));
        assert!(!parse("").unwrap().accepts("257.9-1"));
    }

    /// A file is refused whole, with one line that holds number and text of the line and the rule.
    #[test]
    fn bad_files_are_refused_with_line_and_rule() {
        for (text, words) in [
            ("[images]\npath = []", "line 2: path = []: unknown field `path`, expected `store`"),
            ("\n\n[image]\npaths = []", "line 3: [image]: unknown field `image`"),
            ("images = 7", "line 1: images = 7: [images] must be a table"),
            ("\n[[userns]]\nrequire = false", "line 2: [[userns]]: [userns] must be a table"),
            ("store = 7", "line 1: store = 7: unknown field `store`"),
            ("store = [7]", "line 1: store = [7]: unknown field `store`"),
            ("[preset]\na = 1", "invalid type: map, expected a string"),
            ("[preset]\ncompat = {}", "invalid type: map, expected a string"),
            ("preset = { compat = {} }", "invalid type: map, expected a string"),
            ("a = ", "line 1: a =: "),
            ("[network]\nallow = []\n\nallow = []", "line 4: allow = []: duplicate key"),
            (
                "[network]\nallow = [\"everything\"]",
                "line 2: allow = [\"everything\"]: \"everything\" is not one of private",
            ),
            (
                "[network]\nallow = [\n\"host\",\n\"bridge:\"]",
                "line 2: allow = [: \"bridge:\" is not one of",
            ),
            ("[nomad]\nalloc_dirs = [\"relative\"]", "must begin with /"),
            ("[nomad]\nagent_uid = 4294967296", "expected u32"),
            ("[nomad]\nagent_uid = -1", "expected u32"),
            ("[images]\nstore = \"/a/../b\"", "not . or .."),
            ("[images]\npaths = [{ path = \"/a\" }]", "neither a path nor { path"),
            ("[images]\npaths = [[\"/a\", true]]", "neither a path nor { path"),
            ("[images]\npaths = [{ path = \"/a\", writable = true, x = 1 }]", "neither a path"),
            ("[images]\npaths = [{ path = \"/a\", writable = \"yes\" }]", "neither a path"),
            ("[userns]\nrequire = \"no\"", "line 2: require = \"no\": invalid type: string \"no\""),
            ("preset = \"open\"", "line 1: preset = \"open\": \"open\" is not one of strict"),
            ("[binds]\nunprotected = \"yes\"", "is not one of refuse, unmapped, as-asked"),
            ("[devices]\nallow = [\"/dev/fuse\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"/dev/fuse:\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"/dev/fuse:rx\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"**:r\"]", "/dev/PATTERN:ACCESS"),
            ("[caps]\nallow = [\"root\"]", "\"root\" is not a capability"),
            ("[limits]\nmax_tasks = 1025", "1025 is not a size of 0 to 1024"),
            ("[limits]\nmemory = \"2x\"", "\"2x\" is not a size"),
            ("[limits]\nmemory = \"1k\"", "is not a size"),
            ("[limits]\nmemory = \"99999999999999999999g\"", "is not a size"),
            ("[limits]\nmemory = true", "neither a number nor a string"),
            ("[limits]\ntasks = 0", "is not a size"),
            ("[limits]\nswap = \"much\"", "\"much\" is not a size"),
            ("[limits]\nswap = -1", "neither a number nor a string"),
            ("[limits]\nmin_free = \"100%\"", "is not a size"),
            ("[limits]\noom_score_adj = -1001", "-1001 is not an oom_score_adj"),
            ("[limits]\noom_score_adj = \"0\"", "expected i64"),
            ("[properties]\nallow = [\"ExecStart\"]", "\"ExecStart\" is not one of MemoryHigh"),
            ("[nomad]\ncgroup_parent = \"a/../b\"", "not . or .."),
            ("[nomad]\ncgroup_parent = \"/\"", "is not the name of a cgroup"),
            ("[network]\negress = [\"10.0.0.1/8\"]", "has bits set beyond"),
            ("[limits]\nulimit = { files = 1 }", "\"files\" is not a process limit"),
            ("[limits]\nulimit = { nofile = \"many\" }", "is not a size"),
            ("[syscalls]\nallow_extra = [\"@ swap\"]", "a system call's name"),
            ("[sysctl]\nallow = [\"\"]", "without blanks"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    /// By their order alone a value could mean another key than its author had in mind.
    #[test]
    fn a_section_is_no_array_of_its_values() {
        for (text, section) in [
            ("userns = [false, []]", "userns"),
            ("preset = \"compat\"\nnetwork = [[\"host\"], []]", "network"),
            ("images = [\"/srv\", []]", "images"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.ends_with(&format!("]: [{section}] must be a table")), "{error}");
        }
    }

    /// The keys of both files in example/, and those that have no default.
    fn keys() -> Vec<String> {
        let unset = [
            "limits.memory",
            "limits.tasks",
            "network.pool",
            "network.pool_ipv6",
            "network.egress",
        ];
        let mut all = unset.map(str::to_owned).to_vec();
        for (section, value) in DeTable::parse(STRICT).unwrap().get_ref() {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let keys =
                        table.keys().map(|key| format!("{}.{}", section.get_ref(), key.get_ref()));
                    all.extend(keys);
                }
                _ => all.push(section.get_ref().to_string()),
            }
        }
        all
    }

    /// The value of a key as written, line breaks and indentation aside.
    fn written(text: &str, key: &str) -> Option<String> {
        let file = DeTable::parse(text).unwrap();
        let table = file.get_ref();
        let value = match key.split_once('.') {
            None => table.get(key)?,
            Some((section, name)) => table.get(section)?.get_ref().as_table()?.get(name)?,
        };
        let source = text.get(value.span()).unwrap();
        let joined = source.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(joined.replace("[ ", "[").replace(", ]", "]").replace(" ]", "]"))
    }

    /// Every key is read with a type of its own: none takes a date.
    #[test]
    fn every_key_is_read() {
        for key in keys() {
            let text = match key.split_once('.') {
                Some((section, name)) => format!("[{section}]\n{name} = 1979-05-27"),
                None => format!("{key} = 1979-05-27"),
            };
            let error = parse(&text).unwrap_err();
            assert!(error.contains("= 1979-05-27: "), "{key}: {error}");
            assert!(!error.contains("unknown field"), "{key}: {error}");
        }
    }

    /// docs/POLICY.md has a row for every key, with both defaults as the files in example/ have them.
    #[test]
    fn the_documentation_has_a_row_for_every_key() {
        let rows: Vec<Vec<&str>> = include_str!("../../../docs/POLICY.md")
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect())
            .collect();
        let keys = keys();
        for key in &keys {
            let mut found =
                rows.iter().filter(|row| row.first() == Some(&format!("`{key}`").as_str()));
            let Some([_, kind, default, other, meaning]) = found.next().map(Vec::as_slice) else {
                panic!("docs/POLICY.md has no row of five cells for {key}");
            };
            assert!(found.next().is_none() && !kind.is_empty() && meaning.len() > 20, "{key}");
            let other = if *other == "same" { default } else { other };
            for (cell, file) in [(default, STRICT), (other, COMPAT)] {
                let expected = written(file, key).unwrap_or_else(|| "unset".to_owned());
                assert_eq!(cell.trim_matches('`'), expected, "{key}");
            }
        }
        assert_eq!(rows.len(), keys.len(), "a row of no key");
    }
}
