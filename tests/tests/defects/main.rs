//! The older driver's defects, one test each, named after their number in its list: what ours does
//! instead. Those about networks of our own, image downloads, exec and CPU or swap limits come with
//! the versions that bring these.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod config;
mod fresh;
mod life;
mod networks;
mod security;
mod upkeep;

use nspawn_tests::stand::Stand;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// Strict, with the directories that the tests bind.
const POLICY: &str = r#"
[binds]
read_only = ["/srv/ro"]
read_write = ["/srv/rw"]

[network]
allow = ["private", "veth", "group", "host"]
"#;

/// One host for all tests of this binary.
fn stand() -> &'static Stand {
    static STAND: OnceLock<Stand> = OnceLock::new();
    STAND.get_or_init(|| {
        let stand = Stand::up(POLICY).unwrap();
        stand
            .rig
            .sh("mkdir -m 0755 /srv/ro && mkdir -m 0700 /srv/rw && \
                 mount -t tmpfs -o mode=0700 tmpfs /srv/rw && mkdir /srv/rw/data && echo host > /srv/ro/file && chown -R 1000:1000 /srv/rw/data")
            .unwrap();
        stand
    })
}

/// A shell script as a command in an ephemeral busybox.
fn script(script: &str) -> Value {
    json!({
        "image": "busybox", "boot": false, "ephemeral": true,
        "command": ["/bin/sh", "-c", script],
    })
}

/// The configuration with further keys, or other values.
fn with(mut config: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}
