//! From the text of a policy file to a [`Policy`].
//!
//! The defaults are the two files in example/, word for word: what an operator reads there is what
//! holds without a file. A key that only a later version uses is checked all the same.

use proto::capability::Capabilities;
use proto::limits;
use proto::path::Absolute;
use proto::spec::files::DeviceAccess;
use proto::spec::process::SyscallName;

use super::file::{DeviceRule, ImagePath, Policy};
use super::reader::{Item, Reader};

const STRICT: &str = include_str!("../../../example/policy.toml");
const COMPAT: &str = include_str!("../../../example/policy-compat.toml");

/// What the strict preset never binds, beside the images and Nomad's data.
const NEVER: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/lib/nomad-nspawn",
    "/etc/nomad-nspawn",
    "/usr/libexec/nomad-nspawn",
];

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
    let keys = Keys { file: &file, defaults: &defaults };
    check_later(keys)?;
    let images_store = path(keys.need("images.store")?)?;
    let images_paths = keys.list("images.paths", image_path)?;
    let alloc_dirs = keys.list("nomad.alloc_dirs", path)?;
    let (mut binds_never, mut nomad_data) = (Vec::new(), Vec::new());
    if !compat {
        binds_never.extend(NEVER.iter().filter_map(|path| Absolute::parse(path).ok()));
        binds_never.push(images_store.clone());
        binds_never.extend(images_paths.iter().map(|entry| entry.path.clone()));
        nomad_data.extend(alloc_dirs.iter().filter_map(parent));
    }
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    let optional = |key, range| keys.get(key).map(|item| item.size(range)).transpose();
    Ok(Policy {
        images_store,
        images_paths,
        alloc_dirs,
        agent_uid: number(keys.need("nomad.agent_uid")?, u32::MAX)?,
        userns_require: keys.need("userns.require")?.flag()?,
        userns_except: keys.list("userns.except", path)?,
        binds_read_only: keys.list("binds.read_only", path)?,
        binds_read_write: keys.list("binds.read_write", path)?,
        binds_deny: keys.list("binds.deny", path)?,
        binds_never,
        nomad_data,
        binds_unmapped: one_of(keys.need("binds.unprotected")?, &["refuse", "unmapped"])?
            == "unmapped",
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

/// A text that holds something and no blank or control character.
fn word(item: Item<'_>) -> Result<String, String> {
    let text = item.text()?;
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(item.wrong("must be a text without blanks"));
    }
    Ok(text.to_owned())
}

fn image_path(item: Item<'_>) -> Result<ImagePath, String> {
    if !item.is_table() {
        return Ok(ImagePath { path: path(item)?, writable: false });
    }
    let [folder, writable] = item.members(["path", "writable"])?;
    Ok(ImagePath { path: path(folder)?, writable: writable.flag()? })
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
