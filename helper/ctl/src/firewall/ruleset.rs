//! The rules of the host: read with the programs that are installed, changed by none.
//!
//! Trusts what `nft` and `iptables-save` print. A rule whose meaning is not known here stays in the
//! list as it is: the reader decides.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::save;
use crate::{output, own_table};

/// Family, table and name of a chain or set.
pub(in crate::firewall) type Name = (String, String, String);

/// Rules of one source.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Ruleset {
    /// Chains that packets enter by themselves when the host forwards them, with their policies.
    pub(in crate::firewall) at_forward: Vec<(Name, bool)>,
    /// The statements of each rule, in order, by chain.
    pub(in crate::firewall) chains: BTreeMap<Name, Vec<Vec<Value>>>,
    /// Elements of sets and maps.
    pub(in crate::firewall) sets: BTreeMap<Name, Vec<Value>>,
    /// The program that changes it, where that is not `nft`.
    pub(in crate::firewall) program: Option<String>,
}

impl Ruleset {
    /// Reads what `nft -j list` prints of a table or of all.
    ///
    /// # Errors
    /// It is not that.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let all: Value = serde_json::from_str(text).map_err(|e| format!("nft -j: {e}"))?;
        let objects = all.get("nftables").and_then(Value::as_array).ok_or("nft -j: no list")?;
        let mut ruleset = Self::default();
        for object in objects.iter().filter_map(Value::as_object) {
            for (kind, object) in object {
                ruleset.take_in(kind, object);
            }
        }
        Ok(ruleset)
    }

    fn take_in(&mut self, kind: &str, object: &Value) {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = |key: &str| -> Name {
            (text("family").to_owned(), text("table").to_owned(), text(key).to_owned())
        };
        let list = |key: &str| object.get(key).and_then(Value::as_array).cloned();
        match kind {
            "chain" => {
                let chain = name("name");
                if text("hook") == "forward" && text("type") == "filter" {
                    self.at_forward.push((chain.clone(), text("policy") == "drop"));
                }
                self.chains.entry(chain).or_default();
            }
            "rule" => {
                let rules = self.chains.entry(name("chain")).or_default();
                rules.push(list("expr").unwrap_or_default());
            }
            "set" | "map" => {
                self.sets.insert(name("name"), list("elem").unwrap_or_default());
            }
            _ => {}
        }
    }

    fn extend(&mut self, other: Self) {
        self.at_forward.extend(other.at_forward);
        self.chains.extend(other.chains);
        self.sets.extend(other.sets);
    }

    /// Whether rules of iptables are in it whose conditions nft does not print.
    fn has_modules(&self, family: &str) -> bool {
        let rules =
            self.chains.iter().filter(|((of, table, _), _)| of == family && table == "filter");
        rules.flat_map(|(_, rules)| rules).flatten().any(|statement| statement.get("xt").is_some())
    }

    /// The elements of a set.
    pub(crate) fn set(&self, family: &str, table: &str, name: &str) -> &[Value] {
        let name = (family.to_owned(), table.to_owned(), name.to_owned());
        self.sets.get(&name).map_or(&[], Vec::as_slice)
    }
}

/// All rules that can be read, and why others cannot.
#[derive(Debug, Default)]
pub(crate) struct Rulesets {
    /// One of each source.
    pub(crate) all: Vec<Ruleset>,
    /// What could not be looked at, and the package that has the program for it.
    pub(crate) unread: Vec<(String, &'static str)>,
}

/// Families of iptables: what its programs' names begin with, and the kernel's list of its tables of
/// the old kind, which nft does not see.
const FAMILIES: [(&str, &str); 2] =
    [("ip", "/proc/net/ip_tables_names"), ("ip6", "/proc/net/ip6_tables_names")];

/// Reads the host's.
pub(crate) fn read() -> Rulesets {
    let mut found = Rulesets::default();
    let has_nft = match by_nft(&mut found.unread) {
        Ok(ruleset) => {
            found.all.push(ruleset);
            true
        }
        Err(error) => {
            found.unread.push((error, "nftables"));
            false
        }
    };
    for (family, tables) in FAMILIES {
        let program = format!("{family}tables");
        let tables = fs::read_to_string(tables).unwrap_or_default();
        let is_legacy = tables.lines().any(|table| table == "filter");
        if is_legacy {
            match save_of(&format!("{program}-legacy"), family, true)
                .or_else(|_| save_of(&program, family, true))
            {
                Ok(ruleset) => found.all.push(ruleset),
                Err(error) => found.unread.push((error, "iptables")),
            }
        }
        // iptables of the new kind has tables that nft lists, but for what its modules compare.
        match found.all.first_mut().filter(|_| has_nft) {
            Some(by_nft) if by_nft.has_modules(family) => {
                if let Ok(saved) = save_of(&program, family, false) {
                    by_nft.chains.extend(saved.chains);
                }
            }
            Some(_) => {}
            None => found.all.extend(save_of(&program, family, false)),
        }
    }
    found
}

/// All tables that nft lists but the helper's own, each by itself: one that cannot be read hides no
/// other.
fn by_nft(unread: &mut Vec<(String, &'static str)>) -> Result<Ruleset, String> {
    let mut all = Ruleset::default();
    for table in output("nft", &["list", "tables"])?.lines() {
        let words: Vec<&str> = table.split_whitespace().collect();
        let ["table", family, name] = words.as_slice() else { continue };
        if [*family, *name] == own_table::NAME {
            continue;
        }
        let listed = output("nft", &["-j", "list", "table", family, name]);
        match listed.and_then(|text| Ruleset::parse(&text)) {
            Ok(ruleset) => all.extend(ruleset),
            Err(error) => unread.push((format!("table {family} {name}: {error}"), "nftables")),
        }
    }
    Ok(all)
}

/// The rules that a program of iptables has, which must be of the old kind or of the new one.
fn save_of(program: &str, family: &str, is_legacy: bool) -> Result<Ruleset, String> {
    let text = output(&format!("{program}-save"), &["-t", "filter"])?;
    if text.contains("(nf_tables)") == is_legacy {
        return Err(format!("{program}-save prints the tables of the other kind"));
    }
    Ok(Ruleset { program: Some(program.to_owned()), ..save::parse(family, &text) })
}
