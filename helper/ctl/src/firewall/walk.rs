//! The way of a packet through a chain.

use serde_json::Value;

use super::packet::{Packet, Place};
use super::ruleset::{Name, Ruleset};

/// Chains that may be entered from each other; the kernel allows no more (NFT_JUMP_STACK_SIZE).
const DEPTH: u32 = 16;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Accepted,
    Dropped,
}

/// Whether a packet is dropped for certain by a chain that it enters by itself.
pub(super) fn is_dropped(
    ruleset: &Ruleset,
    (chain, drops): &(Name, bool),
    packet: &Packet,
) -> bool {
    walk(ruleset, chain, packet, 0).map_or(*drops, |end| end == End::Dropped)
}

/// `None`: it comes back, or reaches the chain's end.
fn walk(ruleset: &Ruleset, chain: &Name, packet: &Packet, depth: u32) -> Option<End> {
    if depth > DEPTH {
        return None;
    }
    let place = Place { ruleset, chain };
    for rule in ruleset.chains.get(chain)? {
        // A verdict that hangs on what is not known is none.
        let Some(verdict) = verdict(&place, rule, packet) else { continue };
        let (kind, content) = verdict.as_object().and_then(|it| it.iter().next())?;
        let enter = || {
            let (family, table, _) = chain;
            let target = content.get("target").and_then(Value::as_str)?.to_owned();
            walk(ruleset, &(family.clone(), table.clone(), target), packet, depth + 1)
        };
        match kind.as_str() {
            "accept" => return Some(End::Accepted),
            "drop" | "reject" => return Some(End::Dropped),
            "return" => return None,
            "goto" => return enter(),
            "jump" => match enter() {
                None => {}
                end => return end,
            },
            "xt" if content.get("name").is_some_and(|name| name == "REJECT" || name == "DROP") => {
                return Some(End::Dropped);
            }
            _ => {}
        }
    }
    None
}

/// The verdict that a rule has for a packet; `None` when the packet does not meet its conditions, or
/// it is not known whether it does.
fn verdict<'a>(place: &Place<'a>, rule: &'a [Value], packet: &Packet) -> Option<&'a Value> {
    for statement in rule {
        let (kind, content) = statement.as_object().and_then(|it| it.iter().next())?;
        match kind.as_str() {
            "accept" | "drop" | "reject" | "return" | "goto" | "jump" => return Some(statement),
            "xt" if content.get("type").and_then(Value::as_str) == Some("target") => {
                return Some(statement);
            }
            "vmap" => return by_map(place, content, packet),
            // Rules about connections that let packets pass are for answers, nearly always.
            "xt" if is_about_connections(content)
                && rule.iter().any(|it| it.get("accept").is_some()) =>
            {
                if !packet.is_established {
                    return None;
                }
            }
            _ if packet.is_foreign_to(statement) => return None,
            _ if packet.passes(place, statement) == Some(true) => {}
            _ => return None,
        }
    }
    None
}

fn is_about_connections(module: &Value) -> bool {
    module.get("name").is_some_and(|name| name == "conntrack" || name == "state")
}

/// The verdict of a map's first key that the packet has.
fn by_map<'a>(place: &Place<'a>, map: &'a Value, packet: &Packet) -> Option<&'a Value> {
    let data = map.get("data")?;
    let pairs = match data.as_str() {
        Some(name) => {
            let (family, table, _) = place.chain;
            place.ruleset.set(family, table, name.strip_prefix('@')?)
        }
        None => data.get("set")?.as_array()?,
    };
    pairs.iter().find_map(|pair| {
        let [key, verdict] = pair.as_array()?.as_slice() else { return None };
        (packet.has(place, map.get("key")?, key) == Some(true)).then_some(verdict)
    })
}
