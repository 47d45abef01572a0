//! Rules of nftables in the kernel's form: expressions that load fields of a packet into registers,
//! compare them, and act (linux/netfilter/nf_tables.h).
//!
//! Encodes what [`super::table`] lists; reads nothing, and decides nothing.

use kernel::netlink::Message;

use super::table::Set;

/// What a rule does, in this order: a packet that fails a comparison leaves the rule there.
#[derive(Clone, Copy)]
pub(crate) enum Expression {
    /// Goes on for packets of a family.
    Family(u8),
    /// Loads a field of the packet's environment (NFT_META_…), which takes one register here.
    Meta(u32),
    /// Loads a field of the packet: header (NFT_PAYLOAD_…), offset and length in bytes.
    Payload(u32, u32, u32),
    /// Loads a field of the connection (NFT_CT_…), and goes on when it has one of the bits.
    Connection(u32, u32),
    /// Goes on when there is no route to the packet's source by the link by which it came.
    SourceIsNotRoutedHere,
    /// Goes on when what is loaded begins with this.
    Equal(&'static [u8]),
    /// Goes on when what is loaded begins otherwise.
    Differ(&'static [u8]),
    /// Goes on when the set has what is loaded.
    In(&'static Set),
    /// Goes on when the map has what is loaded, and sends the packet to the address and the port
    /// there; the number is the address's family.
    Dnat(&'static Set, u8),
    /// Gives the packet the address of the link by which it leaves.
    Masquerade,
    /// Counts.
    Count,
    /// Answers with a refusal: type (NFT_REJECT_…) and code.
    Reject(u32, u8),
    /// Ends the chain, or goes on in another alone.
    Verdict(i32, Option<&'static str>),
}

use Expression::{Connection, Meta, Payload, Reject, Verdict};

/// Names of the links by which a packet comes and leaves.
pub(crate) const IIFNAME: Expression = Meta(6);
pub(crate) const OIFNAME: Expression = Meta(7);
/// Transport protocol: one byte.
pub(crate) const L4PROTO: Expression = Meta(16);
/// Groups of the links by which a packet comes and leaves.
pub(crate) const IIFGROUP: Expression = Meta(21);
pub(crate) const OIFGROUP: Expression = Meta(22);
/// Addresses; the first byte alone is enough for 127.0.0.0/8.
pub(crate) const SOURCE4: Expression = Payload(1, 12, 4);
pub(crate) const SOURCE4_FIRST: Expression = Payload(1, 12, 1);
pub(crate) const DESTINATION4: Expression = Payload(1, 16, 4);
pub(crate) const DESTINATION4_FIRST: Expression = Payload(1, 16, 1);
pub(crate) const SOURCE6: Expression = Payload(1, 8, 16);
pub(crate) const DESTINATION6: Expression = Payload(1, 24, 16);
/// Destination port of TCP and UDP.
pub(crate) const PORT: Expression = Payload(2, 2, 2);
/// Type of an ICMP or ICMPv6 message.
pub(crate) const ICMP_TYPE: Expression = Payload(2, 0, 1);
/// `ct state established,related`, `ct state invalid`, `ct status dnat` (IPS_DST_NAT).
pub(crate) const KNOWN: Expression = Connection(0, 0b110);
pub(crate) const INVALID: Expression = Connection(0, 0b001);
pub(crate) const TRANSLATED: Expression = Connection(2, 0x20);
/// `tcp reset`, and errors of ICMP: `icmpx admin-prohibited` for both families, `icmp
/// host-unreachable`, `icmpv6 addr-unreachable`.
pub(crate) const RESET: Expression = Reject(1, 0);
pub(crate) const PROHIBIT: Expression = Reject(2, 3);
pub(crate) const UNREACHABLE4: Expression = Reject(0, 1);
pub(crate) const UNREACHABLE6: Expression = Reject(0, 3);
/// NF_DROP, NF_ACCEPT, NFT_GOTO.
pub(crate) const DROP: Expression = Verdict(0, None);
pub(crate) const ACCEPT: Expression = Verdict(1, None);
pub(crate) const fn go_to(chain: &'static str) -> Expression {
    Verdict(-4, Some(chain))
}

/// NFPROTO_IPV4 and NFPROTO_IPV6.
pub(crate) const IPV4: u8 = 2;
pub(crate) const IPV6: u8 = 10;

/// The first register of four bytes (NFT_REG32_00): each key is loaded from here on.
const FIRST: u32 = 8;

/// Adds the expressions of one rule to the list.
pub(crate) fn encode(mut list: Message, rule: &[Expression]) -> Message {
    let mut loaded = 0;
    for expression in rule {
        let length = match expression {
            Meta(_) => 4,
            Payload(_, _, length) => *length,
            _ => 0,
        };
        list = expression.encode(list, FIRST + loaded);
        loaded = if length == 0 { 0 } else { loaded + length.div_ceil(4) };
    }
    list
}

impl Expression {
    /// Adds it; `free` is the first register that holds nothing of the key yet.
    fn encode(self, list: Message, free: u32) -> Message {
        let same = |e| e;
        let word = |value: u32| move |data: Message| data.put(1, value.to_ne_bytes());
        let compare = |list, operation, value: &[u8]| {
            add(list, "cmp", &[(1, FIRST), (2, operation)], |e| {
                e.nest(3, |data| data.put(1, value))
            })
        };
        match self {
            // NFT_META_NFPROTO, one byte.
            Self::Family(family) => {
                compare(add(list, "meta", &[(1, FIRST), (2, 15)], same), 0, &[family])
            }
            Meta(key) => add(list, "meta", &[(1, free), (2, key)], same),
            Payload(header, offset, length) => {
                let fields = [(1, free), (2, header), (3, offset), (4, length)];
                add(list, "payload", &fields, same)
            }
            Connection(field, bits) => {
                let list = add(list, "ct", &[(1, FIRST), (2, field)], same);
                let list = add(list, "bitwise", &[(1, FIRST), (2, FIRST), (3, 4)], |e| {
                    e.nest(4, word(bits)).nest(5, word(0))
                });
                compare(list, 1, &[0; 4])
            }
            // NFT_FIB_RESULT_OIF; NFTA_FIB_F_SADDR, F_IIF, F_PRESENT.
            Self::SourceIsNotRoutedHere => {
                let list = add(list, "fib", &[(1, FIRST), (2, 1), (3, 0b10_1001)], same);
                compare(list, 0, &[0; 4])
            }
            Self::Equal(value) => compare(list, 0, value),
            Self::Differ(value) => compare(list, 1, value),
            Self::In(set) => {
                add(list, "lookup", &[(2, FIRST), (4, set.id)], |e| e.put_text(1, set.name))
            }
            Self::Dnat(map, family) => {
                let fields = [(2, FIRST), (3, FIRST), (4, map.id)];
                let list = add(list, "lookup", &fields, |e| e.put_text(1, map.name));
                // The port follows the address. NFT_NAT_DNAT.
                let port = FIRST + if family == IPV4 { 1 } else { 4 };
                add(list, "nat", &[(1, 1), (2, family.into()), (3, FIRST), (5, port)], same)
            }
            Self::Masquerade => add(list, "masq", &[], same),
            Self::Count => add(list, "counter", &[], same),
            Reject(kind, code) => add(list, "reject", &[(1, kind)], |e| e.put(2, [code])),
            // NFT_REG_VERDICT; NFTA_DATA_VERDICT.
            Verdict(code, chain) => add(list, "immediate", &[(1, 0)], |e| {
                e.nest(2, |data| {
                    data.nest(2, |verdict| {
                        let verdict = verdict.put(1, code.to_be_bytes());
                        chain.into_iter().fold(verdict, |v, chain| v.put_text(2, chain))
                    })
                })
            }),
        }
    }
}

/// Adds an expression: NFTA_LIST_ELEM with NFTA_EXPR_NAME and NFTA_EXPR_DATA, in which these fields
/// come first.
fn add(
    list: Message,
    name: &str,
    fields: &[(u16, u32)],
    more: impl FnOnce(Message) -> Message,
) -> Message {
    list.nest(1, |entry| entry.put_text(1, name).nest(2, |data| more(numbers(data, fields))))
}

/// Adds attributes of four bytes, which nftables takes in the order of the network.
pub(crate) fn numbers(message: Message, fields: &[(u16, u32)]) -> Message {
    fields.iter().fold(message, |message, (kind, value)| message.put(*kind, value.to_be_bytes()))
}
