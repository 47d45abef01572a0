//! Images as small as they come: one static program, accounts without a program that reads them, a
//! system whose files a mount brings. And images whose accounts are a trap.

use crate::{allocation, good, stand};
use nomad_proto::drivers::TaskConfig;
use nspawn_tests::stand::Refused;
use serde_json::{Value, json};

/// What a payload is: ids, groups, and the variables that go with them.
const WHO: &str = "echo $(busybox id -u):$(busybox id -g) \
                   $(busybox sed -n 's/^Groups:\t*//p' /proc/self/status) $HOME $USER $LOGNAME";
const ACCOUNTS: &str = "mkdir etc; \
    printf 'root:x:0:0::/root:/\napp:x:1000:1000:\\351:/home/app:/\n' > etc/passwd; \
    printf 'app:x:1000:\nmedia:x:44:app\naudio:x:29:other,app\nwheel:x:10:\n' > etc/group";

/// An image of a static busybox and what a script adds to it.
struct Small(String);

impl Small {
    fn new(name: &str, script: &str) -> Self {
        let path = format!("{}/{name}", crate::STORE);
        let words = ["sh", "-ec", "mkdir $0; cd $0; cp /bin/busybox .; eval \"$1\"", &path, script];
        stand().rig.run(&words).unwrap();
        Self(name.to_owned())
    }

    /// Keys of a task that runs a script in it.
    fn keys(&self, more: Value, script: &str) -> Value {
        let command = ["/busybox", "sh", "-c", script];
        let keys = crate::sh(json!({ "image": self.0, "command": command }), script);
        crate::with(keys, more)
    }

    fn says(&self, more: Value, script: &str, change: impl FnOnce(&mut TaskConfig)) -> String {
        let keys = self.keys(more, script);
        let started = stand().start_in(allocation("true"), 1, &keys, change).unwrap();
        let task = started.unwrap_or_else(|Refused { text, .. }| panic!("{keys}: {text}"));
        good(&keys.to_string(), task.finish().unwrap()).trim_end().to_owned()
    }

    fn refusal(&self, more: Value) -> String {
        let refused = stand().refusal(&self.keys(more, "exit 0")).unwrap();
        assert!(!refused.recoverable, "{}", refused.text);
        refused.text
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let gone = stand().rig.run(&["rm", "-r", &format!("{}/{}", crate::STORE, self.0)]);
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

/// Images without getent: nothing but a program, and with accounts.
#[test]
fn a_user_needs_no_program_of_the_image() {
    let scratch = Small::new("scratch", "true");
    let distroless = Small::new("distroless", ACCOUNTS);
    for (image, user, who) in [
        (&scratch, "1000", "1000:0 / 1000 1000"),
        (&scratch, "1000:1000", "1000:1000 / 1000 1000"),
        (&scratch, "0:7", "0:7 / 0 0"),
        (&distroless, "app", "1000:1000 29 44 /home/app app app"),
        (&distroless, "1000", "1000:1000 29 44 /home/app app app"),
        (&distroless, "1000:1000", "1000:1000 /home/app app app"),
        (&distroless, "app:wheel", "1000:10 /home/app app app"),
        (&distroless, "4000:media", "4000:44 / 4000 4000"),
        (&distroless, "root", "0:0 /root root root"),
    ] {
        let who = |said: String| assert_eq!(said, who, "{} {user}", image.0);
        who(image.says(json!({ "user": user }), WHO, |_| {}));
        who(image.says(json!({ "user": user, "process_two": true }), WHO, |_| {}));
        who(image.says(json!({}), WHO, |task| task.user = user.to_owned()));
    }
    for modes in [json!({ "read_only": true }), json!({ "volatile": "state" })] {
        let keys = crate::with(modes, json!({ "user": "app" }));
        assert_eq!(distroless.says(keys, WHO, |_| {}), "1000:1000 29 44 /home/app app app");
    }
    // The home is made where it is missing, and is the user's; the job's own variables win.
    let script = "cd $HOME && busybox touch file && busybox stat -c %u:%g . && cd / && pwd";
    assert_eq!(distroless.says(json!({ "user": "app" }), script, |_| {}), "1000:1000\n/");
    let keys = json!({ "user": "app", "environment": { "HOME": "/x", "USER": "y" } });
    assert_eq!(distroless.says(keys, WHO, |_| {}), "1000:1000 29 44 /x y app");
    // busybox and musl images: the rig's own.
    let keys = json!({ "image": "busybox", "ephemeral": true, "user": "app" });
    let outcome = stand().run(&crate::sh(keys, "id -un; id -u; pwd; echo $HOME")).unwrap();
    assert_eq!(good("busybox", outcome), "app\n1000\n/\n/home/app\n");
}

/// The image's accounts are the image's word. Account alice is one of the host, with uid 1000.
#[test]
fn an_images_accounts_lead_nowhere() {
    for (name, script, user, words) in [
        ("none", "true", "app", ["user app", "has no such file"]),
        ("other", ACCOUNTS, "nope", ["user nope", "\"1000:1000\""]),
        ("no-group", ACCOUNTS, "app:nope", ["group nope", "/etc/group"]),
        ("fifo", "mkdir etc; busybox mkfifo etc/passwd", "app", ["/etc/passwd", "regular file"]),
        ("device", "mkdir etc; ln -s /dev/zero etc/passwd", "app", ["user app", "no such file"]),
        ("directory", "mkdir -p etc/passwd", "app", ["/etc/passwd", "regular file"]),
        (
            "out",
            "mkdir etc; ln -s ../../../../../etc/passwd etc/passwd",
            "alice",
            ["/etc/passwd", "symbolic links"],
        ),
        (
            "up",
            "mkdir etc; ln -s ../../../../etc/shadow etc/passwd",
            "alice",
            ["user alice", "no such file"],
        ),
        (
            "long",
            "mkdir etc; head -c 2000000 /dev/zero > etc/passwd",
            "app",
            ["/etc/passwd", "longer than"],
        ),
        ("far", "mkdir etc; echo evil:x:70000:0::/: > etc/passwd", "evil", ["uid 70000", "65536"]),
        (
            "odd",
            "mkdir etc; echo evil:x:7:65535::/: > etc/passwd",
            "evil",
            ["gid 65535", "user evil"],
        ),
        ("high", "true", "100000:0", ["uid 100000", "user 100000:0"]),
    ] {
        let text = Small::new(&format!("trap-{name}"), script).refusal(json!({ "user": user }));
        for word in words {
            assert!(text.contains(word), "{name}: no {word:?} in {text}");
        }
    }
}

/// systemd-nspawn's own way stays where the image's getent sees more than its files show.
#[test]
fn a_user_that_a_mount_brings_is_found_by_getent() {
    let prepare = "{ cat /etc/passwd; echo bound:x:1234:1234::/srv:/bin/sh; } > $1/t/local/passwd";
    let keys = json!({
        "image": "debian", "user": "bound",
        "bind_read_only": [{ "local/passwd": "/etc/passwd" }],
    });
    let said = crate::says_in(prepare, keys, "id -un; id -u; echo $HOME");
    assert_eq!(said, "bound\n1234\n/srv\n");
    // Not the file that the job covers.
    let keys = crate::with(
        json!({ "image": "busybox", "bind_read_only": [{ "local/passwd": "/etc/passwd" }] }),
        json!({ "user": "app" }),
    );
    let text = match stand().start_in(allocation(prepare), 1, &crate::sh(keys, "true"), |_| {}) {
        Ok(Err(refused)) => refused.text,
        other => panic!("{other:?}"),
    };
    assert!(text.contains("user app") && text.contains("mount of the job"), "{text}");
}

#[test]
fn one_static_program_is_an_image() {
    let image = Small::new("static", "true");
    for mode in [
        json!({}),
        json!({ "ephemeral_mode": "tmpfs" }),
        json!({ "read_only": true }),
        json!({ "volatile": "overlay" }),
        json!({ "volatile": "state" }),
        json!({ "process_two": true }),
        json!({ "user_namespacing": false }),
    ] {
        let script = "busybox ls /; busybox cat /local/file";
        let keys = image.keys(mode.clone(), script);
        let ran = crate::prepared("echo in > $1/t/local/file", &keys).finish().unwrap();
        let said = good(&keys.to_string(), ran);
        let all = ["alloc", "busybox", "etc", "proc", "usr", "var", "in"];
        assert!(all.iter().all(|name| said.lines().any(|line| line == *name)), "{mode}: {said}");
    }
    let before = stand().rig.run(&["ls", &format!("{}/static", crate::STORE)]).unwrap();
    assert_eq!(before, "busybox", "the image stays as it is");
    let text = image.refusal(json!({ "ephemeral": false }));
    for word in ["/static", "has no /usr", "make the directory in it", "ephemeral = true"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let after = stand().rig.run(&["ls", &format!("{}/static", crate::STORE)]).unwrap();
    assert_eq!(after, before);
    let text = image.refusal(json!({ "volatile": "yes" }));
    assert!(text.contains("/usr must be a"), "{text}");
}

/// As on NixOS: the image has a link where init is looked for, and the store comes by bind.
#[test]
fn a_system_whose_store_is_mounted_boots() {
    let store = "mkdir -p /srv/closed/store/abc; cd /srv/closed/store/abc; cp /bin/busybox .; \
                 printf '#!/nix/store/abc/busybox sh\necho up as $$\n' > init; chmod 755 init; \
                 chmod 755 /srv/closed/store";
    stand().rig.sh(store).unwrap();
    let links = "mkdir -p sbin; ln -s /nix/store/abc/init sbin/init";
    let image = Small::new("stored", links);
    let keys = |more| {
        let bind = json!({ "bind_read_only": { "/srv/closed/store": "/nix/store" } });
        let boot = json!({ "image": "stored", "boot": true, "console": "pipe", "ephemeral": true });
        crate::with(crate::with(boot, bind), more)
    };
    for more in [json!({}), json!({ "read_only": true }), json!({ "volatile": "state" })] {
        let outcome = stand().run(&keys(more)).unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("up as 1\n", 0), "{outcome:?}");
    }
    let refused = stand().refusal(&keys(json!({ "ephemeral": false }))).unwrap();
    for word in ["/stored:", "no os-release", "make /etc/os-release"] {
        assert!(refused.text.contains(word), "no {word:?} in {}", refused.text);
    }
    drop(image);
    stand().rig.run(&["rm", "-r", "/srv/closed/store"]).unwrap();
}

#[test]
fn the_reason_of_systemd_nspawn_is_in_the_event() {
    let keys = crate::sh(json!({ "inaccessible": ["/run/none"] }), "exit 0");
    let refused = stand().refusal(&keys).unwrap();
    assert!(refused.text.contains("ended before the payload ran: "), "{}", refused.text);
    assert!(refused.text.contains("/run/none"), "{}", refused.text);
    assert!(!refused.text.contains("journalctl"), "{}", refused.text);
    // It is in the journal as well, as a line of the task's unit, and in no stream of the task.
    let words = ["journalctl", "-q", "-o", "cat", "-t", "systemd-nspawn", "NSPAWN_PAYLOAD=command"];
    let journal = stand().rig.run(&words).unwrap();
    assert!(journal.contains("/run/none"), "{journal}");
}
