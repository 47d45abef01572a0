//! D1 to D10: what made the right to submit jobs the right to be root.

use crate::{script, stand, with};
use serde_json::json;

#[test]
fn d01_no_job_reaches_beyond_the_policy() {
    for (more, word) in [
        (json!({ "bind": [{ "/home": "/mnt" }] }), "[binds]"),
        (json!({ "image": "/" }), "image"),
        (json!({ "image": "/dev/loop0" }), "[images] paths"),
        (json!({ "user_namespacing": false }), "[userns]"),
        (json!({ "private_users": "identity" }), "[userns]"),
        (json!({ "capability": ["all"] }), "[caps]"),
        (json!({ "capability": ["sys_module"] }), "[caps]"),
    ] {
        let refused = stand().refusal(&with(script("true"), more.clone())).unwrap();
        assert!(refused.text.contains(word), "{more}: {}", refused.text);
        assert!(!refused.recoverable, "{more}: {}", refused.text);
    }
}

#[test]
fn d02_no_variable_is_on_a_command_line_or_in_a_log() {
    let canary = "canary-5d02e1c7";
    // Fits the word and not itself: the shell that looks has it on its own command line.
    let pattern = "[c]anary-5d02e1c7";
    let running = stand().start(&script("echo up; sleep 1000"), |task| {
        task.env.insert("VAULT_TOKEN".to_owned(), canary.to_owned());
    });
    let mut running = running.unwrap().unwrap();
    running.wait_output("up").unwrap();
    let rig = &stand().rig;
    let leader = running.leader().unwrap();
    let found = rig
        .sh(&format!(
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '{pattern}'; \
             systemctl show 'nomad-nspawn-*' | grep -c '{pattern}'; \
             journalctl --no-pager -q | grep -c '{pattern}'; \
             tr '\\0' '\\n' </proc/{leader}/environ | grep -c '{pattern}'; true"
        ))
        .unwrap();
    // The last is where it must be: the search finds what is there.
    assert_eq!(found, "0\n0\n0\n1");
    let mains = rig.run(&["pgrep", "-a", "systemd-nspawn"]).unwrap();
    assert!(mains.contains("--machine=") && !mains.contains(canary), "{mains}");
    running.stop("SIGKILL").unwrap();
}

#[test]
fn d03_an_image_name_writes_no_file() {
    for image in ["../../etc/x", "a/../../x", "docker://../x"] {
        let download = json!({ "url": "registry.example/x", "type": "docker" });
        let more = json!({ "image": image, "image_download": download });
        let refused = stand().refusal(&with(script("true"), more)).unwrap();
        assert!(refused.text.contains("image"), "{}", refused.text);
    }
}

#[test]
fn d04_only_the_systems_nspawn_is_executed() {
    let rig = &stand().rig;
    let fake = "#!/bin/sh\ntouch /run/fake-nspawn-ran\n";
    for path in ["/opt/nomad/plugins/systemd-nspawn", "/opt/nomad/plugins/local/systemd-nspawn"] {
        rig.run(&["mkdir", "-p", "/opt/nomad/plugins/local"]).unwrap();
        rig.write_file(path, fake, 0o755).unwrap();
    }
    let outcome = stand().run(&script("echo real")).unwrap();
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("real\n", 0));
    assert!(!rig.exists("/run/fake-nspawn-ran"));
    rig.sh("rm -r /opt/nomad/plugins/systemd-nspawn /opt/nomad/plugins/local").unwrap();
}

#[test]
fn d05_a_group_network_keeps_the_user_namespace() {
    let allocation = stand().allocation("t").unwrap();
    let rig = &stand().rig;
    rig.run(&["ip", "netns", "add", &allocation.id]).unwrap();
    let path = format!("/var/run/netns/{}", allocation.id);
    let show = script("cat /proc/self/uid_map; ls /sys/class/net");
    let running = stand().start_in(allocation.clone(), 1, &show, |task| {
        task.network_isolation_spec = Some(nomad_proto::drivers::NetworkIsolationSpec {
            mode: nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode::Group.into(),
            path,
            ..Default::default()
        });
    });
    let outcome = running.unwrap().unwrap().finish().unwrap();
    let base: u32 = outcome.stdout.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(base >= 524_288, "{}", outcome.stdout);
    assert!(outcome.stdout.lines().any(|line| line == "lo"), "{}", outcome.stdout);
    rig.run(&["ip", "netns", "delete", &allocation.id]).unwrap();
}

#[test]
fn d06_d20_no_task_changes_the_hosts_firewall() {
    // The operator's own table: what it drops stays dropped, whatever the driver's own accepts.
    let rig = &stand().rig;
    rig.sh("nft add table inet operator; nft add chain inet operator forward \
         '{ type filter hook forward priority 10; policy accept; }'; \
         nft add rule inet operator forward iifname 'nv-*' counter drop")
        .unwrap();
    let rules = || {
        let tables = rig.run(&["nft", "list", "tables"]).unwrap();
        tables + &rig.run(&["nft", "-s", "list", "table", "inet", "operator"]).unwrap()
    };
    let before = rules();
    let out = script("echo up; nc -w 1 192.0.2.77 9; echo done; sleep 1000");
    rig.run(&["ip", "route", "add", "192.0.2.77/32", "dev", "host0"]).unwrap();
    let mut running = stand().start(&out, |_| {}).unwrap().unwrap();
    running.wait_output("done").unwrap();
    assert_eq!(rules(), before);
    let counted = rig.run(&["nft", "list", "table", "inet", "operator"]).unwrap();
    assert!(!counted.contains("packets 0 "), "nothing was forwarded: {counted}");
    running.stop("SIGKILL").unwrap();
    assert_eq!(rules(), before);
    rig.sh("nft delete table inet operator; ip route del 192.0.2.77/32").unwrap();
}

#[test]
fn d07_an_unverified_download_is_not_started() {
    // What an operator may demand of downloads is read and checked (`nomad-nspawnctl policy check`,
    // test `ctl`); this version downloads nothing, verified or not.
    let download = json!({ "image_download": { "url": "https://x.example/y.tar" } });
    let refused = stand().refusal(&with(script("true"), download)).unwrap();
    assert!(refused.text.contains("image_download") && !refused.recoverable, "{}", refused.text);
}

#[test]
fn d08_settings_files_beside_the_image_have_no_effect() {
    let rig = &stand().rig;
    let settings = "[Exec]\nEnvironment=PLANTED=1\nHostname=planted\nParameters=/bin/false\n";
    let machine = |id: &str| format!("/etc/systemd/nspawn/t-{id}.nspawn");
    let allocation = stand().allocation("t").unwrap();
    rig.run(&["mkdir", "-p", "/etc/systemd/nspawn"]).unwrap();
    for path in ["/var/lib/machines/busybox.nspawn".to_owned(), machine(&allocation.id)] {
        rig.write_file(&path, settings, 0o644).unwrap();
    }
    let show = script("echo ${PLANTED:-none}; hostname");
    let running = stand().start_in(allocation.clone(), 1, &show, |_| {}).unwrap().unwrap();
    let outcome = running.finish().unwrap();
    assert_eq!(outcome.stdout, format!("none\nt-{}\n", allocation.id));
    rig.sh("rm /var/lib/machines/busybox.nspawn /etc/systemd/nspawn/*.nspawn").unwrap();
}

#[test]
fn d09_nspawn_gets_nothing_of_the_agents_environment() {
    let mut running = stand().start(&script("echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let rig = &stand().rig;
    // Its own process alone: the payload's, of other tests as well, bears its name until execve.
    let nspawn = rig.main_pid(&running.unit()).unwrap();
    let all = rig.sh(&format!("tr '\\0' '\\n' < /proc/{nspawn}/environ")).unwrap();
    for line in all.lines() {
        let (name, _) = line.split_once('=').unwrap();
        // The third where the launcher has installed the filters itself.
        let known =
            ["SYSTEMD_LOG_TARGET", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "SYSTEMD_SECCOMP", "PATH"];
        assert!(known.contains(&name), "{all}");
    }
    assert!(all.contains("SYSTEMD_LOG_TARGET"), "{all}");
    running.stop("SIGKILL").unwrap();
}

#[test]
fn d10_words_of_a_command_are_never_options() {
    let more = json!({ "command": ["--bind=/:/mnt"] });
    let refused = stand().start(&with(script(""), more), |_| {}).unwrap();
    // A program of that name does not exist: that, and no host inside, is what comes of it.
    match refused {
        Err(refused) => assert!(!refused.text.contains("bind"), "{}", refused.text),
        Ok(running) => {
            let outcome = running.finish().unwrap();
            assert_eq!(outcome.code, 1, "{outcome:?}");
            assert!(outcome.stderr.contains("--bind=/:/mnt"), "{outcome:?}");
        }
    }
    let echo = json!({ "command": ["/bin/echo", "--", "-n", "--help", "${HOME}", "%n", "$$"] });
    let outcome = stand().run(&with(script(""), echo)).unwrap();
    assert_eq!(outcome.stdout, "-- -n --help ${HOME} %n $$\n");
}
