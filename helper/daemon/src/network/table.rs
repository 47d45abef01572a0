//! The table `inet nomad_nspawn` as messages for the kernel; docs/NETWORK.md has it as `nft` lists
//! it, and a test compares the two.
//!
//! Built of the policy's numbers and of constants; reads nothing. It never names a table, a chain
//! or a set that is not the project's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::netlink::{CREATE, Message};
use policy::{HostPorts, Protocol};
use proto::link::LINK_PREFIX;

use super::expression::Expression::{
    Count, Differ, Dnat, Equal, Family, In, Masquerade, SourceIsNotRoutedHere,
};
use super::expression::{
    ACCEPT, DESTINATION4, DESTINATION4_FIRST, DESTINATION6, DROP, Expression, ICMP_TYPE, IIFGROUP,
    IIFNAME, INVALID, IPV4, IPV6, KNOWN, L4PROTO, OIFGROUP, OIFNAME, PORT, PROHIBIT, RESET,
    SOURCE4, SOURCE4_FIRST, SOURCE6, TRANSLATED, UNREACHABLE4, UNREACHABLE6, encode, go_to,
    numbers,
};

/// What the policy has to say about the table.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Prefix of the tasks' IPv4 addresses.
    pub(crate) pool4: (Ipv4Addr, u8),
    /// Prefix of the tasks' IPv6 addresses; `None` on a host without IPv6.
    pub(crate) pool6: Option<(Ipv6Addr, u8)>,
    /// Prefixes that tasks cannot reach.
    pub(crate) closed: Vec<(IpAddr, u8)>,
    /// The host's own ports that tasks reach.
    pub(crate) host_ports: HostPorts,
}

/// Numbers of protocols in IP.
const IP_TCP: u8 = 6;
const IP_UDP: u8 = 17;

/// A protocol as part of a key: nftables pads each to four bytes.
pub(crate) fn protocol_key(protocol: Protocol) -> [u8; 4] {
    let number = match protocol {
        Protocol::Tcp => IP_TCP,
        Protocol::Udp => IP_UDP,
    };
    [number, 0, 0, 0]
}

/// Types of messages (NFT_MSG_…), each in the subsystem NFNL_SUBSYS_NFTABLES.
const NEW_TABLE: u16 = 0x0a00;
const DELETE_TABLE: u16 = 0x0a02;
const NEW_CHAIN: u16 = 0x0a03;
const NEW_RULE: u16 = 0x0a06;
const NEW_SET: u16 = 0x0a09;
pub(crate) const NEW_ELEMENT: u16 = 0x0a0c;
pub(crate) const DELETE_ELEMENT: u16 = 0x0a0e;
/// Flag of a new rule: after those there are.
const APPEND: u16 = 0x800;

/// The table's name.
pub(crate) const NAME: &str = "nomad_nspawn";
/// NFPROTO_INET: both families.
const INET: u8 = 1;
/// NFT_TABLE_F_OWNER: only the socket that makes the table changes it, and it goes with the socket.
const OWNER: u32 = 2;

/// A set or map.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// Its number in the transaction: sets without a name of their own are found by it.
    pub(crate) id: u32,
    flags: u32,
    key: &'static [Part],
    /// Nothing in a set.
    data: &'static [Part],
}

/// An element of a set or map.
#[derive(Default)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// Nothing in a set.
    pub(crate) data: Vec<u8>,
    /// 0 or [`INTERVAL_END`].
    pub(crate) flags: u32,
}

/// Elements in one message, whose attribute is at most 64 KiB long: one takes up to 72 bytes. Even:
/// both ends of an interval are in one.
const IN_ONE_MESSAGE: usize = 512;

/// NFT_SET_ELEM_INTERVAL_END: the key is the first that does not belong.
const INTERVAL_END: u32 = 1;

/// Part of a key: its type as nft numbers it (for listing alone), and its bytes.
type Part = (u32, usize);
const ADDRESS4: Part = (7, 4);
const ADDRESS6: Part = (8, 16);
const PROTOCOL: Part = (12, 1);
const SERVICE: Part = (13, 2);
const ICMPV6_TYPE: Part = (29, 1);
const GROUP: Part = (35, 4);

/// NFT_SET_…; anonymous sets are constant.
const ANONYMOUS: u32 = 0b0011;
const INTERVAL: u32 = 0b0100;
const MAP: u32 = 0b1000;

const fn set(name: &'static str, id: u32, flags: u32, key: &'static [Part]) -> Set {
    Set { name, id, flags, key, data: &[] }
}

/// Ports of the host that lead to tasks.
pub(crate) const PUBLISH4: Set =
    Set { data: &[ADDRESS4, SERVICE], ..set("publish4", 1, MAP, &[PROTOCOL, ADDRESS4, SERVICE]) };
pub(crate) const PUBLISH6: Set =
    Set { data: &[ADDRESS6, SERVICE], ..set("publish6", 2, MAP, &[PROTOCOL, ADDRESS6, SERVICE]) };
/// Each task's address twice: what it sends to itself.
pub(crate) const SELF4: Set = set("self4", 3, 0, &[ADDRESS4, ADDRESS4]);
pub(crate) const SELF6: Set = set("self6", 4, 0, &[ADDRESS6, ADDRESS6]);
/// Addresses of tasks in networks where others are: what a port leads there has the host's source.
pub(crate) const ATTACHED4: Set = set("attached4", 13, 0, &[ADDRESS4]);
pub(crate) const ATTACHED6: Set = set("attached6", 14, 0, &[ADDRESS6]);
/// Pairs of interface groups between which tasks reach each other: that of each zone, twice.
pub(crate) const ZONES: Set = set("zones", 5, 0, &[GROUP, GROUP]);
const POOL4: Set = set("pool4", 6, INTERVAL, &[ADDRESS4]);
const POOL6: Set = set("pool6", 7, INTERVAL, &[ADDRESS6]);
const CLOSED4: Set = set("closed4", 8, INTERVAL, &[ADDRESS4]);
const CLOSED6: Set = set("closed6", 9, INTERVAL, &[ADDRESS6]);
const HOST_PORTS: Set = set("host_ports", 10, 0, &[PROTOCOL, SERVICE]);
/// `::` and link-local addresses: what a task sends from before it has others.
const LOCAL6: Set = set("__set%d", 11, ANONYMOUS | INTERVAL, &[ADDRESS6]);
/// Ping, and the search for neighbours.
const ICMPV6: Set = set("__set%d", 12, ANONYMOUS, &[ICMPV6_TYPE]);

/// Type, hook (NF_INET_…) and priority of a chain that packets enter by themselves.
type Hook = (&'static str, u32, i32);

/// The chains. `guard` comes before conntrack.
const CHAINS: [(&str, Option<Hook>); 8] = [
    ("guard", Some(("filter", 0, -300))),
    ("prerouting", Some(("nat", 0, -100))),
    ("output", Some(("nat", 3, -100))),
    ("postrouting", Some(("nat", 4, 100))),
    ("forward", Some(("filter", 2, 0))),
    ("from_task", None),
    ("to_task", None),
    ("input", Some(("filter", 1, 0))),
];

/// What the names of tasks' links begin with.
const TASKS: &[u8] = LINK_PREFIX.as_bytes();
/// Name of the loopback link in full: a shorter one would be a beginning.
const LOOPBACK: &[u8] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const V4: Expression = Family(IPV4);
const V6: Expression = Family(IPV6);
const TCP: Expression = Equal(&[IP_TCP]);
const ICMP: Expression = Equal(&[1]);
const ICMP6: Expression = Equal(&[58]);
const ECHO_REQUEST: Expression = Equal(&[8]);
/// First byte of 127.0.0.0/8.
const LOOPBACK4: &[u8] = &[127];
const LOOPBACK6: Expression = Equal(&Ipv6Addr::LOCALHOST.octets());

/// The rules, by their chains. TCP is refused with a reset: over IPv6 it takes an error for a
/// passing one, and goes on trying.
#[rustfmt::skip]
const RULES: &[(&str, &[Expression])] = &[
    // Nobody else can pretend to be a task.
    ("guard", &[IIFNAME, Differ(LOOPBACK), IIFNAME, Differ(TASKS), V4, SOURCE4, In(&POOL4), DROP]),
    ("guard", &[IIFNAME, Differ(LOOPBACK), IIFNAME, Differ(TASKS), V6, SOURCE6, In(&POOL6), DROP]),
    ("guard", &[IIFNAME, Differ(TASKS), ACCEPT]),
    ("guard", &[V4, DESTINATION4_FIRST, Equal(LOOPBACK4), DROP]),
    ("guard", &[V6, SOURCE6, In(&LOCAL6), ACCEPT]),
    ("guard", &[SourceIsNotRoutedHere, DROP]),
    // A neighbour on the network may send to 127.0.0.1 as well.
    ("prerouting", &[V4, DESTINATION4_FIRST, Differ(LOOPBACK4),
        L4PROTO, DESTINATION4, PORT, Dnat(&PUBLISH4, IPV4)]),
    ("prerouting", &[V6, L4PROTO, DESTINATION6, PORT, Dnat(&PUBLISH6, IPV6)]),
    ("output", &[V4, L4PROTO, DESTINATION4, PORT, Dnat(&PUBLISH4, IPV4)]),
    ("output", &[V6, L4PROTO, DESTINATION6, PORT, Dnat(&PUBLISH6, IPV6)]),
    ("postrouting", &[OIFNAME, Equal(TASKS), V4, SOURCE4_FIRST, Equal(LOOPBACK4), Masquerade]),
    ("postrouting", &[OIFNAME, Equal(TASKS), V6, SOURCE6, LOOPBACK6, Masquerade]),
    ("postrouting", &[V4, SOURCE4, DESTINATION4, In(&SELF4), Masquerade]),
    ("postrouting", &[V6, SOURCE6, DESTINATION6, In(&SELF6), Masquerade]),
    ("postrouting", &[TRANSLATED, V4, DESTINATION4, In(&ATTACHED4), Masquerade]),
    ("postrouting", &[TRANSLATED, V6, DESTINATION6, In(&ATTACHED6), Masquerade]),
    ("postrouting", &[OIFNAME, Differ(TASKS), V4, SOURCE4, In(&POOL4), Masquerade]),
    ("postrouting", &[OIFNAME, Differ(TASKS), V6, SOURCE6, In(&POOL6), Masquerade]),
    ("forward", &[IIFNAME, Equal(TASKS), go_to("from_task")]),
    ("forward", &[OIFNAME, Equal(TASKS), go_to("to_task")]),
    ("forward", &[V4, DESTINATION4, In(&POOL4), UNREACHABLE4]),
    ("forward", &[V6, DESTINATION6, In(&POOL6), UNREACHABLE6]),
    ("from_task", &[KNOWN, ACCEPT]),
    ("from_task", &[INVALID, DROP]),
    ("from_task", &[V4, DESTINATION4, In(&CLOSED4), PROHIBIT]),
    ("from_task", &[V6, DESTINATION6, In(&CLOSED6), PROHIBIT]),
    ("from_task", &[OIFNAME, Differ(TASKS), ACCEPT]),
    ("from_task", &[TRANSLATED, ACCEPT]),
    ("from_task", &[IIFGROUP, OIFGROUP, In(&ZONES), ACCEPT]),
    ("from_task", &[L4PROTO, TCP, Count, RESET]),
    ("from_task", &[Count, PROHIBIT]),
    ("to_task", &[KNOWN, ACCEPT]),
    ("to_task", &[INVALID, DROP]),
    ("to_task", &[TRANSLATED, ACCEPT]),
    ("to_task", &[L4PROTO, TCP, Count, RESET]),
    ("to_task", &[Count, PROHIBIT]),
    ("input", &[IIFNAME, Differ(TASKS), ACCEPT]),
    ("input", &[KNOWN, ACCEPT]),
    ("input", &[INVALID, DROP]),
    ("input", &[V4, L4PROTO, ICMP, ICMP_TYPE, ECHO_REQUEST, ACCEPT]),
    ("input", &[V6, L4PROTO, ICMP6, ICMP_TYPE, In(&ICMPV6), ACCEPT]),
    ("input", &[L4PROTO, PORT, In(&HOST_PORTS), ACCEPT]),
    ("input", &[L4PROTO, TCP, Count, RESET]),
    ("input", &[Count, PROHIBIT]),
];

impl Set {
    fn create(&self) -> Message {
        let message = message(NEW_SET, CREATE).put_text(2, self.name);
        let (kind, length) = describe(self.key);
        let key = [(3, self.flags), (4, kind), (5, length), (10, self.id)];
        let (kind, length) = describe(self.data);
        let data = if length == 0 { &[][..] } else { &[(6, kind), (7, length)] };
        numbers(numbers(message, &key), data)
    }

    /// Messages about elements, of type NEW_ELEMENT or DELETE_ELEMENT.
    pub(crate) fn elements(&self, kind: u16, elements: &[Element]) -> Vec<Message> {
        elements.chunks(IN_ONE_MESSAGE).map(|part| self.part(kind, part)).collect()
    }

    fn part(&self, kind: u16, elements: &[Element]) -> Message {
        let message = numbers(message(kind, CREATE).put_text(2, self.name), &[(4, self.id)]);
        message.nest(3, |list| {
            elements.iter().fold(list, |list, Element { key, data, flags }| {
                list.nest(1, |element| {
                    let element = element.nest(1, |value| value.put(1, key));
                    let element = numbers(element, &[(3, *flags)]);
                    if data.is_empty() { element } else { element.nest(2, |v| v.put(1, data)) }
                })
            })
        })
    }

    /// The addresses of one family from `prefixes`, as an interval set has them: the first, and
    /// what follows the last.
    fn prefixes(&self, prefixes: &[(IpAddr, u8)]) -> Vec<Message> {
        let (_, bytes) = describe(self.key);
        let edge = |number: u128, flags| {
            let key = number.to_be_bytes().into_iter().skip(16 - bytes as usize).collect();
            Element { key, flags, ..Element::default() }
        };
        let elements = spans(prefixes, bytes * 8).into_iter().flat_map(|(first, last)| {
            let end =
                (last != u128::MAX >> (128 - bytes * 8)).then(|| edge(last + 1, INTERVAL_END));
            std::iter::once(edge(first, 0)).chain(end)
        });
        self.elements(NEW_ELEMENT, &elements.collect::<Vec<_>>())
    }
}

/// Type and length of a key: nft numbers a joined one by six bits a part, and pads each part.
fn describe(parts: &[Part]) -> (u32, u32) {
    let kind = parts.iter().fold(0, |all, (kind, _)| all << 6 | kind);
    let length = match parts {
        [(_, length)] => *length,
        all => all.iter().map(|(_, length)| length.next_multiple_of(4)).sum(),
    };
    (kind, u32::try_from(length).unwrap_or(u32::MAX))
}

/// First and last address of each prefix of a family, sorted; those that touch are joined, because
/// the kernel refuses an interval within another.
fn spans(prefixes: &[(IpAddr, u8)], bits: u32) -> Vec<(u128, u128)> {
    let mut all: Vec<_> = prefixes
        .iter()
        .filter(|(address, _)| address.is_ipv6() == (bits == 128))
        .map(|(address, prefix)| {
            let number = match address {
                IpAddr::V4(v4) => v4.to_bits().into(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            let free = bits.saturating_sub(u32::from(*prefix));
            let hosts = u128::MAX.checked_shr(128 - free).unwrap_or(0);
            (number & !hosts, number | hosts)
        })
        .collect();
    all.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (first, last) in all {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// A message about the table, or a part of it: with nfgenmsg and the table's name, which is
/// attribute 1 of all.
fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags, &[INET, 0, 0, 0]).put_text(1, NAME).with_ack(false)
}

/// The table's removal; it is made before, so that there is one to remove.
pub(crate) fn delete() -> [Message; 2] {
    [message(NEW_TABLE, CREATE), message(DELETE_TABLE, 0)]
}

/// The table with the policy's elements and without those of tasks. `owned`: others cannot change
/// it, and it goes with the socket.
pub(crate) fn create(rules: &Rules, owned: bool) -> Vec<Message> {
    let flags = if owned { OWNER } else { 0 };
    let mut messages = vec![numbers(message(NEW_TABLE, CREATE), &[(2, flags)])];
    messages.extend(CHAINS.map(|(name, base)| {
        let chain = message(NEW_CHAIN, CREATE).put_text(3, name);
        let Some((kind, hook, priority)) = base else { return chain };
        // Policy 1 is NF_ACCEPT.
        let chain = numbers(chain.put_text(7, kind), &[(5, 1)]);
        chain.nest(4, |at| numbers(at, &[(1, hook)]).put(2, priority.to_be_bytes()))
    }));
    let of_tasks = [PUBLISH4, PUBLISH6, SELF4, SELF6, ATTACHED4, ATTACHED6, ZONES];
    let of_policy = [POOL4, POOL6, CLOSED4, CLOSED6, HOST_PORTS, LOCAL6, ICMPV6];
    messages.extend(of_tasks.iter().chain(&of_policy).map(Set::create));
    let (pool4, length) = rules.pool4;
    messages.extend(POOL4.prefixes(&[(pool4.into(), length)]));
    let pool6 = rules.pool6.map(|(address, length)| (address.into(), length));
    messages.extend(POOL6.prefixes(pool6.as_slice()));
    messages.extend(CLOSED4.prefixes(&rules.closed));
    messages.extend(CLOSED6.prefixes(&rules.closed));
    if let HostPorts::Listed(ports) = &rules.host_ports {
        let element = |(protocol, port): &(Protocol, u16)| {
            let key = [&protocol_key(*protocol)[..], &port.to_be_bytes(), &[0; 2]].concat();
            Element { key, ..Element::default() }
        };
        let ports: Vec<_> = ports.iter().map(element).collect();
        messages.extend(HOST_PORTS.elements(NEW_ELEMENT, &ports));
    }
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    messages
        .extend(LOCAL6.prefixes(&[(Ipv6Addr::UNSPECIFIED.into(), 128), (link_local.into(), 10)]));
    // Echo request, neighbour solicitation and advertisement (RFC 4443, RFC 4861).
    let types = [128, 135, 136].map(|kind| Element { key: vec![kind], ..Element::default() });
    messages.extend(ICMPV6.elements(NEW_ELEMENT, &types));
    messages.extend(RULES.iter().map(|(chain, rule)| {
        let rule = match (&rules.host_ports, rule) {
            (HostPorts::All, [.., In(set), _]) if set.id == HOST_PORTS.id => &[ACCEPT],
            (_, rule) => *rule,
        };
        let message = message(NEW_RULE, CREATE | APPEND).put_text(2, chain);
        message.nest(4, |list| encode(list, rule))
    }));
    messages
}
