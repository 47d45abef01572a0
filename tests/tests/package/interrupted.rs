//! dpkg is killed at each script, and finishes what was interrupted afterwards.

use crate::node::{HELPER, NAME, SOCKET, bare, bring, install, property, sh, wait_helper};
use crate::{BEFORE, PACKAGE, Scratch, changed};
use nspawn_tests::{Rig, Suite};
use std::path::{Path, PathBuf};

/// Version of a release to come.
const AFTER: &str = "99.0.0";

/// A package whose script kills dpkg once, at its beginning or at its end.
fn killing(dir: &Path, version: &str, script: &str, at_end: bool) -> PathBuf {
    changed(dir, version, |tree| {
        let file = tree.join("DEBIAN").join(script);
        let text = std::fs::read_to_string(&file).unwrap();
        let kill =
            "if [ -e /root/kill ]; then rm /root/kill; kill -9 $PPID; sleep 0.2; exit 9; fi\n";
        let text = if at_end {
            text + kill
        } else {
            text.replacen("set -e\n", &format!("set -e\n{kill}"), 1)
        };
        std::fs::write(&file, text).unwrap();
    })
}

fn state(rig: &Rig) -> String {
    sh(rig, &format!("dpkg-query -W -f '${{db:Status-Abbrev}}' {NAME} || true")).trim().to_owned()
}

/// Runs dpkg, which is killed in one of its scripts.
fn run_killed(rig: &Rig, words: &str) {
    sh(rig, "touch /root/kill");
    let out = rig.exec(&["sh", "-c", &format!("exec dpkg {words}")]).unwrap();
    assert!(!out.success() && !rig.exists("/root/kill"), "{words}: {}", out.text());
}

fn assert_installed(rig: &Rig, what: &str) {
    assert_eq!(state(rig), "ii", "{what}");
    wait_helper(rig);
    for unit in [SOCKET, HELPER] {
        assert_eq!(property(rig, unit, "UnitFileState"), "enabled", "{what}: {unit}");
    }
}

#[test]
fn a_killed_dpkg_goes_on_where_it_was() {
    let scratch = Scratch::new("interrupted");
    let rig = bare(Suite::from_env().unwrap(), false);
    let new = bring(&rig, &PACKAGE);
    for (at_end, when) in [(false, "begin"), (true, "end")] {
        let name = |script: &str| format!("{script} {when}");
        // A first installation.
        let package = bring(&rig, &killing(&scratch.0, BEFORE, "postinst", at_end));
        run_killed(&rig, &format!("--install {package}"));
        sh(&rig, "dpkg --configure --pending");
        assert_installed(&rig, &name("postinst"));
        // An upgrade: scripts of the old package, then of the new.
        for script in ["prerm", "postrm"] {
            let old = bring(&rig, &killing(&scratch.0, BEFORE, script, at_end));
            install(&rig, &old);
            // An upgrade ends prerm early; what follows is for a removal.
            if script == "prerm" && at_end {
                continue;
            }
            run_killed(&rig, &format!("--install {new}"));
            recover(&rig, &new);
            assert_installed(&rig, &name(script));
            assert_eq!(property(&rig, HELPER, "ActiveState"), "active");
        }
        let newer = bring(&rig, &killing(&scratch.0, AFTER, "postinst", at_end));
        run_killed(&rig, &format!("--install {newer}"));
        sh(&rig, "dpkg --configure --pending");
        assert_installed(&rig, &name("postinst of an upgrade"));
        // A removal.
        for script in ["prerm", "postrm"] {
            let package = bring(&rig, &killing(&scratch.0, BEFORE, script, at_end));
            install(&rig, &package);
            run_killed(&rig, &format!("--remove {NAME}"));
            sh(&rig, &format!("dpkg --configure --pending; dpkg --remove {NAME}"));
            assert!(
                ["rc", "un"].contains(&state(&rig).as_str()),
                "{}: {}",
                name(script),
                state(&rig)
            );
            assert!(!rig.exec(&["systemctl", "is-active", HELPER]).unwrap().success());
            assert!(!rig.exists("/usr/lib/nomad/plugins/nspawn"));
        }
        sh(&rig, &format!("dpkg --purge {NAME}"));
        assert!(!rig.exists("/etc/nomad-nspawn"));
    }
    install(&rig, &new);
    assert_installed(&rig, "after all");
    rig.down().unwrap();
}

/// dpkg finishes a package that it had unpacked; one that it had not is named by it, to be installed again.
fn recover(rig: &Rig, package: &str) {
    sh(rig, "dpkg --configure --pending || true");
    if state(rig) != "ii" {
        sh(rig, &format!("dpkg --force-confold --install {package}"));
    }
}
