//! Images as small as they come: one static program, and a system whose files a mount brings.

use crate::{good, stand};
use serde_json::{Value, json};

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
    let image = Small::new("nix", links);
    let keys = |more| {
        let bind = json!({ "bind_read_only": { "/srv/closed/store": "/nix/store" } });
        let boot = json!({ "image": "nix", "boot": true, "console": "pipe", "ephemeral": true });
        crate::with(crate::with(boot, bind), more)
    };
    for more in [json!({}), json!({ "read_only": true }), json!({ "volatile": "state" })] {
        let outcome = stand().run(&keys(more)).unwrap();
        assert_eq!((outcome.stdout.as_str(), outcome.code), ("up as 1\n", 0), "{outcome:?}");
    }
    let refused = stand().refusal(&keys(json!({ "ephemeral": false }))).unwrap();
    for word in ["/nix:", "no os-release", "make /etc/os-release"] {
        assert!(refused.text.contains(word), "no {word:?} in {}", refused.text);
    }
    drop(image);
    stand().rig.run(&["rm", "-r", "/srv/closed/store"]).unwrap();
}
