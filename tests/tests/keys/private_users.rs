//! The task's user namespace, and whose the image's files are in it.

use crate::*;
use std::sync::{Mutex, MutexGuard};

/// The uid map inside, and who owns the root and a user's directory there.
const MAP: &str = "echo $(cat /proc/self/uid_map); stat -c %u / /home/app";

/// Tests that use the one fixed range take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const BASE: u32 = 1_342_177_280;

/// First uid on the host and width of a map that begins at the container's root.
fn range(more: Value) -> (u32, u32) {
    let text = says(more.clone(), MAP);
    let (map, owners) = text.split_once('\n').unwrap();
    assert_eq!(owners, "0\n1000\n", "{more}");
    let words: Vec<u32> = map.split(' ').map(|word| word.parse().unwrap()).collect();
    assert_eq!((words.len(), words[0]), (3, 0), "{more}: {map}");
    (words[1], words[2])
}

#[test]
fn key_user_namespacing() {
    let (base, width) = range(json!({ "user_namespacing": true }));
    assert!(base >= 524_288 && width == 65_536, "{base} {width}");
    assert_eq!(range(json!({ "user_namespacing": false })), (0, u32::MAX));
    // It makes the others void.
    let void = json!({
        "user_namespacing": false, "private_users": "pick", "private_users_ownership": "chown",
    });
    assert_eq!(range(void), (0, u32::MAX));
    strict_refusals(&[(json!({ "user_namespacing": false }), &["[userns] require = false"])]);
}

#[test]
fn key_private_users() {
    let _turn = turn();
    let users = |word: &str| json!({ "private_users": word });
    for word in ["pick", "yes", ""] {
        let (base, width) = range(users(word));
        assert!(base >= 524_288 && base % 65_536 == 0 && width == 65_536, "{word}: {base} {width}");
    }
    assert_eq!(range(users("identity")), (0, 65_536));
    assert_eq!(range(users("no")), (0, u32::MAX));
    assert_eq!(range(users(&BASE.to_string())), (BASE, 65_536));
    assert_eq!(range(users(&format!("{BASE}:2000"))), (BASE, 2000));
    // Off the grid, where the policy lets tasks have the host's ids at all; the plugin hears of a
    // policy that was read again some seconds later.
    let off_grid = sh(users("1000000:65536"), "true");
    wait::true_within("the policy to be known", SOON, || Ok(stand().run(&off_grid).is_ok()))
        .unwrap();
    assert_eq!(range(users("1000000:65536")), (1_000_000, 65_536));
    refusals(&[
        (users("some"), &["private_users = \"some\"", "yes, no, pick, identity, uid or uid:count"]),
        (users("524288:0"), &["private_users", "1 to 65536 ids"]),
        (users("524288:65537"), &["private_users", "1 to 65536 ids"]),
        (users("4294967295:2"), &["private_users", "above the largest uid"]),
        (users("managed"), &["private_users", "managed", "write pick"]),
    ]);
    strict_refusals(&[
        (users("identity"), &["[userns] require = false"]),
        (users("no"), &["[userns] require = false"]),
        (users("1000"), &["[userns] require = false"]),
        (users("1000000"), &["multiple of 65536", "[userns] require = false"]),
    ]);
}

#[test]
fn key_private_users_ownership() {
    let _turn = turn();
    let path = copy("owners", "");
    let on_disk = || stand().rig.sh(&format!("stat -c %u {path}/etc {path}/home/app")).unwrap();
    let keys = |word: &str, ephemeral: bool| {
        json!({
            "image": "owners", "ephemeral": ephemeral, "private_users": BASE.to_string(),
            "private_users_ownership": word,
        })
    };
    for word in ["auto", "map"] {
        assert_eq!(range(keys(word, true)), (BASE, 65_536), "{word}");
        assert_eq!(range(keys(word, false)), (BASE, 65_536), "{word}");
        assert_eq!(on_disk(), "0\n1000", "{word}");
    }
    // Ephemeral roots show the same owners without a change on disk.
    assert_eq!(range(keys("chown", true)), (BASE, 65_536));
    assert_eq!(on_disk(), "0\n1000");
    assert_eq!(range(keys("chown", false)), (BASE, 65_536));
    assert_eq!(on_disk(), format!("{BASE}\n{}", BASE + 1000));
    // Now they are in the range already.
    assert_eq!(range(keys("off", true)), (BASE, 65_536));
    assert_eq!(range(keys("off", false)), (BASE, 65_536));
    let word = |word: &str| json!({ "private_users_ownership": word });
    refusals(&[
        (word("shift"), &["private_users_ownership = \"shift\"", "auto, map, chown, off"]),
        (word("foreign"), &["private_users_ownership", "foreign", "write auto"]),
    ]);
}
