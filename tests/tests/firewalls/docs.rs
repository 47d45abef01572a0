//! The table "Other firewalls" of NETWORK.md: its lines are run as they are printed there.

use nspawn_tests::{Rig, product};

/// The commands of a row's last column.
fn commands(row: &str) -> Vec<String> {
    let path = product::workspace().join("docs/NETWORK.md");
    let text = std::fs::read_to_string(path).unwrap();
    let begin = format!("| {row} |");
    let line = text.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no row of {row} in NETWORK.md"));
    let column = line.trim_end_matches('|').rsplit(" | ").next().unwrap();
    let spans = column.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    assert!(!spans.is_empty(), "no command in {line}");
    spans
}

/// Both pools as the table has them.
fn pools(rig: &Rig) -> Vec<String> {
    let pool = |set: &str| {
        let words = ["nft", "list", "set", "inet", "nomad_nspawn", set];
        let text = rig.run(&words).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("elements = { "));
        line.unwrap().trim_end_matches(" }").to_owned()
    };
    vec![pool("pool4"), pool("pool6")]
}

/// Runs what the row names. Lines that are no commands are rules for the chain of the operator's.
pub(crate) fn mend(rig: &Rig, row: &str) {
    for line in commands(row) {
        if line.starts_with("iifname") || line.starts_with("oifname") {
            rig.sh(&format!("nft 'insert rule inet filter forward {line}'")).unwrap();
            // As the operator writes it: first in the chain of the file.
            let sed = format!("s/^.*hook forward.*$/&\\n\\t\\t{line}/");
            rig.run(&["sed", "-i", &sed, "/etc/nftables.conf"]).unwrap();
        } else if line.contains("POOL") {
            for pool in pools(rig) {
                rig.sh(&line.replace("POOL", &pool)).unwrap();
            }
        } else {
            rig.sh(&line).unwrap();
        }
    }
}
