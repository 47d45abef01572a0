//! Under the filters of the cache systemd-nspawn meets no refusal that it does not meet without: it
//! leaves steps out without a word when a call answers EPERM, ENOSYS or EACCES.

use super::*;
use std::collections::BTreeSet;

const TRACE: &str = "/run/filters.trace";

/// Calls of systemd-nspawn that were refused while a task was started, each with its error.
fn refused(stand: &Stand, config: &Value, is_cached: bool) -> BTreeSet<String> {
    let rig = &stand.rig;
    // What the fill traces itself cannot be traced.
    if is_cached {
        start_fast(stand, config).destroy().unwrap();
    }
    rig.sh(&format!(
        "rm -f {TRACE}*; strace -f -Y -Z -qq -o {TRACE} -p 1 >/dev/null 2>{TRACE}.error & \
         echo $! >{TRACE}.pid"
    ))
    .unwrap();
    wait::true_within("the tracer", SOON, || {
        Ok(rig.sh("grep TracerPid /proc/1/status")?.trim() != "TracerPid:\t0")
    })
    .unwrap();
    let running = start(stand, config);
    assert_eq!(is_fast(&running), is_cached, "{config}");
    running.destroy().unwrap();
    rig.sh(&format!(
        "kill $(cat {TRACE}.pid); while kill -0 $(cat {TRACE}.pid) 2>/dev/null; do sleep 0.1; done"
    ))
    .unwrap();
    let all = rig.sh(&format!("cat {TRACE}")).unwrap();
    let own = all.lines().filter_map(|line| line.split_once("<systemd-nspawn> "));
    let mut found = BTreeSet::new();
    for (_, call) in own {
        let error = ["EPERM", "ENOSYS", "EACCES"].into_iter().find(|error| call.contains(error));
        if let (Some(error), Some((name, _))) = (error, call.split_once('(')) {
            found.insert(format!("{name} {error}"));
        }
    }
    assert!(all.contains("<systemd-nspawn> "), "nothing of systemd-nspawn was traced");
    found
}

#[test]
fn systemd_nspawn_is_refused_nothing_more() {
    let (_alone, stand) = host();
    for config in [
        json!({}),
        json!({ "private_network": false }),
        json!({ "user": "1000:1000", "no_new_privileges": true }),
        json!({ "process_two": true, "hostname": "other" }),
        json!({ "image": "debian", "boot": true, "command": [] }),
    ] {
        let cached = refused(stand, &config, true);
        stand.rig.set_policy(format!("{POLICY}[seccomp]\ncache = false\n")).unwrap();
        let own = refused(stand, &config, false);
        stand.rig.set_policy(POLICY).unwrap();
        let more: Vec<_> = cached.difference(&own).collect();
        // The launcher has joined a keyring of its own instead.
        assert!(more.iter().all(|call| *call == "keyctl EPERM"), "{config}: {more:?}, not {own:?}");
    }
}
