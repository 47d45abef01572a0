//! The values of `[network]` in a policy file: prefixes of addresses, and ports.
//!
//! As in `values`, a value that breaks its rule does not deserialize. What is read here is the
//! operator's; nothing of a job is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, RangeInclusive};

use serde::Deserialize;

use super::values::{Checked, List};

/// Lengths of the IPv4 pool, from 16 million addresses down to 16 (14 tasks).
const POOL: RangeInclusive<u8> = 8..=28;
/// Lengths of the IPv6 pool.
const POOL_IPV6: RangeInclusive<u8> = 48..=112;

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix<A> {
    /// The first of them: no bit is set beyond the length.
    pub address: A,
    /// How many bits they share: at most 32, or 128 for IPv6.
    pub bits: u8,
}

impl Prefix<IpAddr> {
    const fn v4(a: u8, b: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), bits }
    }

    const fn v6(first: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits }
    }

    /// Whether all of `other`'s addresses are its own too.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        let differ = aligned(self.address) ^ aligned(other.address);
        let shared = differ.checked_shr(128_u32.saturating_sub(self.bits.into())).unwrap_or(0);
        self.address.is_ipv4() == other.address.is_ipv4() && self.bits <= other.bits && shared == 0
    }

    /// Whether no bit is set beyond the length.
    pub(crate) fn is_aligned(&self) -> bool {
        let beyond = u128::MAX.checked_shr(self.bits.into()).unwrap_or(0);
        aligned(self.address) & beyond == 0
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.holds(other) || other.holds(self)
    }
}

/// The address as the first bits of a number.
fn aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Checked for Prefix<IpAddr> {
    fn check(text: &str) -> Result<Self, String> {
        let rule = || "is not ADDRESS/BITS, e.g. 10.0.0.0/8 or fd00::/8".to_owned();
        let (address, bits) = text.split_once('/').ok_or_else(rule)?;
        let address: IpAddr = address.parse().map_err(|_| rule())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        // A sign would be taken too.
        let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u8 = bits.parse().map_err(|_| rule())?;
        if !digits || bits > longest {
            return Err(rule());
        }
        let prefix = Self { address, bits };
        if prefix.is_aligned() {
            return Ok(prefix);
        }
        Err(format!("has bits set beyond its first {bits}: write the first address"))
    }
}

impl Checked for Prefix<Ipv4Addr> {
    fn check(text: &str) -> Result<Self, String> {
        const SPECIAL: [Prefix<IpAddr>; 4] = [
            Prefix::v4(0, 0, 8),
            Prefix::v4(127, 0, 8),
            Prefix::v4(169, 254, 16),
            Prefix::v4(224, 0, 3),
        ];
        let whole = Prefix::<IpAddr>::check(text)?;
        match whole.address {
            IpAddr::V4(address) if is_pool(&whole, &POOL, &SPECIAL) => {
                Ok(Self { address, bits: whole.bits })
            }
            _ => Err("is not a pool: an IPv4 prefix of 8 to 28 bits outside 0.0.0.0/8, \
                      127.0.0.0/8, 169.254.0.0/16 and 224.0.0.0/3, e.g. 10.87.16.0/20"
                .to_owned()),
        }
    }
}

impl Checked for Prefix<Ipv6Addr> {
    fn check(text: &str) -> Result<Self, String> {
        const SPECIAL: [Prefix<IpAddr>; 3] =
            [Prefix::v6(0, 8), Prefix::v6(0xfe80, 10), Prefix::v6(0xff00, 8)];
        let whole = Prefix::<IpAddr>::check(text)?;
        match whole.address {
            IpAddr::V6(address) if is_pool(&whole, &POOL_IPV6, &SPECIAL) => {
                Ok(Self { address, bits: whole.bits })
            }
            _ => {
                Err("is not a pool: an IPv6 prefix of 48 to 112 bits outside ::/8, fe80::/10 and \
                      ff00::/8, e.g. fd4f:a91c:7b2e::/64"
                    .to_owned())
            }
        }
    }
}

fn is_pool(whole: &Prefix<IpAddr>, bits: &RangeInclusive<u8>, special: &[Prefix<IpAddr>]) -> bool {
    bits.contains(&whole.bits) && !special.iter().any(|it| it.overlaps(whole))
}

/// Prefixes of which none lies in another: what an interval set of nftables(8) takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "List<Prefix<IpAddr>>")]
pub struct Prefixes(Vec<Prefix<IpAddr>>);

impl From<List<Prefix<IpAddr>>> for Prefixes {
    fn from(list: List<Prefix<IpAddr>>) -> Self {
        let mut all = list.to_vec();
        all.sort_unstable();
        all.dedup();
        let outer = |it: &&Prefix<IpAddr>| !all.iter().any(|other| other != *it && other.holds(it));
        Self(all.iter().filter(outer).copied().collect())
    }
}

impl Deref for Prefixes {
    type Target = [Prefix<IpAddr>];

    fn deref(&self) -> &[Prefix<IpAddr>] {
        &self.0
    }
}

/// Ports of the host that tasks may publish: one, or all of a range. None of them is 0.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SpelledPorts")]
pub struct Ports(pub RangeInclusive<u16>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "neither a port nor a string such as \"1024-65535\"")]
enum SpelledPorts {
    Number(i64),
    Text(String),
}

impl TryFrom<SpelledPorts> for Ports {
    type Error = String;

    fn try_from(spelled: SpelledPorts) -> Result<Self, String> {
        let (text, shown) = match spelled {
            SpelledPorts::Number(number) => (number.to_string(), number.to_string()),
            SpelledPorts::Text(text) => (text.clone(), format!("{text:?}")),
        };
        let (low, high) = text.split_once('-').unwrap_or((&text, &text));
        match (port(low), port(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Self(low..=high)),
            _ => Err(format!("{shown} is not a port or LOW-HIGH (1 to 65535)")),
        }
    }
}

/// A port in digits alone.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Ports of the host itself that tasks reach from a network of their own. The host's loopback
/// addresses stay closed whatever is listed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SpelledHostPorts")]
pub enum HostPorts {
    /// Every port, and every other protocol.
    All,
    /// These, each once; none is 0.
    Listed(Vec<(Protocol, u16)>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "neither \"all\" nor a list of strings such as \"udp/53\"")]
enum SpelledHostPorts {
    Word(String),
    List(Vec<String>),
}

impl TryFrom<SpelledHostPorts> for HostPorts {
    type Error = String;

    fn try_from(spelled: SpelledHostPorts) -> Result<Self, String> {
        let list = match spelled {
            SpelledHostPorts::Word(word) if word == "all" => return Ok(Self::All),
            SpelledHostPorts::Word(word) => {
                return Err(format!("{word:?} is not \"all\" and not a list"));
            }
            SpelledHostPorts::List(list) => list,
        };
        let read = |text: &String| {
            let (protocol, number) = text.split_once('/')?;
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            Some((protocol, port(number)?))
        };
        let rule = |text| format!("{text:?} is not tcp/PORT or udp/PORT");
        let listed = list.iter().map(|text| read(text).ok_or_else(|| rule(text)));
        let mut listed = listed.collect::<Result<Vec<_>, _>>()?;
        listed.sort_unstable();
        listed.dedup();
        Ok(Self::Listed(listed))
    }
}

/// What happens where the host does not forward packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// It is switched on at the first start of a task that needs it.
    Enable,
    /// Such a task is refused.
    Check,
}

impl Checked for Forwarding {
    fn check(text: &str) -> Result<Self, String> {
        match text {
            "enable" => Ok(Self::Enable),
            "check" => Ok(Self::Check),
            _ => Err("is not one of enable, check".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn networks_are_typed() {
        let file = "[network]\npool = \"10.87.16.0/20\"\npool_ipv6 = \"fd12:3456:789a::/64\"\n\
                    forwarding = \"check\"\nports = [22, \"80\", \"8000-8010\"]\n\
                    host_ports = [\"udp/53\", \"tcp/53\", \"udp/53\"]\n\
                    closed = [\"10.1.0.0/16\", \"10.0.0.0/8\", \"10.0.0.0/9\", \"fd00::1/128\", \
                    \"10.0.0.0/8\", \"11.0.0.0/8\"]";
        let network = parse(file).unwrap().network;
        let (pool, pool_ipv6) = (network.pool.unwrap().0, network.pool_ipv6.unwrap().0);
        assert_eq!((pool.address.to_string(), pool.bits), ("10.87.16.0".to_owned(), 20));
        assert_eq!(
            (pool_ipv6.address.to_string(), pool_ipv6.bits),
            ("fd12:3456:789a::".to_owned(), 64)
        );
        assert_eq!(network.forwarding.0, Forwarding::Check);
        let ports: Vec<_> = network.ports.into_iter().map(|it| it.0).collect();
        assert_eq!(ports, [22..=22, 80..=80, 8000..=8010]);
        let listed = vec![(Protocol::Tcp, 53), (Protocol::Udp, 53)];
        assert_eq!(network.host_ports, HostPorts::Listed(listed));
        // Neither an entry twice nor one inside of another.
        let closed: Vec<_> =
            network.closed.iter().map(|it| format!("{}/{}", it.address, it.bits)).collect();
        assert_eq!(closed, ["10.0.0.0/8", "11.0.0.0/8", "fd00::1/128"]);
        let all = parse("[network]\nclosed = [\"::/0\", \"ff00::/8\", \"0.0.0.0/0\"]").unwrap();
        assert_eq!(all.network.closed.len(), 2, "{:?}", all.network.closed);
    }

    #[test]
    fn presets_open_and_close_the_host() {
        let (strict, compat) = (parse("").unwrap(), parse("preset = \"compat\"").unwrap());
        for policy in [&strict, &compat] {
            assert!(policy.network.pool.is_none() && policy.network.pool_ipv6.is_none());
            assert_eq!(policy.network.forwarding.0, Forwarding::Enable);
            assert!(policy.network.allow.iter().any(|kind| kind.0 == "veth"));
        }
        let closed: Vec<_> =
            strict.network.closed.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(closed, ["169.254.0.0", "fd00:ec2::254"]);
        assert!(compat.network.closed.is_empty() && compat.network.host_ports == HostPorts::All);
        assert_eq!(strict.network.ports, [Ports(1024..=65_535)]);
        assert_eq!(compat.network.ports, [Ports(1..=65_535)]);
    }

    #[test]
    fn bad_networks_are_refused_with_their_rule() {
        for (key, value, words) in [
            ("pool", "\"10.0.0.0\"", "is not ADDRESS/BITS"),
            ("pool", "\"10.0.0.0/33\"", "is not ADDRESS/BITS"),
            ("pool", "\"10.0.0.0/+8\"", "is not ADDRESS/BITS"),
            ("pool", "\"10.0.0.0/\"", "is not ADDRESS/BITS"),
            ("pool", "\"10.0.0.1/20\"", "has bits set beyond its first 20"),
            ("pool", "\"11.0.0.0/7\"", "has bits set"),
            ("pool", "\"8.0.0.0/7\"", "is not a pool"),
            ("pool", "\"10.0.0.0/29\"", "is not a pool"),
            ("pool", "\"127.0.0.0/8\"", "is not a pool"),
            ("pool", "\"169.0.0.0/8\"", "is not a pool"),
            ("pool", "\"169.254.8.0/24\"", "is not a pool"),
            ("pool", "\"240.0.0.0/8\"", "is not a pool"),
            ("pool", "\"fd00::/64\"", "is not a pool"),
            ("pool_ipv6", "\"10.0.0.0/20\"", "is not a pool"),
            ("pool_ipv6", "\"fe80::/64\"", "is not a pool"),
            ("pool_ipv6", "\"ff02::/64\"", "is not a pool"),
            ("pool_ipv6", "\"::/64\"", "is not a pool"),
            ("pool_ipv6", "\"fd00::/47\"", "is not a pool"),
            ("pool_ipv6", "\"fd00::/113\"", "is not a pool"),
            ("closed", "[\"fd00::1\"]", "is not ADDRESS/BITS"),
            ("closed", "[\"10.0.0.255/24\"]", "has bits set beyond its first 24"),
            ("closed", "[\"::1/0\"]", "has bits set beyond its first 0"),
            ("ports", "[0]", "0 is not a port or LOW-HIGH"),
            ("ports", "[65536]", "65536 is not a port"),
            ("ports", "[-1]", "-1 is not a port"),
            ("ports", "[\"90-80\"]", "\"90-80\" is not a port"),
            ("ports", "[\"80-\"]", "is not a port"),
            ("ports", "[\"+80\"]", "is not a port"),
            ("ports", "[true]", "neither a port nor a string"),
            ("host_ports", "\"none\"", "\"none\" is not \"all\" and not a list"),
            ("host_ports", "[\"53\"]", "\"53\" is not tcp/PORT or udp/PORT"),
            ("host_ports", "[\"sctp/53\"]", "is not tcp/PORT"),
            ("host_ports", "[\"tcp/0\"]", "is not tcp/PORT"),
            ("host_ports", "[53]", "neither \"all\" nor a list"),
            ("forwarding", "\"yes\"", "is not one of enable, check"),
        ] {
            let error = parse(&format!("[network]\n{key} = {value}")).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(words), "{value}: {error}");
        }
    }
}
