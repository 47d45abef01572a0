//! What `nomad-nspawnctl doctor` finds of the rules of others, and the line that it prints.

use nspawn_tests::Rig;
use serde_json::Value;

/// State, finding and mending line of each row of the check.
fn rows(rig: &Rig) -> Vec<[String; 3]> {
    // Its exit status says whether something is to be mended.
    let output = rig.exec(&["nomad-nspawnctl", "doctor", "--json"]).unwrap();
    let report: Value = serde_json::from_str(&output.text())
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let checks = report["checks"].as_array().unwrap().iter();
    let ours = checks.filter(|check| check["check"] == "forward firewall");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    ours.map(|check| ["state", "found", "mend"].map(|key| text(check, key))).collect()
}

/// Nothing is to be mended.
pub(crate) fn assert_content(rig: &Rig, when: &str) {
    let rows = rows(rig);
    assert!(matches!(&rows[..], [[state, ..]] if state == "ok"), "{when}: {rows:#?}");
}

/// One program is to be mended, and this is its name; returns the line that does it.
pub(crate) fn line_for(rig: &Rig, who: &str) -> String {
    let rows = rows(rig);
    let [[state, found, line]] = &rows[..] else { panic!("{who}: {rows:#?}") };
    assert!(state == "fail" && found.starts_with(&format!("{who} drops ")), "{who}: {rows:#?}");
    line.clone()
}
