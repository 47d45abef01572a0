//! Whatever becomes of the cache, no payload is without filters and no start fails.

use super::*;

/// The unit in which filters are made.
const FILL: &str = "nomad-nspawn-filters.service";

fn entries(rig: &Rig) -> Vec<String> {
    let names = rig.sh(&format!("ls {CACHE} 2>/dev/null || true")).unwrap();
    names.split_whitespace().map(str::to_owned).collect()
}

/// A task starts, with the filters that it must have.
fn assert_confined(stand: &Stand, expected: &Filters, what: &str) {
    let running = start(stand, &json!({}));
    let found = filters_of_task(&running);
    running.destroy().unwrap();
    assert!(found == *expected, "{what}: {} filters", found.len());
}

#[test]
fn a_damaged_entry_is_never_used() {
    let (_alone, stand) = host();
    let fast = start_fast(stand, &json!({}));
    let good = filters_of_task(&fast);
    fast.destroy().unwrap();
    let all = entries(&stand.rig);
    assert!(!all.is_empty());
    for (what, script) in [
        ("cut", "truncate -s 2000 $f"),
        ("empty", ": >$f"),
        ("a bit", "printf X | dd of=$f bs=1 seek=4000 conv=notrunc status=none"),
        ("another owner", "chown 1 $f"),
        ("open to others", "chmod 0644 $f"),
        ("a link", "mv $f $f.old; ln -s $f.old $f"),
        ("missing", "rm $f"),
        ("a directory", "rm $f; mkdir $f"),
        ("binary", "head -c 3000 /dev/urandom >$f"),
        ("another set's", "sed -i 's/^filter 0020/filter 0030/' $f"),
        ("newer library", "touch -h /etc/ld.so.cache"),
        ("newer nspawn", "touch /usr/bin/systemd-nspawn"),
        ("another library for all", ": >/etc/ld.so.preload"),
    ] {
        // Not what the script before has left beside an entry.
        let script = format!("for f in {CACHE}/{}; do {script}; done", "?".repeat(32));
        stand.rig.sh(&script).unwrap();
        assert_confined(stand, &good, what);
        // Not under the one that is being made.
        let is_made = || Ok(!stand.rig.exec(&["systemctl", "is-active", FILL])?.success());
        wait::true_within("the end of a fill", SOON, is_made).unwrap();
        stand.rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
        let again = start_fast(stand, &json!({}));
        assert!(filters_of_task(&again) == good, "{what}: made again");
        again.destroy().unwrap();
    }
    stand.rig.sh("rm /etc/ld.so.preload").unwrap();
}

#[test]
fn without_the_cache_systemd_nspawn_makes_its_own() {
    let (_alone, stand) = host();
    let fast = start_fast(stand, &json!({}));
    let good = filters_of_task(&fast);
    fast.destroy().unwrap();
    stand.rig.set_policy("[seccomp]\ncache = false\n[network]\nallow = [\"private\"]\n").unwrap();
    let slow = start(stand, &json!({}));
    assert!(!is_fast(&slow));
    assert!(filters_of_task(&slow) == good);
    slow.destroy().unwrap();
}

/// The cache is in memory, and a job chooses its capabilities.
#[test]
fn jobs_cannot_fill_the_hosts_memory() {
    let (_alone, stand) = host();
    start_fast(stand, &json!({})).destroy().unwrap();
    let copies = format!(
        "cd {CACHE}; f=$(ls | head -n 1); for n in $(seq 100 163); do cp -p $f 0000000000000$n; done; \
         touch stale"
    );
    stand.rig.sh(&copies).unwrap();
    // The oldest go, but not those of a task.
    let held = start_fast(stand, &json!({ "cap_drop": ["lease"] }));
    let entry = kept::entry_of(&held);
    stand.rig.sh(&format!("touch -d @1000 {CACHE}/{entry}")).unwrap();
    for odd in ["ipc_owner", "mknod"] {
        start_fast(stand, &json!({ "cap_drop": [odd] })).destroy().unwrap();
    }
    let all = entries(&stand.rig);
    assert!(all.len() == 65 && all.contains(&entry), "{} with {entry}: {all:?}", all.len());
    assert!(!all.contains(&"stale".to_owned()), "{all:?}");
    held.destroy().unwrap();
    stand.rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
}

/// What decides is systemd-nspawn's own version, whatever PID 1's is.
#[test]
fn a_version_that_was_not_tried_makes_its_own() {
    let (_alone, stand) = host();
    stand.rig.install_ctl().unwrap();
    let fast = start_fast(stand, &json!({}));
    let good = filters_of_task(&fast);
    fast.destroy().unwrap();
    // The text of 257 has its number as an argument.
    let change = r#"set -e; l=$(ls /usr/lib/*/systemd/libsystemd-shared-*.so); cp -p $l $l.old
        sed 's/%ssystemd %i%s/%ssystem 9%i%s/; s/systemd 252 (/systemd 999 (/' $l.old >$l.new
        chmod 644 $l.new; mv $l.new $l; systemd-nspawn --version | sed 's/^[a-z]* //; s/ .*//; q'"#;
    let version = stand.rig.sh(change).unwrap();
    let version = version.trim();
    let all = start(stand, &json!({}));
    all.destroy().unwrap();
    assert!(["9257", "999"].contains(&version), "{version}");
    // The set is made, for commands that are executed in the task, and not used for a start.
    let look = format!("grep -l '^version {version}$' {CACHE}/* || true");
    let is_made = || Ok(!stand.rig.sh(&look)?.is_empty());
    wait::true_within("the set of the new version", SOON, is_made).unwrap();
    for _ in 0..3 {
        let slow = start(stand, &json!({}));
        let (is_fast, filters) = (is_fast(&slow), filters_of_task(&slow));
        slow.destroy().unwrap();
        assert!(!is_fast && filters == good, "{} filters", filters.len());
    }
    let doctor = stand.rig.exec(&["nomad-nspawnctl", "doctor"]).unwrap().text();
    let journal = stand.rig.journal("nomad-nspawn-helper").unwrap();
    stand.rig.sh("l=$(ls /usr/lib/*/systemd/libsystemd-shared-*.so); mv $l.old $l").unwrap();
    for text in [doctor, journal] {
        let reason = format!("not been tried with systemd-nspawn {version} on");
        assert!(text.contains(&reason), "{text}");
    }
    start_fast(stand, &json!({})).destroy().unwrap();
}

/// Nothing is interrupted, and nobody is asked, when systemd is upgraded between fill and start.
#[test]
fn a_replaced_library_is_noticed_while_tasks_start() {
    let (_alone, stand) = host();
    let good = start_fast(stand, &json!({}));
    let filters = filters_of_task(&good);
    good.destroy().unwrap();
    let library =
        stand.rig.sh("ldconfig -p | sed -n 's/.*libseccomp.so.2 .*=> //p' | head -n 1").unwrap();
    for round in 0..20 {
        // As a package manager does it: a new file under the same name.
        let replace = format!("l=$(readlink -f {}); cp -p $l $l.new; mv $l.new $l", library.trim());
        if round % 4 == 0 {
            stand.rig.sh(&replace).unwrap();
        }
        let running = start(stand, &json!({}));
        assert!(filters_of_task(&running) == filters, "round {round}");
        running.destroy().unwrap();
    }
}

#[test]
fn the_tool_lists_and_verifies_the_cache() {
    let (_alone, stand) = host();
    stand.rig.install_ctl().unwrap();
    start_fast(stand, &json!({})).destroy().unwrap();
    let listed = stand.rig.run(&["nomad-nspawnctl", "filters", "list"]).unwrap();
    assert!(listed.contains(" current 5 filters: "), "{listed}");
    let verified = stand.rig.run(&["nomad-nspawnctl", "filters", "verify"]).unwrap();
    assert!(verified.contains(" is right"), "{verified}");
}
