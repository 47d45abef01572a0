//! An import counts as a whole or not at all; the converter has nothing but its descriptors.

use crate::*;
use serde_json::Value;

const CONVERTER: &str = "/usr/libexec/nomad-nspawn/nomad-nspawn-fetch";

fn names() -> Vec<String> {
    let list: Value = serde_json::from_str(&ctl(&["list", "--json"]).text()).unwrap();
    let all = list.as_array().unwrap().iter();
    all.map(|image| image["name"].as_str().unwrap().to_owned()).collect()
}

fn left() -> String {
    rig()
        .sh(&format!("find {IMAGES}/incoming -mindepth 1; ls {IMAGES}/layers/+import | wc -l"))
        .unwrap()
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_is_an_image() {
    let _alone = alone();
    // Some hundred megabytes: a few seconds of work.
    rig().sh("cd /root && tar -cf big.tar -C / usr").unwrap();
    for round in 0..8_u64 {
        let pause = Duration::from_millis(150 * round);
        let mut child =
            rig().spawn(&["nomad-nspawnctl", "images", "import", "/root/big.tar"]).unwrap();
        std::thread::sleep(pause);
        let script = match round % 2 {
            0 => "pkill -KILL -x nomad-nspawnctl || pkill -KILL -f 'images import'",
            _ => "systemctl kill --signal=KILL 'nomad-nspawn-import-*' ; true",
        };
        rig().exec(&["sh", "-c", script]).unwrap();
        let ended = child.wait().unwrap();
        if ended.success() {
            assert!(names().contains(&"big".to_owned()), "round {round}");
            assert!(ctl(&["rm", "big"]).success());
            continue;
        }
        assert!(!names().contains(&"big".to_owned()), "round {round}");
        assert!(refusal("big", Root::ReadOnly).to_string().contains("does not exist"));
    }
    // The next one takes the leftovers away, and is whole.
    let id = import("after", &format!("{BUSYBOX} echo after > own"));
    assert!(!left().contains("incoming/"), "{}", left());
    assert_eq!(run(named("after", Root::ReadOnly), "cat /own"), "after");
    assert!(rig().exists(&layer_path(id)));
    rig().run(&["rm", "/root/big.tar"]).unwrap();
}

#[test]
fn what_is_not_an_archive_is_refused_with_the_converters_words() {
    let _alone = alone();
    rig().sh("head -c 100000 /dev/urandom > /root/noise.tar; : > /root/nothing.tar").unwrap();
    for name in ["noise", "nothing", "missing"] {
        let out = ctl(&["import", &format!("/root/{name}.tar")]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.code(), 2, "{said}");
        assert!(said.contains(&format!("/root/{name}.tar: ")), "{said}");
        assert!(!names().contains(&name.to_owned()));
    }
    assert!(!left().contains("incoming/"), "{}", left());
    let out = rig().exec_as(1000, &["nomad-nspawnctl", "images", "list"]).unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("needs root"));
}

#[test]
fn names_mean_one_image_and_the_same_bytes_are_one_layer() {
    let _alone = alone();
    let first = import("first", &format!("{BUSYBOX} echo first > own"));
    rig().run(&["cp", "/root/first.tar", "/root/second.tar"]).unwrap();
    let before = rig().run(&["stat", "-c", "%i", &layer_path(first)]).unwrap();
    assert_eq!(import_tar("second"), first);
    assert_eq!(rig().run(&["stat", "-c", "%i", &layer_path(first)]).unwrap(), before);
    assert!(ctl(&["rm", "first"]).success() && rig().exists(&layer_path(first)));
    assert!(names().contains(&"second".to_owned()) && !names().contains(&"first".to_owned()));
    // A name that is imported again means the new one, and the old layer goes.
    import("second", &format!("{BUSYBOX} echo second > own"));
    assert!(!rig().exists(&layer_path(first)));
    assert_eq!(run(named("second", Root::ReadOnly), "cat /own"), "second");
    assert!(!ctl(&["rm", "first"]).success());
}

/// A converter that is somebody else's program: what it reaches of the host, and what becomes of what
/// it leaves.
#[test]
fn a_hostile_converter_reaches_nothing_and_its_file_is_refused() {
    let _alone = alone();
    rig().run(&["mv", CONVERTER, "/root/converter"]).unwrap();
    // Without pipes, which its filter does not have.
    let script = r#"#!/bin/sh
id >&2
grep CapBnd /proc/self/status >&2
for d in / /usr /tmp /var/tmp /dev/shm /run; do
  if (echo x > $d/hostile) 2>/dev/null; then echo "wrote $d." >&2; fi
done
for f in /etc/passwd /var/lib/nomad-nspawn/images/imports/* /run/nomad-nspawn/*; do
  if [ -r $f ]; then echo "read $f" >&2; fi
done
ls -l /proc/self/ns/net >&2
head -c 8192 /dev/zero
exit 0
"#;
    rig().write_file(CONVERTER, script, 0o755).unwrap();
    rig().sh("head -c 1000 /dev/urandom > /root/forged.tar").unwrap();
    let out = ctl(&["import", "/root/forged.tar"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.success() && said.contains("not a layer as nomad-nspawn-fetch writes it"),
        "{said}"
    );
    // Once more for its words, which a failure shows.
    let failing = script.replace("exit 0", "exit 1");
    rig().write_file(CONVERTER, &failing, 0o755).unwrap();
    let said = String::from_utf8_lossy(&ctl(&["import", "/root/forged.tar"]).stderr).into_owned();
    rig().run(&["mv", "/root/converter", CONVERTER]).unwrap();
    assert!(said.contains("uid=6") && !said.contains("(root)"), "{said}");
    assert!(said.contains("CapBnd:") && said.contains("0000000000000000"), "{said}");
    let hosts = rig().run(&["readlink", "/proc/1/ns/net"]).unwrap();
    assert!(said.contains("net:[") && !said.contains(&hosts), "{said}");
    // Its own /tmp goes with it.
    let mut wrote = said.split("wrote ").skip(1).filter_map(|rest| rest.split('.').next());
    assert!(wrote.all(|it| it == "/tmp"), "{said}");
    assert!(!said.contains("read /"), "{said}");
    assert!(!rig().exists("/tmp/hostile") && !rig().exists("/var/tmp/hostile"));
    assert!(!names().contains(&"forged".to_owned()) && !left().contains("incoming/"));
}
