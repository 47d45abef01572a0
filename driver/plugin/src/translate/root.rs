//! What becomes of the image, and whose its files are: root modes, user namespace, ownership.

use proto::limits;
use proto::task_spec::{ImageKind, Layer, Ownership, Pivot, Root, RootFs, Users, Volatile};

use super::node::Node;
use super::paths::{absolute, split};
use super::targets::Targets;
use super::version;
use crate::config::Problem;
use crate::config::table::NOT_YET;
use crate::config::task::TaskKeys;
use crate::config::words::UserNamespaces;
use crate::config::words::{EphemeralMode, OwnershipWord, Persist, VolatileWord};

/// Uids below are the host's own users (UIDS-GIDS.md of systemd).
const FIRST_OTHER: u32 = 65_536;

/// How the image is used. `volatile` wins over `read_only`, which wins over `ephemeral`: each
/// leaves nothing for the next to do, as systemd-nspawn has it.
pub(crate) fn mode(keys: &TaskKeys) -> Root {
    match keys.volatile() {
        Some(VolatileWord::Yes) => return Root::Volatile(Volatile::Yes),
        Some(VolatileWord::State) => return Root::Volatile(Volatile::State),
        Some(VolatileWord::Overlay) => return Root::Volatile(Volatile::Overlay),
        Some(VolatileWord::No) | None => {}
    }
    match (keys.read_only, keys.ephemeral, keys.persist, keys.ephemeral_mode) {
        (true, ..) => Root::ReadOnly,
        (_, false, ..) => Root::Plain,
        (_, _, Persist::Alloc, _) => Root::Ephemeral(Layer::Kept),
        (_, _, _, EphemeralMode::Tmpfs) => Root::Ephemeral(Layer::Memory),
        (_, _, _, EphemeralMode::Auto | EphemeralMode::Overlay) => Root::Ephemeral(Layer::Disk),
    }
}

/// Everything about the root but the kind of its image, which shows when the image is looked for.
pub(crate) fn root(
    keys: &TaskKeys,
    users: Users,
    node: &Node<'_>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> RootFs {
    let mode = mode(keys);
    RootFs {
        kind: ImageKind::Tree,
        mode,
        ownership: ownership(keys, users, mode, node, problems),
        pivot: keys.pivot_root.as_ref().and_then(|text| pivot(text, targets, problems)),
    }
}

fn ownership(
    keys: &TaskKeys,
    users: Users,
    mode: Root,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Ownership {
    let word = keys.private_users_ownership;
    if word == OwnershipWord::Foreign {
        let key = "private_users_ownership";
        if version::need(258, key, "foreign", "write auto", node, problems) {
            problems.push(later(key, "foreign", "write auto"));
        }
    }
    match word {
        // Where container uids are the host's there is nothing to map.
        _ if !users.isolates() => Ownership::Map,
        OwnershipWord::Off => Ownership::Off,
        // What goes with the task need not be rewritten: a map shows the same owners inside.
        OwnershipWord::Chown if mode == Root::Plain => Ownership::Chown,
        _ => Ownership::Map,
    }
}

fn later(key: &str, value: &str, remedy: &str) -> Problem {
    Problem::new(key, NOT_YET).value(value).remedy(remedy)
}

/// `new` or `new:old`.
fn pivot(text: &str, targets: &mut Targets, problems: &mut Vec<Problem>) -> Option<Pivot> {
    let parts = split(text);
    let (new, old) = match parts.as_slice() {
        [new] => (new, None),
        [new, old] => (new, Some(old)),
        _ => {
            problems.push(
                Problem::new("pivot_root", "must be one or two absolute paths joined by a colon")
                    .value(text),
            );
            return None;
        }
    };
    let new = absolute("pivot_root", new, problems);
    let old = old.map(|old| targets.take("pivot_root", old, problems));
    if new.as_ref().is_some_and(|new| new.components().is_empty()) {
        problems.push(
            Problem::new("pivot_root", "/ is the root already")
                .value(text)
                .remedy("name a directory of the image, or remove it"),
        );
        return None;
    }
    Some(Pivot { new: new?, old: old.flatten() })
}

/// The task's user namespace.
pub(crate) fn users(keys: &TaskKeys, node: &Node<'_>, problems: &mut Vec<Problem>) -> Users {
    if !keys.user_namespacing {
        return Users::Host;
    }
    let default = match node.config.user_namespaces {
        UserNamespaces::Pick => "pick",
        UserNamespaces::Identity => "identity",
        UserNamespaces::Managed => "managed",
    };
    let key = if keys.private_users.is_some() { "private_users" } else { "user_namespaces" };
    match keys.private_users.as_deref().unwrap_or(default) {
        // With `yes` systemd-nspawn takes the range of the image's owner, which is not isolation
        // where that is root; a picked one is what is meant.
        "pick" | "yes" => Users::Pick,
        "identity" => Users::Identity,
        "no" => Users::Host,
        "managed" => {
            if version::need(258, key, "managed", "write pick", node, problems) {
                problems.push(later(key, "managed", "write pick"));
            }
            Users::Pick
        }
        range => parse_fixed(range, node, problems).unwrap_or(Users::Pick),
    }
}

/// `base` or `base:width`.
fn parse_fixed(text: &str, node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<Users> {
    let mut refuse = |rule: &str, remedy: &str| {
        problems.push(Problem::new("private_users", rule).value(text).remedy(remedy));
        None
    };
    let (base, width) = text.split_once(':').unwrap_or((text, "65536"));
    let (Ok(base), Ok(width)) = (base.parse::<u32>(), width.parse::<u32>()) else {
        return refuse("must be yes, no, pick, identity, uid or uid:count", "e.g. 524288:65536");
    };
    if width == 0 || width > limits::RANGE_WIDTH {
        return refuse("the range must have 1 to 65536 ids", "e.g. 524288:65536");
    }
    if base.checked_add(width).is_none() {
        return refuse("the range ends above the largest uid", "e.g. 524288:65536");
    }
    let known = (limits::RANGE_FIRST..=limits::RANGE_LAST).contains(&base);
    let usual = known && base.is_multiple_of(limits::RANGE_WIDTH);
    if base >= FIRST_OTHER && !usual && node.host_users == Some(false) {
        return refuse(
            "the range must begin at a multiple of 65536 from 524288 to 1878982656",
            "e.g. 524288; this node's policy would allow others with [userns] require = false",
        );
    }
    Some(Users::Fixed { base, width })
}
