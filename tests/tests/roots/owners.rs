//! How the image's owners become those inside, with and without a user namespace.

use crate::*;
use proto::task_spec::{Ownership, Users};

/// A range of the grid that no allocation takes first by chance: the last one.
const BASE: u32 = proto::limits::RANGE_LAST;
const FIXED: Users = Users::Fixed { base: BASE, width: proto::limits::RANGE_WIDTH };

fn with(name: &str, mode: Root, ownership: Ownership, users: Users) -> impl FnOnce(&mut TaskSpec) {
    let change = tree(name, mode);
    move |spec| {
        change(spec);
        spec.root.ownership = ownership;
        spec.users = users;
    }
}

const WHO: &str = "stat -c %u:%g / /etc/passwd /home/app; cut -c1-32 /proc/self/uid_map | xargs; \
                   echo x 2>/dev/null >/new && stat -c %u /new";

fn who(map: &str, writable: bool) -> String {
    let mut text = vec!["0:0", "0:0", "1000:1000", map];
    text.extend(writable.then_some("0"));
    lines(&text)
}

/// Tests that use the one fixed range take turns.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn an_image_whose_owners_are_in_the_range_is_used_as_it_is() {
    let _turn = turn();
    let app = BASE + 1000;
    let path = image("shifted", &format!("chown -hR {BASE}:{BASE} .; chown {app}:{app} home/app"));
    let before = fingerprint(&path);
    let map = format!("0 {BASE} 65536");
    for mode in HARMLESS {
        if mode == Root::Volatile(Volatile::Yes) {
            continue;
        }
        let said = run(with("shifted", mode, Ownership::Off, FIXED), WHO);
        let writable = !matches!(mode, Root::ReadOnly | Root::Volatile(Volatile::State));
        assert_eq!(said, who(&map, writable), "{mode:?}");
        assert_eq!(fingerprint(&path), before, "{mode:?}");
    }
    assert_eq!(run(with("shifted", Root::Plain, Ownership::Off, FIXED), WHO), who(&map, true));
    let owner = rig().run(&["stat", "-c", "%u", &format!("{path}/new")]).unwrap();
    assert_eq!(owner, BASE.to_string());
    // Mapped, every file of it would be nobody's.
    let said = refused(with("shifted", Root::ReadOnly, Ownership::Map, Users::Pick));
    assert!(said.contains(&format!("belongs to uid {BASE}")), "{said}");
}

#[test]
fn owners_are_rewritten_on_disk_when_asked_for() {
    let _turn = turn();
    let path = image("rewritten", "");
    let map = format!("0 {BASE} 65536");
    // The second run finds them in the range already.
    for _again in 0..2 {
        let said = run(with("rewritten", Root::Plain, Ownership::Chown, FIXED), WHO);
        assert_eq!(said, who(&map, true));
        let stat = ["stat", "-c", "%u", "etc/passwd", "home/app", "new", "usr/bin/sh"];
        let words = [["env", "-C", path.as_str()].as_slice(), &stat].concat();
        let app = BASE + 1000;
        assert_eq!(rig().run(&words).unwrap(), format!("{BASE}\n{app}\n{BASE}\n{BASE}"));
    }
}

#[test]
fn without_isolation_every_mode_is_the_same_without_mapping() {
    let path = image("host-users", "");
    let before = fingerprint(&path);
    for (users, map) in [(Users::Host, "0 0 4294967295"), (Users::Identity, "0 0 65536")] {
        for mode in HARMLESS {
            if mode == Root::Volatile(Volatile::Yes) {
                continue;
            }
            let said = run(with("host-users", mode, Ownership::Map, users), WHO);
            let writable = !matches!(mode, Root::ReadOnly | Root::Volatile(Volatile::State));
            assert_eq!(said, who(map, writable), "{users:?} {mode:?}");
            assert_eq!(fingerprint(&path), before, "{users:?} {mode:?}");
        }
    }
    for (users, map) in [(Users::Host, "0 0 4294967295"), (Users::Identity, "0 0 65536")] {
        let said = run(with("host-users", Root::Plain, Ownership::Map, users), WHO);
        assert_eq!(said, who(map, true), "{users:?}");
        let owner = rig().run(&["stat", "-c", "%u", &format!("{path}/new")]).unwrap();
        assert_eq!(owner, "0", "{users:?}");
    }
}
