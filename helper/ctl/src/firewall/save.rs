//! What `iptables-save` prints, as the rules that `nft` would list for the same.
//!
//! A condition that is not known here becomes one of which nobody can say whether it holds.

use serde_json::{Value, json};

use super::ruleset::Ruleset;

/// Reads the tables of one family: `ip` or `ip6`.
pub(super) fn parse(family: &str, text: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let mut table = "";
    for line in text.lines() {
        let name = |chain: &str| (family.to_owned(), table.to_owned(), chain.to_owned());
        if let Some(begun) = line.strip_prefix('*') {
            table = begun;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (chain, policy) = (words.next().unwrap_or_default(), words.next());
            if (table, chain) == ("filter", "FORWARD") {
                ruleset.at_forward.push((name(chain), policy == Some("DROP")));
            }
            ruleset.chains.entry(name(chain)).or_default();
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            ruleset.chains.entry(name(chain)).or_default().push(statements(family, rule));
        }
    }
    ruleset
}

/// A rule's conditions and what it does.
fn statements(family: &str, rule: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut words = rule.split(' ').peekable();
    let mut is_negated = false;
    while let Some(word) = words.next() {
        if word == "!" {
            is_negated = true;
            continue;
        }
        let op = if std::mem::take(&mut is_negated) { "!=" } else { "==" };
        let mut value = || words.next().unwrap_or_default();
        let compare = |left: Value, right: Value| json!({ "match": { "op": op, "left": left, "right": right } });
        let address = |field: &str| json!({ "payload": { "protocol": family, "field": field } });
        all.push(match word {
            "-i" => compare(json!({ "meta": { "key": "iifname" } }), link(value())),
            "-o" => compare(json!({ "meta": { "key": "oifname" } }), link(value())),
            "-s" => compare(address("saddr"), prefix(value())),
            "-d" => compare(address("daddr"), prefix(value())),
            "-p" => compare(json!({ "meta": { "key": "l4proto" } }), json!(value())),
            "--ctstate" | "--state" => states(op, value()),
            // Names the module of the conditions that follow.
            "-m" => {
                value();
                continue;
            }
            "--comment" => {
                comment(&mut words);
                continue;
            }
            "-j" => match value() {
                "ACCEPT" => json!({ "accept": null }),
                "DROP" => json!({ "drop": null }),
                "REJECT" => json!({ "reject": null }),
                "RETURN" => json!({ "return": null }),
                // They go on to the next rule; their options are no conditions.
                "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" => break,
                other => json!({ "jump": { "target": other } }),
            },
            "-g" => json!({ "goto": { "target": value() } }),
            other => json!({ "condition": other }),
        });
        // What follows are the verdict's own options.
        if word == "-j" || word == "-g" {
            break;
        }
    }
    all
}

/// A name of a link; `+` stands for any end.
fn link(name: &str) -> Value {
    name.strip_suffix('+').map_or_else(|| json!(name), |begin| json!(format!("{begin}*")))
}

fn prefix(text: &str) -> Value {
    match text.split_once('/').map(|(address, length)| (address, length.parse::<u8>())) {
        Some((address, Ok(length))) => json!({ "prefix": { "addr": address, "len": length } }),
        _ => json!(text),
    }
}

/// What conntrack has of a connection; that it was led elsewhere is no state in nftables.
fn states(op: &str, list: &str) -> Value {
    let names: Vec<String> = list.split(',').map(str::to_lowercase).collect();
    let left = |key: &str| json!({ "ct": { "key": key } });
    match names.as_slice() {
        [one] if one == "dnat" || one == "snat" => {
            json!({ "match": { "op": op, "left": left("status"), "right": one } })
        }
        names => json!({ "match": { "op": op, "left": left("state"), "right": names } }),
    }
}

/// Skips a comment: one word, or several in quotes.
fn comment<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let first = words.next().unwrap_or_default();
    let ends = |word: &str| word.ends_with('"') && !word.ends_with("\\\"");
    if first.starts_with('"') && (first.len() == 1 || !ends(first)) {
        words.find(|word| ends(word));
    }
}
