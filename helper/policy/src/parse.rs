//! From the text of a policy file to a [`Policy`].
//!
//! The defaults are the two files in example/, word for word: what an operator reads there is what
//! holds without a file. A key that only a later version uses is checked all the same.

use std::io;
use std::path::Path;

use proto::capability::Capabilities;
use proto::limits;
use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::process::SyscallName;

use super::isolation;
use super::model::{DeviceRule, ImagePath, Policy};
use super::reader::{Item, Reader};

const STRICT: &str = include_str!("../../../example/policy.toml");
const COMPAT: &str = include_str!("../../../example/policy-compat.toml");

/// What the strict preset never binds, beside the images and Nomad's data.
const NEVER: &str = "/proc /sys /dev /run /var/lib/nomad-nspawn \
                     /etc/nomad-nspawn /usr/libexec/nomad-nspawn";

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
/// One line that names line, key, value and rule.
pub fn parse(text: &str) -> Result<Policy, String> {
    let file = Reader::new(text)?;
    let compat = match file.get("preset") {
        None => false,
        Some(item) => one_of(item, &["strict", "compat"])? == "compat",
    };
    let defaults = Reader::new(if compat { COMPAT } else { STRICT })?;
    file.check_keys(&defaults)?;
    let keys = Keys { file: &file, defaults: &defaults };
    check_later(keys)?;
    let images_store = path(keys.need("images.store")?)?;
    let images_paths = keys.list("images.paths", image_path)?;
    let alloc_dirs = keys.list("nomad.alloc_dirs", path)?;
    let alloc_mounts: Vec<_> = alloc_dirs.iter().filter_map(mounts).collect();
    let (mut binds_never, mut nomad_data, mut images_never) = (Vec::new(), Vec::new(), Vec::new());
    if !compat {
        binds_never.extend(NEVER.split(' ').filter_map(|path| Absolute::parse(path).ok()));
        nomad_data.extend(alloc_dirs.iter().filter_map(parent));
        images_never = [binds_never.as_slice(), &nomad_data].concat();
        binds_never.extend(alloc_mounts.iter().cloned());
        binds_never.push(images_store.clone());
        binds_never.extend(images_paths.iter().map(|entry| entry.path.clone()));
    }
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    let optional = |key, range| keys.get(key).map(|item| item.size(range)).transpose();
    Ok(Policy {
        images_store,
        images_paths,
        images_never,
        alloc_dirs,
        alloc_mounts,
        agent_uid: number(keys.need("nomad.agent_uid")?, u32::MAX)?,
        userns_require: keys.need("userns.require")?.flag()?,
        userns_except: keys.list("userns.except", path)?,
        binds_read_only: keys.list("binds.read_only", path)?,
        binds_read_write: keys.list("binds.read_write", path)?,
        binds_deny: keys.list("binds.deny", path)?,
        binds_never,
        nomad_data,
        binds_unprotected: unprotected(keys.need("binds.unprotected")?)?,
        devices_allow: keys.list("devices.allow", device)?,
        caps_allow: keys
            .list("caps.allow", capability)?
            .into_iter()
            .fold(Capabilities::default(), Capabilities::with),
        network_allow: keys.list("network.allow", network)?,
        netns_paths: keys.list("network.netns_paths", path)?,
        max_tasks: number(keys.need("limits.max_tasks")?, limits::TASKS_MAX)?,
        memory: optional("limits.memory", memory)?,
        tasks: optional("limits.tasks", limits::TASKS_LIMIT)?,
        ulimit: isolation::ceilings(keys.need("limits.ulimit")?)?,
        syscalls_extra: keys.list("syscalls.allow_extra", syscall)?,
        sysctl_allow: keys.list("sysctl.allow", word)?,
        lsm_profiles: keys.list("lsm.profiles", word)?,
        systemd_accept: keys.list("systemd.accept", word)?,
    })
}

/// Checks the keys of later versions.
fn check_later(keys: Keys<'_>) -> Result<(), String> {
    keys.list("images.urls", word)?;
    keys.list("images.registries", word)?;
    let verify = ["no", "checksum", "signature", "digest", "verity"];
    one_of(keys.need("images.min_verify")?, &verify)?;
    keys.get("images.cache_dir").map(path).transpose()?;
    keys.get("images.cache_max_size").map(|item| item.size(0..=u64::MAX)).transpose()?;
    keys.list("network.ports", ports)?;
    keys.list("properties.allow", word)?;
    keys.need("oom_score_adj.min")?.number(-1000..=1000)?;
    let slice = keys.need("slice.parent")?;
    if !word(slice)?.ends_with(".slice") {
        return Err(slice.wrong("is not a slice: its name ends with .slice"));
    }
    one_of(keys.need("audit.target")?, &["journal"]).map(drop)
}

/// The file's values, with the preset's behind them.
#[derive(Clone, Copy)]
struct Keys<'a> {
    file: &'a Reader<'a>,
    defaults: &'a Reader<'a>,
}

impl<'a> Keys<'a> {
    fn get(self, key: &'static str) -> Option<Item<'a>> {
        self.file.get(key).or_else(|| self.defaults.get(key))
    }

    fn need(self, key: &'static str) -> Result<Item<'a>, String> {
        self.get(key).ok_or_else(|| format!("{key} has no default"))
    }

    fn list<T>(
        self,
        key: &'static str,
        element: impl Fn(Item<'a>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        self.need(key)?.list()?.map(element).collect()
    }
}

fn parent(path: &Absolute) -> Option<Absolute> {
    let path = path.to_path();
    Absolute::parse(path.parent().unwrap_or(&path).to_str()?).ok()
}

/// Where Nomad (1.8) mounts what is below `alloc_dir` again: beside its data folder.
fn mounts(alloc_dir: &Absolute) -> Option<Absolute> {
    Absolute::parse(&format!("{}/alloc_mounts", parent(&parent(alloc_dir)?)?)).ok()
}

fn path(item: Item<'_>) -> Result<Absolute, String> {
    Absolute::parse(item.text()?).map_err(|e| item.wrong(format!("is {e}")))
}

fn number<T: TryFrom<i64> + TryInto<i64>>(item: Item<'_>, most: T) -> Result<T, String> {
    let most = most.try_into().unwrap_or(i64::MAX);
    T::try_from(item.number(0..=most)?).map_err(|_| item.wrong("is too large"))
}

fn one_of<'a>(item: Item<'a>, words: &[&str]) -> Result<&'a str, String> {
    let text = item.text()?;
    if words.contains(&text) {
        return Ok(text);
    }
    Err(item.wrong(format!("is not one of {}", words.join(", "))))
}

fn unprotected(item: Item<'_>) -> Result<Unprotected, String> {
    Ok(match one_of(item, &["refuse", "unmapped", "as-asked"])? {
        "refuse" => Unprotected::Refuse,
        "unmapped" => Unprotected::Unmapped,
        _ => Unprotected::AsAsked,
    })
}

/// A text that holds something and no blank or control character.
fn word(item: Item<'_>) -> Result<String, String> {
    let text = item.text()?;
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(item.wrong("must be a text without blanks"));
    }
    Ok(text.to_owned())
}

fn image_path(item: Item<'_>) -> Result<ImagePath, String> {
    match (item.members(), item.member("path"), item.member("writable")) {
        (None, ..) => Ok(ImagePath { path: path(item)?, writable: false }),
        (Some(2), Some(folder), Some(writable)) => {
            Ok(ImagePath { path: path(folder)?, writable: writable.flag()? })
        }
        _ => Err(item.wrong("is not a table of path and writable")),
    }
}

fn device(item: Item<'_>) -> Result<DeviceRule, String> {
    let text = item.text()?;
    let wrong = || item.wrong("is not of the form /dev/PATTERN:ACCESS with ACCESS of r, w, m");
    let (pattern, letters) = text.rsplit_once(':').ok_or_else(wrong)?;
    let known = letters.chars().all(|c| "rwm".contains(c));
    if !pattern.starts_with("/dev/") || letters.is_empty() || !known {
        return Err(wrong());
    }
    let has = |letter| letters.contains(letter);
    let access = DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') };
    Ok(DeviceRule { pattern: pattern.to_owned(), access })
}

fn capability(item: Item<'_>) -> Result<Capabilities, String> {
    Capabilities::named(item.text()?)
        .ok_or_else(|| item.wrong("is no capability (capabilities(7)) and not \"all\""))
}

fn network(item: Item<'_>) -> Result<String, String> {
    let text = word(item)?;
    let named = |kind| text.strip_prefix(kind).is_some_and(|name: &str| !name.is_empty());
    let plain = ["private", "veth", "zone", "group", "host", "none"].contains(&text.as_str());
    if plain || named("bridge:") || named("macvlan:") {
        return Ok(text);
    }
    Err(item.wrong(
        "is not one of private, veth, zone, group, host, none, bridge:NAME, macvlan:INTERFACE",
    ))
}

fn syscall(item: Item<'_>) -> Result<String, String> {
    let text = item.text()?;
    if text != "*" {
        SyscallName::new(text).map_err(|e| item.wrong(format!("is {e}")))?;
    }
    Ok(text.to_owned())
}

/// A port, or two with a dash between.
fn ports(item: Item<'_>) -> Result<(), String> {
    let text = item.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(()),
        _ => Err(item.wrong("is not FIRST-LAST or one port, 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_strict() {
        let strict = parse("").unwrap();
        assert_eq!(parse(STRICT).unwrap(), strict);
        assert_eq!(parse("preset = \"strict\"").unwrap(), strict);
        assert!(strict.userns_require && strict.binds_unprotected == Unprotected::Refuse);
        let lists = [&strict.binds_read_only, &strict.binds_read_write, &strict.userns_except];
        assert!(lists.iter().all(|list| list.is_empty()));
        assert!(strict.devices_allow.is_empty() && strict.lsm_profiles.is_empty());
        assert!(strict.syscalls_extra.is_empty() && strict.systemd_accept.is_empty());
        assert!(!strict.network_allow.contains(&"host".to_owned()));
        assert!(
            NEVER.split(' ').all(|path| strict.binds_never.iter().any(|p| p.to_string() == path))
        );
        let nomad: Vec<_> = strict.nomad_data.iter().map(ToString::to_string).collect();
        assert_eq!(nomad, ["/var/lib/nomad", "/opt/nomad/data"]);
        let own = parse("[nomad]\nalloc_dirs = [\"/alloc\", \"/data/nomad/alloc\"]").unwrap();
        for (policy, expected) in [
            (&strict, ["/var/lib/alloc_mounts", "/opt/nomad/alloc_mounts"]),
            (&own, ["/alloc_mounts", "/data/alloc_mounts"]),
        ] {
            let mounts: Vec<_> = policy.alloc_mounts.iter().map(ToString::to_string).collect();
            assert_eq!(mounts, expected);
            assert!(policy.alloc_mounts.iter().all(|path| policy.binds_never.contains(path)));
        }
    }

    #[test]
    fn the_compat_preset_allows_what_the_older_driver_did() {
        let compat = parse("preset = \"compat\"").unwrap();
        assert_eq!(parse(COMPAT).unwrap(), compat);
        assert!(!compat.userns_require && compat.binds_unprotected == Unprotected::AsAsked);
        assert!(compat.binds_never.is_empty() && compat.nomad_data.is_empty());
        assert!(
            compat.images_never.is_empty()
                && compat.alloc_mounts == parse("").unwrap().alloc_mounts
        );
        assert_eq!(compat.caps_allow, Capabilities::ALL);
        // Other keys override it.
        let narrow = parse("preset = \"compat\"\n[userns]\nrequire = true").unwrap();
        assert!(narrow.userns_require && narrow.binds_unprotected == Unprotected::AsAsked);
    }

    #[test]
    fn sizes_and_image_folders_have_two_spellings() {
        for (text, bytes) in [
            ("\"2g\"", 2 << 30),
            ("\"64M\"", 64 << 20),
            ("1_048_576", 1 << 20),
            ("\"2097152\"", 2 << 20),
        ] {
            let policy = parse(&format!("[limits]\nmemory = {text}")).unwrap();
            assert_eq!(policy.memory, Some(bytes), "{text}");
        }
        let folders =
            parse("[images]\npaths = [\"/a\", { path = \"/b\", writable = true }]").unwrap();
        let read: Vec<_> = folders.images_paths.iter().map(|entry| entry.writable).collect();
        assert_eq!(read, [false, true]);
        assert!(parse("[systemd]\naccept = [\"257.9-1\"]").unwrap().accepts("257.9-1"));
        assert!(!parse("").unwrap().accepts("257.9-1"));
    }

    /// A file is refused whole, with one line that names line, key and rule.
    #[test]
    fn bad_files_are_refused_with_line_and_key() {
        for (text, words) in [
            ("[images]\npath = []", "line 2: images.path is no key"),
            ("\n\n[image]\npaths = []", "line 3: image is no key"),
            ("images = 7", "line 1: images is no key"),
            ("store = 7", "line 1: store is no key"),
            ("[preset]\na = 1", "line 1: preset:"),
            ("a = ", "line 1: "),
            ("[network]\nallow = []\n\nallow = []", "line 4: duplicate key"),
            (
                "[network]\nallow = [\"everything\"]",
                "line 2: [network] allow: \"everything\" is not one",
            ),
            (
                "[network]\nallow = [\n\"host\",\n\"bridge:\"]",
                "line 4: [network] allow: \"bridge:\"",
            ),
            ("[network]\nports = [\"0-5\"]", "1 to 65535"),
            ("[network]\nports = [\"9-5\"]", "1 to 65535"),
            ("[network]\nports = [\"70000\"]", "1 to 65535"),
            ("[nomad]\nalloc_dirs = [\"relative\"]", "must begin with /"),
            ("[nomad]\nagent_uid = 4294967296", "0 to 4294967295"),
            ("[nomad]\nagent_uid = -1", "0 to 4294967295"),
            ("[images]\nstore = \"/a/../b\"", "not . or .."),
            ("[images]\npaths = [{ path = \"/a\" }]", "is not a table of path and writable"),
            ("[images]\npaths = [{ path = \"/a\", writable = true, x = 1 }]", "path and writable"),
            ("[images]\npaths = [{ path = \"/a\", writable = \"yes\" }]", "true or false"),
            ("[images]\nmin_verify = \"maybe\"", "is not one of no, checksum"),
            ("[userns]\nrequire = \"no\"", "line 2: [userns] require: \"no\" is not true or false"),
            ("preset = \"open\"", "line 1: preset: \"open\" is not one of strict, compat"),
            ("[binds]\nunprotected = \"yes\"", "is not one of refuse, unmapped, as-asked"),
            ("[devices]\nallow = [\"/dev/fuse\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"/dev/fuse:\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"/dev/fuse:rx\"]", "/dev/PATTERN:ACCESS"),
            ("[devices]\nallow = [\"**:r\"]", "/dev/PATTERN:ACCESS"),
            ("[caps]\nallow = [\"root\"]", "is no capability"),
            ("[limits]\nmax_tasks = 1025", "0 to 1024"),
            ("[limits]\nmemory = \"2x\"", "is not a size"),
            ("[limits]\nmemory = \"1k\"", "is not a size"),
            ("[limits]\nmemory = \"99999999999999999999g\"", "is not a size"),
            ("[limits]\ntasks = 0", "is not a size"),
            ("[limits]\nulimit = { files = 1 }", "is not a table of process limits"),
            ("[limits]\nulimit = { nofile = \"many\" }", "is not a size"),
            ("[syscalls]\nallow_extra = [\"@ swap\"]", "a system call's name"),
            ("[oom_score_adj]\nmin = -1001", "-1000 to 1000"),
            ("[slice]\nparent = \"machine\"", "ends with .slice"),
            ("[audit]\ntarget = \"/var/log/x\"", "is not one of journal"),
            ("[sysctl]\nallow = [\"\"]", "without blanks"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    /// No key is known and then not looked at.
    #[test]
    fn every_key_is_read() {
        for key in Reader::new(STRICT).unwrap().keys() {
            let text = match key.split_once('.') {
                Some((section, name)) => format!("[{section}]\n{name} = 1979-05-27"),
                None => format!("{key} = 1979-05-27"),
            };
            let error = parse(&text).unwrap_err();
            assert!(error.contains("1979-05-27 is not"), "{key}: {error}");
        }
    }

    /// docs/POLICY.md has a row for every key, with both defaults as the files in example/ have them.
    #[test]
    fn the_documentation_has_a_row_for_every_key() {
        let (strict, compat) = (Reader::new(STRICT).unwrap(), Reader::new(COMPAT).unwrap());
        let rows: Vec<Vec<&str>> = include_str!("../../../docs/POLICY.md")
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect())
            .collect();
        let keys = strict.keys();
        for key in &keys {
            let mut found =
                rows.iter().filter(|row| row.first() == Some(&format!("`{key}`").as_str()));
            let Some([_, kind, default, other, meaning]) = found.next().map(Vec::as_slice) else {
                panic!("docs/POLICY.md has no row of five cells for {key}");
            };
            assert!(found.next().is_none() && !kind.is_empty() && meaning.len() > 20, "{key}");
            let other = if *other == "same" { default } else { other };
            for (cell, file) in [(default, &strict), (other, &compat)] {
                match file.get(key.clone().leak()) {
                    None => assert_eq!(*cell, "unset", "{key}"),
                    Some(item) => {
                        assert_eq!(cell.trim_matches('`'), item.source_on_one_line(), "{key}")
                    }
                }
            }
        }
        assert_eq!(rows.len(), keys.len(), "a row of no key");
    }
}
