//! What of the root can be written.

use crate::{copy, refusals, says, sh, stand, with};
use serde_json::{Value, json};

/// Tries to write in nine places and says where it went well.
const WRITE: &str = r#"
for d in / /etc /usr /var /home/app /tmp /run /alloc /local; do
  if (echo x > $d/.probe) 2>/dev/null; then echo -n "$d "; fi
done; echo"#;
const ALL: &str = "/ /etc /usr /var /home/app /tmp /run /alloc /local \n";
const NONE: &str = "/tmp /run /alloc /local \n";
const STATE: &str = "/var /tmp /run /alloc /local \n";
/// /home is not there at all.
const YES: &str = "/ /etc /var /tmp /run /alloc /local \n";

#[test]
fn key_read_only() {
    let keys = |more| with(json!({ "ephemeral": false }), more);
    assert_eq!(says(keys(json!({ "read_only": true })), WRITE), NONE);
    // It wins over ephemeral.
    assert_eq!(says(json!({ "read_only": true, "ephemeral": true }), WRITE), NONE);
    assert_eq!(says(json!({ "read_only": false, "ephemeral": true }), WRITE), ALL);
    // Missing mount points are provided.
    copy("bare", "rm -rf proc sys dev run tmp var home mnt srv opt root");
    let keys = keys(json!({ "read_only": true, "image": "bare", "tmpfs": ["/deep/er"] }));
    assert_eq!(says(keys, "ls -d /proc/1 /alloc /deep/er"), "/alloc\n/deep/er\n/proc/1\n");
    let chown = json!({ "read_only": true, "private_users_ownership": "chown" });
    refusals(&[(chown, &["private_users_ownership = \"chown\"", "excludes read_only"])]);
}

#[test]
fn key_volatile() {
    let image = copy("volatile", "echo image > var/file");
    for (volatile, places) in [
        (json!("yes"), YES),
        (json!("state"), STATE),
        (json!("overlay"), ALL),
        (json!("no"), ALL),
        (json!(""), ALL),
        (Value::Null, ALL),
    ] {
        let plain = volatile.is_null() || volatile == "no" || volatile == "";
        let keys = json!({ "image": "volatile", "volatile": volatile, "ephemeral": plain });
        assert_eq!(says(keys, WRITE), places, "{volatile}");
    }
    assert!(!stand().rig.exists(&format!("{image}/etc/.probe")));
    // It wins over read_only, which wins over ephemeral; "no" wins over nothing.
    for (volatile, places) in [("overlay", ALL), ("state", STATE), ("no", NONE)] {
        let keys = json!({ "volatile": volatile, "read_only": true });
        assert_eq!(says(keys, WRITE), places, "{volatile}");
    }
    let keys = |volatile| json!({ "image": "volatile", "volatile": volatile, "ephemeral": false });
    let kind = "stat -f -c %T / /var; ls /var | grep -c file";
    let outcome = |volatile| stand().run(&sh(keys(volatile), kind)).unwrap().stdout;
    assert_eq!(outcome("yes"), "tmpfs\ntmpfs\n0\n");
    assert!(outcome("state").ends_with("tmpfs\n0\n"));
    assert!(outcome("overlay").ends_with("\n1\n"));
    refusals(&[
        (keys("maybe"), &["volatile = \"maybe\"", "no, yes, state, overlay"]),
        (
            json!({ "volatile": "state", "private_users_ownership": "chown" }),
            &["private_users_ownership = \"chown\"", "excludes volatile"],
        ),
    ]);
}

/// Systemd itself, in memory but for /usr: it must not ask at the console.
#[test]
fn key_volatile_booted() {
    let keys = json!({ "image": "debian", "volatile": "yes" });
    let task = crate::started(&keys);
    crate::wait_booted(&task);
    let seen = crate::inside(&task, "stat -f -c %T / /usr; cat /proc/1/comm");
    assert!(seen.starts_with("tmpfs\n") && seen.ends_with("systemd\n"), "{seen}");
    task.stop("SIGKILL").unwrap();
}
