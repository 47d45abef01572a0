//! The helper's own units, judged by the systemd that would run them, on every supported suite.
//!
//! Boots bare hosts (no agent). The score of `systemd-analyze security` is a lint, not a proof; it
//! is gated so that a directive that goes missing is noticed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use nspawn_tests::host::Config;
use nspawn_tests::product::Variant;
use nspawn_tests::{Rig, Suite, outer};

/// Highest exposure, in tenths. Measured: 1.6 on 252 and on 257.
const EXPOSURE_MAX: u32 = 20;

/// The one directive that 252 does not know: its store is lost at a stop there (OPERATIONS.md).
const SINCE_254: &str = "FileDescriptorStorePreserve";

fn host(suite: Suite) -> Rig {
    let config = Config { product: Some(Variant::Plain), agent: false, ..Config::new(suite) };
    Rig::up(&config).unwrap()
}

fn check(suite: Suite) {
    let rig = host(suite);
    // Every directive is known to this version and no file is misspelt.
    let verify = rig
        .sh("systemd-analyze verify nomad-nspawn-helper.service nomad-nspawn-helper.socket machine-nspawn.slice 2>&1")
        .unwrap();
    let known = |line: &&str| line.contains("nspawn") && !line.contains(SINCE_254);
    let ours: Vec<&str> = verify.lines().filter(known).collect();
    assert!(ours.is_empty(), "{}: {ours:?}", suite.name());

    let report = rig.sh("systemd-analyze security --no-pager nomad-nspawn-helper.service").unwrap();
    let score = report
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for"))
        .and_then(|(_, rest)| rest.split_once(": "))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or_else(|| panic!("no score in:\n{report}"));
    outer::tell(&format!("{}: exposure of nomad-nspawn-helper.service {score}", suite.name()));
    let tenths: u32 = score.replace('.', "").parse().unwrap();
    assert!(tenths <= EXPOSURE_MAX, "{}: exposure {score}\n{report}", suite.name());

    // What the kernel holds of it, not what the file says.
    let pid = rig.main_pid("nomad-nspawn-helper.service").unwrap();
    let status = rig.run(&["cat", &format!("/proc/{pid}/status")]).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
    };
    // CAP_KILL and CAP_NET_ADMIN.
    const ALLOWED: u64 = 1 << 5 | 1 << 12;
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let bits = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(bits & !ALLOWED, 0, "{set} {bits:x}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
}

#[test]
fn trixie_systemd_257() {
    check(Suite::Trixie);
}

#[test]
fn bookworm_systemd_252() {
    check(Suite::Bookworm);
}
