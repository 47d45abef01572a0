//! Rows of the threat model about the two processes: descriptors, a false helper, leftovers, the
//! policy file at start, versions.

use crate::{HELPER, Helper, bare};
use nomad_proto::drivers::fingerprint_response::HealthState;
use nspawn_tests::hostile::{Door, Handmade, Heard};
use nspawn_tests::plugin::Plugin;
use nspawn_tests::{msgpack, wait};
use proto::limits;
use proto::wire::{Answer, Hello, State, Verb};
use serde_json::json;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// P25: no message leaves a descriptor behind.
#[test]
fn p25_ten_thousand_messages_leave_no_descriptor() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let before = Helper::look(rig);
    for _ in 0..10_000 {
        assert!(client.ask(Verb::List(None)).unwrap().is_ok());
    }
    assert!(Helper::look(rig).descriptors <= before.descriptors, "{before:?}");
    let connections = Door::of(rig).unwrap();
    for _ in 0..500 {
        connections.enter().unwrap();
    }
    before.wait_same_descriptors(rig);
}

/// A listener that answers to nobody, as any local user may leave one.
const IMPOSTOR: &str = "use Socket; socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die; \
                        bind($s, pack_sockaddr_un($ARGV[0])) or die $!; listen($s, 8) or die; \
                        chmod 0666, $ARGV[0]; while (accept(my $c, $s)) { push @all, $c }";

/// P30: nobody but root can stand in the helper's place, and the driver looks who serves it.
#[test]
fn p30_a_false_helper_is_told_from_the_real_one() {
    let (_turn, rig) = bare();
    for script in [
        "rm -f /run/nomad-nspawn/helper.sock",
        "mv /run/nomad-nspawn/helper.sock /tmp/x",
        "touch /run/nomad-nspawn/x",
        "mv /run/nomad-nspawn /tmp/y",
    ] {
        assert!(!rig.exec_as(1000, &["sh", "-c", script]).unwrap().success(), "{script}");
    }
    let path = "/tmp/false-helper.sock";
    rig.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=impostor",
        "--uid=1000",
        "perl",
        "-e",
        IMPOSTOR,
        path,
    ])
    .unwrap();
    wait::true_within("the false helper", SOON, || Ok(rig.exists(path))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = msgpack::encode(&json!({ "helper_socket": path }));
    let health = runtime.block_on(async {
        let plugin = Plugin::start_with(rig, &config).await.unwrap();
        plugin.health(HealthState::Unhealthy).await.unwrap()
    });
    rig.run(&["systemctl", "stop", "impostor.service"]).unwrap();
    rig.run(&["rm", "-f", path]).unwrap();
    assert!(health.contains("is served by uid 1000 and not by root"), "{health}");
}

/// P38, P39: a killed and a stopped helper leave no mount of a stage, and what cleans temporary
/// files takes nothing from a running task.
#[test]
fn p38_p39_neither_death_nor_cleaning_leaves_or_takes_anything() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let task = Handmade::new(rig, "kept").unwrap();
    let script = "echo here >/layer; mkdir /stay; while [ -f /layer ]; do sleep 0.1; done";
    let answer = client.start(&task.spec(&["/bin/sh", "-c", script]).unwrap()).unwrap();
    let Ok(Answer::Started(before)) = answer else { panic!("{answer:?}") };
    let stages = || rig.sh("grep -c ' /run/nomad-nspawn/stage' /proc/1/mountinfo || true").unwrap();
    assert_eq!(stages(), "0");
    rig.run(&["systemctl", "kill", "-s", "KILL", HELPER]).unwrap();
    rig.run(&["systemd-tmpfiles", "--clean", "--create", "--remove"]).unwrap();
    rig.run(&["systemctl", "stop", "nomad-nspawn-helper.socket", HELPER]).unwrap();
    rig.run(&["systemd-tmpfiles", "--clean", "--create", "--remove"]).unwrap();
    rig.run(&["systemctl", "start", "nomad-nspawn-helper.socket", HELPER]).unwrap();
    assert_eq!(stages(), "0");
    let client = Door::of(rig).unwrap().enter().unwrap();
    let now = client.ask(Verb::Status(task.key.clone())).unwrap();
    let Ok(Answer::Status(now)) = now else { panic!("{now:?}") };
    assert_eq!((now.state, now.leader), (State::Running, before.leader));
    let layer = format!("/proc/{}/root/layer", before.leader.unwrap());
    assert_eq!(rig.run(&["cat", &layer]).unwrap(), "here");
    task.remove(&client).unwrap();
    assert_eq!(rig.sh("ls -A /run/nomad-nspawn/stage 2>/dev/null || true").unwrap(), "");
}

/// P42: with hardly a descriptor to spare, what comes with a message is still not kept.
#[test]
fn p42_a_helper_near_its_limit_keeps_no_descriptor_and_recovers() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    door.enter().unwrap();
    let before = Helper::look(rig);
    let pid = before.pid.to_string();
    let limit =
        |n: &str| rig.run(&["prlimit", "--pid", &pid, &format!("--nofile={n}:1024")]).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    limit(&(before.descriptors + 4).to_string());
    for _ in 0..20 {
        let client = door.connect().unwrap();
        let hello = Verb::Hello(Hello { oldest: 1, newest: 1 });
        let bytes = client.request(hello).unwrap();
        client.send_with(&bytes, &[file.as_raw_fd(); 10]).unwrap();
        assert!(matches!(client.hear(SOON).unwrap(), Heard::Closed));
    }
    limit("1024");
    before.wait_same_descriptors(rig);
    assert!(door.enter().unwrap().ask(Verb::List(None)).unwrap().is_ok());
}

/// P43: a helper does not start with a policy file that somebody else could have written.
#[test]
fn p43_a_policy_file_of_another_stops_the_start() {
    let (_turn, rig) = bare();
    let file = nspawn_tests::product::POLICY;
    let spoil = [
        (format!("chown 1000 {file}"), format!("chown 0 {file}")),
        (format!("chmod 0666 {file}"), format!("chmod 0644 {file}")),
        (format!("chmod 0664 {file}"), format!("chmod 0644 {file}")),
        ("chmod 0777 /etc/nomad-nspawn".to_owned(), "chmod 0755 /etc/nomad-nspawn".to_owned()),
        ("chown 1000 /etc/nomad-nspawn".to_owned(), "chown 0 /etc/nomad-nspawn".to_owned()),
        (
            format!("mv {file} {file}.real && ln -s {file}.real {file}"),
            format!("rm {file} && mv {file}.real {file}"),
        ),
    ];
    for (bad, good) in spoil {
        rig.run(&["systemctl", "stop", HELPER]).unwrap();
        rig.sh(&bad).unwrap();
        let started = rig.exec(&["systemctl", "start", HELPER]).unwrap().success();
        rig.run(&["systemctl", "stop", HELPER]).unwrap();
        rig.sh(&good).unwrap();
        rig.run(&["systemctl", "reset-failed", HELPER, "nomad-nspawn-helper.socket"]).unwrap();
        assert!(!started, "the helper has started after {bad}");
    }
    rig.run(&["systemctl", "start", "nomad-nspawn-helper.socket", HELPER]).unwrap();
    Door::of(rig).unwrap().enter().unwrap();
}

/// P44: a version that both speak is chosen, any other pair is refused in words.
#[test]
fn p44_versions_are_chosen_or_refused() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let (ours_old, ours_new) = (limits::PROTOCOL_OLDEST, limits::PROTOCOL_NEWEST);
    for oldest in 0..=ours_new + 2 {
        for newest in 0..=ours_new + 2 {
            let client = door.connect().unwrap();
            let answer = client.ask(Verb::Hello(Hello { oldest, newest })).unwrap();
            let shared = oldest <= newest && oldest <= ours_new && newest >= ours_old;
            match answer {
                Ok(Answer::Welcome(welcome)) => {
                    assert!(shared, "{oldest} to {newest} is welcome");
                    assert_eq!(welcome.version, newest.min(ours_new));
                }
                Err(refusal) => {
                    assert!(!shared, "{oldest} to {newest}: {refusal}");
                    assert!(!client.ask(Verb::List(None)).is_ok_and(|a| a.is_ok()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
