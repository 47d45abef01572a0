//! Who drops packets of tasks, and the line that lets them pass.
//!
//! Judges the rules that a packet meets for certain. A rule that hangs on something else (a port, a
//! mark) neither drops nor accepts it here.

use std::net::IpAddr;

use super::packet::Packet;
use super::ruleset::{Name, Ruleset, Rulesets};
use super::walk::is_dropped;
use crate::own_table;
use crate::routes::Prefix;

/// Somebody whose rules drop packets of tasks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    who: String,
    chains: Vec<String>,
    /// What is dropped: what tasks send to others, what others send to published ports.
    outgoing: bool,
    published: bool,
    /// Commands that let it pass.
    mend: Vec<String>,
    /// What more is to be done so that they last.
    rest: &'static str,
}

impl Blocker {
    /// The line that lets it pass, for a shell.
    pub(crate) fn mend(&self) -> String {
        format!("{}{}", self.mend.join("; "), self.rest)
    }
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match (self.outgoing, self.published) {
            (true, true) => "all packets that the host forwards for tasks",
            (true, false) => "packets that tasks send to other machines",
            _ => "packets to published ports",
        };
        write!(f, "{} drops {what} ({})", self.who, self.chains.join(", "))
    }
}

/// All of them. `pools`: those of the tasks' addresses; `uplink`: the link to other machines.
pub(crate) fn find(rulesets: &Rulesets, pools: &[Prefix], uplink: &str) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = Vec::new();
    for ruleset in &rulesets.all {
        for chain in
            ruleset.at_forward.iter().filter(|((_, table, _), _)| *table != own_table::NAME[1])
        {
            let (mut outgoing, mut published) = (false, false);
            for &is_ipv6 in families(&chain.0) {
                // A task without IPv6 sends none.
                let pool = pools.iter().find(|pool| pool.0.is_ipv6() == is_ipv6);
                if is_ipv6 && pool.is_none() {
                    continue;
                }
                let sent = packets(pool.copied(), is_ipv6, uplink);
                let drops = |packet: &Packet| is_dropped(ruleset, chain, packet);
                outgoing |= sent.iter().filter(|it| !it.is_published).any(drops);
                published |= sent.iter().filter(|it| it.is_published).any(drops);
            }
            if outgoing || published {
                add(&mut found, Blocker::new(ruleset, &chain.0, pools, (outgoing, published)));
            }
        }
    }
    found
}

/// One program has a chain of each family.
fn add(found: &mut Vec<Blocker>, one: Blocker) {
    match found.iter_mut().find(|other| other.who == one.who) {
        None => found.push(one),
        Some(other) => {
            other.chains.extend(one.chains);
            other.outgoing |= one.outgoing;
            other.published |= one.published;
            let new: Vec<_> = one.mend.into_iter().filter(|it| !other.mend.contains(it)).collect();
            other.mend.extend(new);
        }
    }
}

/// Which packets a chain sees: whether of IPv6.
fn families((family, ..): &Name) -> &'static [bool] {
    match family.as_str() {
        "ip" => &[false],
        "ip6" => &[true],
        "inet" => &[false, true],
        _ => &[],
    }
}

/// A request of a task and the answer to it, a request to a published port and its answer.
fn packets(pool: Option<Prefix>, is_ipv6: bool, uplink: &str) -> [Packet; 4] {
    let task = pool.map(|pool| a_task(pool.0));
    let packet = |is_sent: bool, is_published: bool| {
        let (link, other) = ("nv-0123456789ab".to_owned(), uplink.to_owned());
        let (from_link, to_link) = if is_sent { (link, other) } else { (other, link) };
        let (source, destination) = if is_sent { (task, None) } else { (None, task) };
        let is_established = is_sent == is_published;
        Packet { is_ipv6, from_link, to_link, source, destination, is_established, is_published }
    };
    [packet(true, false), packet(false, false), packet(false, true), packet(true, true)]
}

/// An address of a pool that a task may have.
fn a_task(pool: IpAddr) -> IpAddr {
    match pool {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() | 5).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() | 5).into()),
    }
}

impl Blocker {
    fn new(
        ruleset: &Ruleset,
        chain: &Name,
        pools: &[Prefix],
        (outgoing, published): (bool, bool),
    ) -> Self {
        let (family, table, name) = chain;
        let has = |other: &str| {
            let chain = (family.clone(), table.clone(), other.to_owned());
            ruleset.chains.contains_key(&chain)
        };
        let text = format!("chain {name} of table {family} {table}");
        let iptables = |program: &str, chain: &str| {
            ["-i", "-o"].map(|way| format!("{program} -I {chain} {way} nv-+ -j ACCEPT")).to_vec()
        };
        let program = ruleset.program.clone();
        let in_file = "  # and both in the file that makes the chain";
        let at_boot = "  # at each boot: example/network/nomad-nspawn-docker.service";
        let (who, mend, rest) = if has("DOCKER-USER") {
            let program = program.unwrap_or_else(|| format!("{family}tables"));
            ("Docker".to_owned(), iptables(&program, "DOCKER-USER"), at_boot)
        } else if has("ufw-user-forward") || has("ufw6-user-forward") {
            let allow = |way| format!("ufw route allow {way} on nv-+");
            ("ufw".to_owned(), ["in", "out"].map(allow).to_vec(), "")
        } else if table == "firewalld" {
            let trust = |(address, bits): &Prefix| {
                format!("firewall-cmd --permanent --zone=trusted --add-source={address}/{bits}")
            };
            let reload = "firewall-cmd --reload".to_owned();
            ("firewalld".to_owned(), pools.iter().map(trust).chain([reload]).collect(), "")
        } else if let Some(program) = program {
            (text.clone(), iptables(&program, name), in_file)
        } else {
            let insert =
                |way| format!("nft 'insert rule {family} {table} {name} {way} \"nv-*\" accept'");
            (text.clone(), ["iifname", "oifname"].map(insert).to_vec(), in_file)
        };
        Self { who, chains: vec![text], outgoing, published, mend, rest }
    }
}
