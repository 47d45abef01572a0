//! The example of a mount unit: systemd takes it as it is, and it does what it says.

use crate::alone;
use nspawn_tests::product::workspace;

const UNIT: &str = "var-lib-nomad-alloc.mount";

#[test]
fn the_example_mount_is_valid_and_makes_the_allocation_directory_harmless() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    let file = format!("/etc/systemd/system/{UNIT}");
    let example = workspace().join(format!("example/systemd/{UNIT}.example"));
    rig.copy_in(&example, &file, 0o644).unwrap();
    // It loads every unit that has to do with it, of which 252 does not know all keys.
    let verify = rig.sh(&format!("systemd-analyze verify {UNIT} 2>&1 | grep {UNIT} || true"));
    assert_eq!(verify.unwrap(), "");
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    rig.run(&["systemctl", "start", UNIT]).unwrap();
    let options = rig.run(&["findmnt", "-no", "OPTIONS", "/var/lib/nomad/alloc"]).unwrap();
    let options: Vec<&str> = options.split(',').collect();
    assert!(options.contains(&"nosuid") && options.contains(&"nodev"), "{options:?}");
    rig.run(&["systemctl", "stop", UNIT]).unwrap();
    rig.run(&["rm", &file]).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    host.world.assert_same(rig).unwrap();
}
