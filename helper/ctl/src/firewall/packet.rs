//! A packet of a task, as far as it is known before it is sent, and which rules it meets.

use std::net::IpAddr;

use serde_json::Value;

use super::ruleset::{Name, Ruleset};

/// A TCP packet that the host forwards.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) is_ipv6: bool,
    pub(super) from_link: String,
    pub(super) to_link: String,
    /// `None`: any.
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    /// Whether its connection has been answered.
    pub(super) is_established: bool,
    /// Whether its connection was made to a published port.
    pub(super) is_published: bool,
}

/// Statements after which a packet goes on, whatever they do.
const NEUTRAL: [&str; 12] = [
    "counter",
    "log",
    "mangle",
    "flow",
    "set",
    "notrack",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "secmark",
    "comment",
    "meter",
];

impl Packet {
    /// Whether a statement lets it go on to the next; `None`: it depends on what is not known.
    pub(super) fn passes(&self, at: &Place<'_>, statement: &Value) -> Option<bool> {
        let (kind, content) = statement.as_object().and_then(|it| it.iter().next())?;
        match kind.as_str() {
            "match" => {
                let holds = self.has(at, content.get("left")?, content.get("right")?)?;
                match content.get("op").and_then(Value::as_str)? {
                    "==" | "in" => Some(holds),
                    "!=" => Some(!holds),
                    _ => None,
                }
            }
            // Of iptables; nft does not print what is compared.
            "xt" => (content.get("name").and_then(Value::as_str)? == "comment").then_some(true),
            kind => NEUTRAL.contains(&kind).then_some(true),
        }
    }

    /// Whether a part of it is one of the wanted values.
    pub(super) fn has(&self, at: &Place<'_>, part: &Value, wanted: &Value) -> Option<bool> {
        let (kind, content) = part.as_object().and_then(|it| it.iter().next())?;
        let key = content.get("key").and_then(Value::as_str).unwrap_or_default();
        let is = |value: &'static str| at.any(wanted, &|one| Some(one.as_str()? == value));
        match (kind.as_str(), key) {
            ("meta", "iifname" | "iif") => at.any(wanted, &|one| is_link(&self.from_link, one)),
            ("meta", "oifname" | "oif") => at.any(wanted, &|one| is_link(&self.to_link, one)),
            ("meta", "nfproto") => is(if self.is_ipv6 { "ipv6" } else { "ipv4" }),
            ("meta", "protocol") => is(if self.is_ipv6 { "ip6" } else { "ip" }),
            ("meta", "l4proto") => is("tcp"),
            ("ct", "state") => is(if self.is_established { "established" } else { "new" }),
            ("ct", "status") => {
                at.any(wanted, &|one| (one.as_str()? == "dnat").then_some(self.is_published))
            }
            ("payload", _) => self.has_field(at, content, wanted),
            _ => None,
        }
    }

    fn has_field(&self, at: &Place<'_>, field: &Value, wanted: &Value) -> Option<bool> {
        let text = |key: &str| field.get(key).and_then(Value::as_str);
        let own = if self.is_ipv6 { "ip6" } else { "ip" };
        let address = |address: Option<IpAddr>| {
            at.any(wanted, &|one| Some(holds(&read_prefix(one)?, address?)))
        };
        match (text("protocol")?, text("field")?) {
            (protocol, "saddr") if protocol == own => address(self.source),
            (protocol, "daddr") if protocol == own => address(self.destination),
            ("ip", "protocol") if !self.is_ipv6 => {
                at.any(wanted, &|one| Some(one.as_str()? == "tcp"))
            }
            _ => None,
        }
    }

    /// Whether a rule is about packets of another kind, however it compares: `ip6 daddr != …` holds
    /// for no packet of IPv4.
    pub(super) fn is_foreign_to(&self, statement: &Value) -> bool {
        let left = statement.get("match").and_then(|it| it.get("left"));
        let protocol = left.and_then(|it| it.get("payload")).and_then(|it| it.get("protocol"));
        match protocol.and_then(Value::as_str) {
            Some("ip" | "icmp" | "igmp") => self.is_ipv6 || protocol != Some(&Value::from("ip")),
            Some("ip6") => !self.is_ipv6,
            Some(
                "icmpv6" | "udp" | "udplite" | "sctp" | "dccp" | "esp" | "ah" | "ether" | "arp",
            ) => true,
            _ => false,
        }
    }
}

/// Where a statement stands, for the sets that it names.
pub(super) struct Place<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) chain: &'a Name,
}

impl Place<'_> {
    /// Whether `is` holds for one of the values: a value, a list, a set, or a set's name.
    pub(super) fn any(&self, values: &Value, is: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
        let list = match values {
            Value::Array(list) => list,
            Value::String(name) if name.starts_with('@') => self.named(name)?,
            Value::Object(object) => match (object.get("set"), object.get("elem")) {
                (Some(set), _) => return self.any(set, is),
                (_, Some(element)) => return self.any(element.get("val")?, is),
                _ => return is(values),
            },
            value => return is(value),
        };
        let mut known = Some(false);
        for value in list {
            match self.any(value, is) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => known = None,
            }
        }
        known
    }

    /// The elements of a set or map of the same table.
    pub(super) fn named(&self, name: &str) -> Option<&Vec<Value>> {
        let (family, table, _) = self.chain;
        let name = name.strip_prefix('@')?.to_owned();
        self.ruleset.sets.get(&(family.clone(), table.clone(), name))
    }
}

/// Whether a link has a name, or one that begins so.
fn is_link(link: &str, wanted: &Value) -> Option<bool> {
    let wanted = wanted.as_str()?;
    Some(wanted.strip_suffix('*').map_or(link == wanted, |begin| link.starts_with(begin)))
}

/// An address, a prefix, or a range: first and last.
fn read_prefix(value: &Value) -> Option<(IpAddr, IpAddr)> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(prefix) = value.get("prefix") {
        let bits = prefix.get("len")?.as_u64()?;
        return Some(crate::routes::ends(address(prefix.get("addr")?)?, u8::try_from(bits).ok()?));
    }
    if let Some([first, last]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some((address(first)?, address(last)?));
    }
    let one = address(value)?;
    Some((one, one))
}

fn holds((first, last): &(IpAddr, IpAddr), address: IpAddr) -> bool {
    first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address)
}
