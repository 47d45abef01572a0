//! The helper's table `inet nomad_nspawn`, as `nft` lists it.
//!
//! Read as text: nft 1.0.6 prints no valid JSON for a table with an owner (its flags come from memory
//! that is another's).

use super::output;
use super::routes::Prefix;

/// Family and name of the table.
pub(super) const NAME: [&str; 2] = ["inet", "nomad_nspawn"];

/// What is of interest in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnTable {
    /// Whether the helper's socket owns it.
    pub(super) is_owned: bool,
    /// The pools of the tasks' addresses.
    pub(super) pools: Vec<Prefix>,
    /// Packets and bytes that each chain has counted.
    pub(super) counters: Vec<(String, u64, u64)>,
}

/// Reads it; `None` when there is no such table.
///
/// # Errors
/// There is no `nft`, or it is refused.
pub(super) fn read() -> Result<Option<OwnTable>, String> {
    let [family, name] = NAME;
    match output("nft", &["list", "table", family, name]) {
        Ok(text) => Ok(Some(parse(&text))),
        // Of the kernel; that of a missing program has no more lines.
        Err(error) if error.contains("No such file or directory\n") => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> OwnTable {
    let mut table = OwnTable::default();
    // Kind and name of the block that a line is in.
    let mut block = ("", "");
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (block.0, words.as_slice()) {
            (_, [kind @ ("chain" | "set" | "map"), name, "{"]) => block = (*kind, *name),
            (_, ["}"]) => block = ("", ""),
            ("", ["flags", flags @ ..]) => {
                table.is_owned = flags.iter().flat_map(|it| it.split(',')).any(|it| it == "owner");
            }
            ("set", ["elements", "=", "{", elements @ ..]) if block.1.starts_with("pool") => {
                let elements = elements.iter().map(|it| it.trim_matches([',', '}']));
                table.pools.extend(elements.filter_map(prefix));
            }
            ("chain", words) => {
                let counter = words.windows(5).find_map(|part| match part {
                    ["counter", "packets", packets, "bytes", bytes] => {
                        Some((packets.parse().ok()?, bytes.parse().ok()?))
                    }
                    _ => None,
                });
                if let Some((packets, bytes)) = counter {
                    table.count(block.1, packets, bytes);
                }
            }
            _ => {}
        }
    }
    table
}

impl OwnTable {
    fn count(&mut self, chain: &str, packets: u64, bytes: u64) {
        match self.counters.iter_mut().find(|(name, ..)| name == chain) {
            None => self.counters.push((chain.to_owned(), packets, bytes)),
            Some((_, all, all_bytes)) => {
                *all = all.saturating_add(packets);
                *all_bytes = all_bytes.saturating_add(bytes);
            }
        }
    }
}

fn prefix(text: &str) -> Option<Prefix> {
    let (address, bits) = text.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_network_md_is_read() {
        let document = include_str!("../../../docs/NETWORK.md");
        let text = document.split_once("```nft\n").unwrap().1.split_once("```").unwrap().0;
        let table = parse(text);
        assert!(table.is_owned);
        assert_eq!(
            table.pools,
            [("10.64.0.0", 20), ("fd64::", 64)]
                .map(|(address, bits)| { (address.parse().unwrap(), bits) })
        );
        let names: Vec<_> = table.counters.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["from_task", "to_task", "input"]);

        let used = text.replacen("packets 0 bytes 0", "packets 3 bytes 120", 2);
        let used = used.replace("flags owner", "flags dormant");
        let table = parse(&used);
        assert!(!table.is_owned);
        assert_eq!(table.counters[0], ("from_task".to_owned(), 6, 240));
        assert_eq!(table.counters[1].1, 0);
    }
}
