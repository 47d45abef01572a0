//! Published ports and outgoing traffic of tasks beside other firewalls, one at a time: real Docker,
//! firewalld and ufw, and a table of the operator's own that drops what it does not know.
//!
//! What each of them does to tasks, and the line that mends it, is read from the table in NETWORK.md,
//! so that the document cannot be wrong without a failing test. One host with all of them installed,
//! none of which runs until its test starts it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod docs;
mod doctor;
mod others;

use nspawn_tests::lan::{self, HOST_4, HOST_6, IN_LAN, LAN_4, LAN_6, LAN_PORT};
use nspawn_tests::stand::{Running, Stand};
use nspawn_tests::{Config, Rig, wait};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// One firewall of the host.
pub(crate) struct Firewall {
    /// Beginning of its row in NETWORK.md.
    pub(crate) row: &'static str,
    /// What doctor calls it.
    pub(crate) name: &'static str,
    /// Whether published ports work beside it as it is, for IPv4 and for IPv6.
    pub(crate) published: [bool; 2],
    /// Whether tasks reach the local network beside it as it is.
    pub(crate) outgoing: [bool; 2],
    /// Makes it start.
    pub(crate) start: &'static str,
    /// Makes it read its configuration again.
    pub(crate) reload: &'static str,
    /// Ends it.
    pub(crate) stop: &'static str,
}

/// The host, for one test alone.
fn host() -> (MutexGuard<'static, ()>, &'static Stand) {
    static ALONE: Mutex<()> = Mutex::new(());
    static STAND: OnceLock<Stand> = OnceLock::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = STAND.get_or_init(|| {
        let config = Config { agent: false, firewalls: true, ..Config::from_env().unwrap() };
        let stand = Stand::up_on(&config, "").unwrap();
        lan::up(&stand.rig).unwrap();
        stand.rig.install_ctl().unwrap();
        stand
    });
    (alone, stand)
}

/// Removes what another firewall has left: all tables but ours.
const CLEAN: &str = "nft list tables | grep -v nomad_nspawn | \
    while read -r word family name; do nft delete table $family $name; done";

/// A firewall that runs until this is dropped, also by a test that fails: the next one is to find the
/// host as it was.
struct Started<'a>(&'a Rig, &'a Firewall);

impl<'a> Started<'a> {
    fn new(rig: &'a Rig, firewall: &'a Firewall) -> Self {
        let started = Self(rig, firewall);
        rig.sh(firewall.start).unwrap();
        started
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        let ended = [self.1.stop, CLEAN].map(|script| self.0.sh(script));
        if !std::thread::panicking() {
            ended.into_iter().for_each(|end| drop(end.unwrap()));
        }
    }
}

/// What a test sees of a task at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Sight {
    published: [bool; 2],
    outgoing: [bool; 2],
}

const OPEN: Sight = Sight { published: [true, true], outgoing: [true, true] };

fn look(rig: &Rig, netns: &str, port: i32) -> Sight {
    let inside = ["nsenter", netns];
    let asks: [(&[&str], &str, i32); 4] = [
        (IN_LAN, HOST_4, port),
        (IN_LAN, HOST_6, port),
        (&inside, LAN_4, LAN_PORT),
        (&inside, LAN_6, LAN_PORT),
    ];
    // At once: what is dropped takes its time.
    let [lan_4, lan_6, out_4, out_6] = std::thread::scope(|scope| {
        asks.map(|(from, to, port)| scope.spawn(move || lan::answers(rig, from, to, port, 2)))
            .map(|ask| ask.join().unwrap())
    });
    Sight { published: [lan_4, lan_6], outgoing: [out_4, out_6] }
}

/// Waits for what `expected` says: a program of the test that comes late is no answer.
fn assert_sight(rig: &Rig, netns: &str, port: i32, expected: &Sight, when: &str) {
    let mut last = None;
    let seen = wait::true_within(when, Duration::from_secs(20), || {
        let now = look(rig, netns, port);
        let same = now == *expected;
        last = Some(now);
        Ok(same)
    });
    let rules = || rig.run(&["nft", "-s", "list", "ruleset"]).unwrap_or_default();
    assert!(seen.is_ok(), "{when}: {last:?}, not {expected:?}\n{}", rules());
}

/// The firewall comes, is mended, reads its configuration again and goes, and our table stays as it
/// is all the while. It comes a second time, and is mended by the line of doctor's.
fn beside(firewall: &Firewall, port: i32) {
    let (_alone, stand) = host();
    let rig = &stand.rig;
    let server: Running<'_> = lan::serve(stand, &[HOST_4, HOST_6], port).unwrap();
    let netns = lan::netns_of(&server).unwrap();
    let row = firewall.row;
    assert_sight(rig, &netns, port, &OPEN, &format!("{row}: before it"));
    let table = lan::table(rig).unwrap();
    let same = |when: &str| assert_eq!(lan::table(rig).unwrap(), table, "{row}: {when}");
    doctor::assert_content(rig, &format!("{row}: before it"));

    let running = Started::new(rig, firewall);
    same("started");
    let blocked = Sight { published: firewall.published, outgoing: firewall.outgoing };
    assert_sight(rig, &netns, port, &blocked, &format!("{row}: as it is"));
    for address in ["127.0.0.1", "::1", HOST_4] {
        assert!(lan::answers(rig, &[], address, port, 5), "{row}: the host itself, {address}");
    }

    doctor::line_for(rig, firewall.name);
    docs::mend(rig, row);
    same("mended");
    assert_sight(rig, &netns, port, &OPEN, &format!("{row}: mended"));
    doctor::assert_content(rig, &format!("{row}: mended"));
    // A task that starts now is served as well.
    let later = lan::serve(stand, &[HOST_4], port + 1).unwrap();
    assert!(lan::answers(rig, IN_LAN, HOST_4, port + 1, 10), "{row}: a later task");
    later.stop("SIGKILL").unwrap();
    same("after another task");

    rig.sh(firewall.reload).unwrap();
    same("reloaded");
    assert_sight(rig, &netns, port, &OPEN, &format!("{row}: reloaded"));

    drop(running);
    same("stopped");
    assert_sight(rig, &netns, port, &OPEN, &format!("{row}: after it"));

    let running = Started::new(rig, firewall);
    rig.sh(&doctor::line_for(rig, firewall.name)).unwrap();
    assert_sight(rig, &netns, port, &OPEN, &format!("{row}: mended by doctor's line"));
    doctor::assert_content(rig, &format!("{row}: mended by its line"));
    drop(running);
    same("stopped again");
    server.stop("SIGKILL").unwrap();
}
