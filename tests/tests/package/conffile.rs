//! The policy file over an upgrade: kept where the administrator has changed it, asked about as Debian
//! does, and never a reason for a helper that does not run.

use crate::node::{HELPER, NAME, bare, bring, install, property, sh};
use crate::{PACKAGE, Scratch, before};
use nspawn_tests::{Rig, Suite, product::POLICY};

const OWN: &str = "# Of the administrator.\n[limits]\nmax_tasks = 77\n";

#[test]
fn the_policy_file_is_the_administrators() {
    let scratch = Scratch::new("conffile");
    let rig = bare(Suite::from_env().unwrap(), false);
    let (old, new) = (bring(&rig, &before(&scratch.0)), bring(&rig, &PACKAGE));
    install(&rig, &old);
    assert!(text(&rig).starts_with("# Of the release before."));
    // Not changed: replaced without a question.
    install(&rig, &new);
    assert!(!text(&rig).contains("Of the release before."));
    a_changed_one_is_asked_about(&rig, &old, &new);
    an_invalid_one_keeps_the_old_policy(&rig, &new);
    one_that_is_gone_stays_gone(&rig, &new);
    rig.down().unwrap();
}

fn text(rig: &Rig) -> String {
    String::from_utf8_lossy(&rig.read_file(POLICY).unwrap()).into_owned()
}

fn a_changed_one_is_asked_about(rig: &Rig, old: &str, new: &str) {
    sh(rig, &format!("dpkg --force-confnew --install {old}"));
    rig.write_file(POLICY, OWN, 0o644).unwrap();
    let out = rig.exec(&["dpkg", "--install", new]).unwrap();
    let printed = out.text() + &String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.success() && printed.contains("Configuration file '/etc/nomad-nspawn/policy.toml'")
    );
    assert!(printed.contains("conffile prompt"), "{printed}");
    // The helper runs on, and the question is answered.
    assert_eq!(property(rig, HELPER, "ActiveState"), "active");
    sh(rig, "dpkg --force-confold --configure --pending");
    assert_eq!(text(rig), OWN);
    assert!(rig.exists("/etc/nomad-nspawn/policy.toml.dpkg-dist"));
    assert_eq!(property(rig, HELPER, "ActiveState"), "active");
    sh(rig, "nomad-nspawnctl policy check");
    sh(rig, "rm /etc/nomad-nspawn/policy.toml.dpkg-dist");
}

fn an_invalid_one_keeps_the_old_policy(rig: &Rig, new: &str) {
    let helper = rig.main_pid(HELPER).unwrap();
    rig.write_file(POLICY, "[limits]\nmax_taks = 7\n", 0o644).unwrap();
    let printed = sh(rig, &format!("dpkg --force-confold --install {new}"));
    for words in ["max_taks", "was not restarted, and the old policy stays in force"] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert_eq!(rig.main_pid(HELPER).unwrap(), helper);
    assert_eq!(sh(rig, &format!("dpkg-query -W -f '${{db:Status-Abbrev}}' {NAME}")).trim(), "ii");
    rig.write_file(POLICY, OWN, 0o644).unwrap();
    sh(rig, &format!("systemctl restart {HELPER}"));
    assert_ne!(rig.main_pid(HELPER).unwrap(), helper);
}

/// Without a file the strict defaults are in force: that is the administrator's choice too.
fn one_that_is_gone_stays_gone(rig: &Rig, new: &str) {
    sh(rig, &format!("rm {POLICY}"));
    install(rig, new);
    assert!(!rig.exists(POLICY));
    assert_eq!(property(rig, HELPER, "ActiveState"), "active");
}
