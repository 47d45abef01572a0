//! Every key and value of the configuration that has an effect inside, tried by a real container
//! and looked at from inside. docs/CONFIG.md names the test of each key: `key_<name>` here.
//!
//! The plugin is driven as the agent drives it. Two hosts: one with the compat preset, on which
//! effects are looked at, and one with the strict preset, which refuses what reaches beyond a task.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod attached;
mod documented;
mod files;
mod image_root;
mod isolation;
mod later;
mod logs;
mod mounts;
mod network_names;
mod plugin;
mod private_users;
mod process;
mod resources;
mod roots;
mod small_images;
mod start;

use nomad_proto::drivers::TaskConfig;
use nspawn_tests::plugin::Allocation;
use nspawn_tests::stand::{Outcome, Running, Stand};
use nspawn_tests::wait;
use serde_json::{Value, json};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

const STORE: &str = "/var/lib/machines";
/// No step takes longer.
const SOON: Duration = Duration::from_secs(30);

/// /srv is a file system that can be ID-mapped, which the host's root is not. Image `init` boots in
/// no time: its init says what it is given. Image `zones` has two time zones.
const PREPARE: &str = r#"
set -e
mkdir -p /opt/nomad/files; mount --bind /opt/nomad/files /srv; chmod 0755 /srv
mkdir -m 0700 /srv/closed
cd /var/lib/machines
cp -a busybox init; rm init/usr/bin/init
printf '#!/bin/sh\necho pid $$ as $(id -u) with "$*"\n. /local/script\n' > init/usr/bin/init
chmod 755 init/usr/bin/init
cp -a busybox zones; mkdir -p zones/usr/share/zoneinfo/Asia
cp /usr/share/zoneinfo/UTC zones/usr/share/zoneinfo
cp /usr/share/zoneinfo/Asia/Tokyo zones/usr/share/zoneinfo/Asia
ln -s ../usr/share/zoneinfo/UTC zones/etc/localtime
ln -sf /usr/share/zoneinfo/Asia/Tokyo /etc/localtime
"#;

/// The compat preset, with an interface for macvlan, scores below 0 and slices.
const POLICY: &str = "preset = \"compat\"\n[network]\nallow = [\"private\", \"veth\", \"zone\", \
                      \"group\", \"host\", \"bridge:*\", \"macvlan:mac*\", \"container\"]\n\
                      [limits]\noom_score_adj = -500\n\
                      [systemd]\nslices = [\"machine-nspawn-*.slice\"]\n";

/// The host on which nothing is refused but what makes no sense.
fn stand() -> &'static Stand {
    static STAND: OnceLock<Stand> = OnceLock::new();
    STAND.get_or_init(|| {
        let stand = Stand::up(POLICY).unwrap();
        stand.rig.sh(PREPARE).unwrap();
        stand.rig.add_loop_nodes().unwrap();
        stand
    })
}

/// Who stops the strict host's helper is alone on it.
static STRICT_LIFE: RwLock<()> = RwLock::new(());

/// The host with the strict preset and no line of its own.
fn strict_stand() -> &'static Stand {
    static STAND: OnceLock<Stand> = OnceLock::new();
    STAND.get_or_init(|| Stand::up("preset = \"strict\"\n").unwrap())
}

fn strict() -> (RwLockReadGuard<'static, ()>, &'static Stand) {
    let guard = STRICT_LIFE.read().unwrap_or_else(PoisonError::into_inner);
    (guard, strict_stand())
}

/// The keys with others on top; null unsets one.
fn with(mut keys: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        keys[key] = value.clone();
    }
    keys
}

/// A shell script as a command in an ephemeral busybox, with further keys.
fn sh(more: Value, script: &str) -> Value {
    let command = ["/bin/sh", "-c", script];
    let keys = json!({ "image": "busybox", "boot": false, "ephemeral": true, "command": command });
    with(keys, more)
}

/// What a script writes that ends well in a task with these keys.
fn says(more: Value, script: &str) -> String {
    says_of(more, script, |_| {})
}

/// The same where Nomad says more of the task.
fn says_of(more: Value, script: &str, change: impl FnOnce(&mut TaskConfig)) -> String {
    let outcome = stand().run_with(&sh(more.clone(), script), change);
    let outcome = outcome.unwrap_or_else(|error| panic!("{more}: {error:#}"));
    good(&format!("{more} {script:?}"), outcome)
}

/// The same where a script on the host has prepared the allocation, whose directory is its `$1`.
fn says_in(prepare: &str, more: Value, script: &str) -> String {
    let outcome = prepared(prepare, &sh(more.clone(), script)).finish().unwrap();
    good(&format!("{more} {script:?}"), outcome)
}

/// Starts a task in an allocation that a script on the host has prepared.
fn prepared(prepare: &str, keys: &Value) -> Running<'static> {
    let allocation = allocation(prepare);
    let started = stand().start_in(allocation, 1, keys, |_| {}).unwrap();
    started.unwrap_or_else(|refused| panic!("{keys}: {}", refused.text))
}

fn allocation(prepare: &str) -> Allocation {
    let allocation = stand().allocation("t").unwrap();
    stand().rig.run(&["sh", "-ec", prepare, "sh", &allocation.dir()]).unwrap();
    allocation
}

fn good(what: &str, outcome: Outcome) -> String {
    assert!(outcome.code == 0 && outcome.stderr.is_empty(), "{what}: {outcome:?}");
    outcome.stdout
}

/// Keys, what a script does beside them, and what it must write.
type Effect<'a> = (Value, &'a str, &'a str);

fn effects(rows: &[Effect<'_>]) {
    for (keys, script, expected) in rows {
        assert_eq!(says(keys.clone(), script), *expected, "{keys} {script:?}");
    }
}

/// Keys with which nothing starts, and what the person is told.
fn refusals(rows: &[(Value, &[&str])]) {
    refusals_on(stand(), rows);
}

/// The same beyond the strict policy.
fn strict_refusals(rows: &[(Value, &[&str])]) {
    let (_life, strict) = strict();
    refusals_on(strict, rows);
}

fn refusals_on(stand: &Stand, rows: &[(Value, &[&str])]) {
    for (keys, words) in rows {
        let refused = stand.refusal(&sh(keys.clone(), "exit 0")).unwrap();
        for word in *words {
            assert!(refused.text.contains(word), "{keys}: no {word:?} in: {}", refused.text);
        }
        assert!(!refused.recoverable, "{keys}: {}", refused.text);
    }
}

/// Starts a task that stays.
fn started(keys: &Value) -> Running<'static> {
    let started = stand().start(keys, |_| {}).unwrap();
    started.unwrap_or_else(|refused| panic!("{keys}: {}", refused.text))
}

/// What a shell writes that enters the namespaces of a running task.
fn inside(task: &Running<'_>, script: &str) -> String {
    let leader = wait::until("PID 1 to be known", SOON, || Ok(task.leader().ok()));
    let leader = leader.unwrap_or_else(|error| {
        panic!("{error:#}\n{}", stand().rig.journal(&task.unit()).unwrap());
    });
    let enter = ["nsenter", "-t", &leader, "-a", "-r", "-w", "sh", "-c", script];
    stand().rig.exec(&enter).unwrap().text()
}

/// Waits until a booted Debian has come up.
fn wait_booted(task: &Running<'_>) {
    wait::true_within("the container's boot", SOON, || {
        let state = inside(task, "systemctl is-system-running");
        Ok(["running", "degraded"].contains(&state.trim()))
    })
    .unwrap();
}

/// A copy of the busybox image under a name of the test's own, changed by a script in it.
fn copy(name: &str, script: &str) -> String {
    let path = format!("{STORE}/{name}");
    let words = ["sh", "-ec", "cp -a \"$0/busybox\" \"$1\"; cd \"$1\"; eval \"$2\""];
    stand().rig.run(&[words.as_slice(), &[STORE, &path, script]].concat()).unwrap();
    path
}

/// Whether the host's systemd is at least of this version.
fn systemd(version: u32) -> bool {
    static FOUND: OnceLock<u32> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let text = stand().rig.run(&["systemctl", "--version"]).unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    });
    *found >= version
}
