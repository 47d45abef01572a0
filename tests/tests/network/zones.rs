//! Zones: their tasks reach each other at every port and by name, and nobody else does.

use crate::{HELPER, alone, assert_same, soon};
use nspawn_tests::Rig;
use nspawn_tests::stand::{Running, Stand};
use serde_json::{Value, json};

/// A task of a Debian that answers each connection to port 7000 with its name.
fn config(name: &str, zone: Option<&str>) -> Value {
    let program = format!(
        "use Socket qw(:all); $| = 1; socket(S, PF_INET6, SOCK_STREAM, 0); \
         setsockopt(S, IPPROTO_IPV6, IPV6_V6ONLY, 0); bind(S, sockaddr_in6(7000, IN6ADDR_ANY)) or die; \
         listen(S, 9); print \"ready\\n\"; while (accept(C, S)) {{ syswrite(C, \"{name}\\n\"); close C }}"
    );
    let mut config = json!({
        "image": "debian", "boot": false, "ephemeral": true,
        "command": ["/usr/bin/perl", "-e", program],
    });
    if let Some(zone) = zone {
        config["network_zone"] = zone.into();
    }
    config
}

fn start<'a>(stand: &'a Stand, name: &str, zone: Option<&str>) -> Running<'a> {
    let allocation = stand.allocation(name).unwrap();
    let started = stand.start_in(allocation, 1, &config(name, zone), |_| {}).unwrap();
    let mut task = started.unwrap_or_else(|refused| panic!("{name}: {}", refused.text));
    task.wait_output("ready").unwrap();
    task
}

/// What a script prints that runs among the files and in the network of a task.
fn inside(task: &Running<'_>, script: &str) -> String {
    let leader = task.leader().unwrap();
    let words = ["nsenter", "-t", &leader, "-m", "-n", "-r", "-w", "timeout", "5", "bash", "-c"];
    let output = task.rig().exec(&[&words[..], &[script]].concat()).unwrap();
    format!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}

/// The answer of a task to another, or why there is none.
fn ask(from: &Running<'_>, to: &str) -> String {
    inside(from, &format!("cat </dev/tcp/{to}/7000"))
}

/// IPv4 and IPv6 address of a task.
fn addresses(task: &Running<'_>) -> [String; 2] {
    let netns = format!("--net=/proc/{}/ns/net", task.leader().unwrap());
    ["-4", "-6"].map(|family| {
        let ip = ["ip", family, "-br", "address", "show", "dev", "host0", "scope", "global"];
        let line = task.rig().run(&[&["nsenter", &netns][..], &ip].concat()).unwrap();
        let word = line.split_whitespace().nth(2).unwrap();
        word.split('/').next().unwrap().to_owned()
    })
}

/// Whether another answers to ping; with busybox of the host.
fn pings(from: &Running<'_>, to: &str) -> bool {
    let netns = format!("--net=/proc/{}/ns/net", from.leader().unwrap());
    let words = ["nsenter", &netns, "busybox", "ping", "-c", "1", "-W", "2", to];
    from.rig().exec(&words).unwrap().success()
}

fn has_name(task: &Running<'_>, name: &str) -> bool {
    inside(task, &format!("getent hosts {name}")).contains(name)
}

/// Groups of the links of tasks in zones, and the elements of the set, each sorted.
fn groups(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let links = rig.sh("ip -o -d link show | grep -o 'nv-.* group [0-9]*' | grep -o 'group .*'");
    let links = links.unwrap_or_default();
    let zones = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_digit());
        let numbers = words.filter_map(|word| word.parse::<u32>().ok());
        let mut all: Vec<_> =
            numbers.filter(|n| *n >= 0x6e76_0001).map(|n| n.to_string()).collect();
        all.sort();
        all
    };
    let set = rig.run(&["nft", "list", "set", "inet", "nomad_nspawn", "zones"]).unwrap();
    (zones(&links), zones(&set))
}

#[test]
fn tasks_of_a_zone_reach_each_other_by_address_and_by_name() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let first = start(stand, "first", Some("blue"));
    let before = inside(&first, "stat -c '%i %U %a' /etc/hosts");
    let second = start(stand, "second", Some("blue"));
    let green = start(stand, "green", Some("green"));
    let plain = start(stand, "plain", None);

    for (from, to, name) in [(&first, &second, "second"), (&second, &first, "first")] {
        // By the first look at the file: it has no need to be restarted.
        assert_eq!(ask(from, name), name);
        let machine = to.unit().replace("nomad-nspawn-", "");
        assert!(!machine.is_empty());
        let line = inside(from, &format!("grep ' {name} ' /etc/hosts"));
        let machine = line.split_whitespace().last().unwrap();
        assert!(machine.starts_with(&format!("{name}-")), "{line}");
        assert_eq!(ask(from, machine), name);
        for address in addresses(to) {
            assert_eq!(ask(from, &address), name, "{address}");
            assert!(pings(from, &address), "{address}");
            assert!(line.contains(&address), "{line}");
        }
    }
    // Each knows itself by the same name.
    assert_eq!(ask(&first, "first"), "first");

    for (from, to) in [
        (&green, &first),
        (&first, &green),
        (&plain, &first),
        (&first, &plain),
        (&green, &plain),
        (&plain, &green),
    ] {
        for address in addresses(to) {
            let answer = ask(from, &address);
            assert!(answer.contains("refused"), "{address}: {answer}");
            assert!(!pings(from, &address), "{address}");
        }
    }
    for outside in [&green, &plain] {
        assert!(!has_name(outside, "first") && !has_name(outside, "second"));
    }
    assert!(!inside(&plain, "cat /etc/hosts").contains("zone"));
    let (links, set) = groups(&stand.rig);
    assert_eq!((links.len(), set.len()), (3, 4), "{links:?} {set:?}");

    // It is the same file all the while, root's, and no task writes to it.
    let file = inside(&first, "stat -c '%i %U %a' /etc/hosts");
    assert_eq!(file, before);
    assert!(file.ends_with(" root 644"), "{file}");
    let refused = inside(&first, "echo x >>/etc/hosts");
    assert!(refused.contains("Read-only file system"), "{refused}");

    second.stop("SIGKILL").unwrap();
    soon("the end of its name", || Ok(!has_name(&first, "second")));
    assert!(!inside(&first, "cat /etc/hosts").contains("second"));
    assert_eq!(ask(&first, "first"), "first");
    for task in [first, green, plain] {
        task.stop("SIGKILL").unwrap();
    }
    assert_eq!(groups(&stand.rig), (Vec::new(), Vec::new()));
    assert_same(host);
}

/// With the ports of the zone's other tasks, too.
#[test]
fn the_first_instruction_finds_the_others() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let first = start(stand, "db", Some("blue"));
    let mut look = config("look", Some("blue"));
    look["command"] = json!(["/bin/bash", "-c", "cat </dev/tcp/db/7000; grep -c . /etc/hosts"]);
    for _ in 0..10 {
        let outcome = stand.run(&look).unwrap();
        assert!(outcome.stdout.starts_with("db\n"), "{outcome:?}");
    }
    // An init as well.
    let boot = json!({ "image": "debian", "ephemeral": true, "network_zone": "blue" });
    let booted = stand.start_in(stand.allocation("os").unwrap(), 1, &boot, |_| {}).unwrap();
    let booted = booted.unwrap_or_else(|refused| panic!("{}", refused.text));
    soon("the name in the booted task", || Ok(ask(&booted, "db") == "db"));
    assert!(has_name(&first, "os"));
    booted.stop("SIGKILL").unwrap();
    soon("the end of its name", || Ok(!has_name(&first, "os")));
    first.stop("SIGKILL").unwrap();
    assert_same(host);
}

/// Whatever the helper misses it makes up for at its start.
#[test]
fn zones_outlive_the_helper() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let rig = &stand.rig;
    let first = start(stand, "first", Some("blue"));
    let second = start(stand, "second", Some("blue"));
    let other = start(stand, "other", Some("green"));
    let before = groups(rig);
    rig.sh(&format!("systemctl kill --kill-whom=main --signal=KILL {HELPER}")).unwrap();
    assert_eq!(ask(&first, "second"), "second");
    let third = start(stand, "third", Some("blue"));
    assert_eq!((ask(&first, "third"), ask(&third, "second")), ("third".into(), "second".into()));
    assert_eq!(groups(rig).1, before.1, "the zone has the number that it had");

    let leader = second.leader().unwrap();
    rig.sh(&format!(
        "set -e; systemctl stop nomad-nspawn-helper.socket {HELPER}; kill -KILL {leader}
         systemctl start nomad-nspawn-helper.socket {HELPER}"
    ))
    .unwrap();
    soon("the end of its name", || Ok(!has_name(&first, "second") && !has_name(&third, "second")));
    assert_eq!((ask(&first, "third"), ask(&third, "first")), ("third".into(), "first".into()));
    assert!(ask(&other, &addresses(&first)[0]).contains("refused"));
    second.finish().unwrap();
    // The last one of a zone, while nobody looks.
    let leader = other.leader().unwrap();
    rig.sh(&format!(
        "set -e; systemctl stop nomad-nspawn-helper.socket {HELPER}; kill -KILL {leader}
         systemctl start nomad-nspawn-helper.socket {HELPER}"
    ))
    .unwrap();
    other.finish().unwrap();
    let one = groups(rig);
    assert_eq!((one.0.len(), one.1.len()), (2, 2), "{one:?}");
    for task in [first, third] {
        task.stop("SIGKILL").unwrap();
    }
    assert_eq!(groups(rig), (Vec::new(), Vec::new()));
    assert_same(host);
}

/// Whoever writes last writes what holds.
#[test]
fn names_are_right_after_many_have_come_and_gone_at_once() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let first = start(stand, "first", Some("blue"));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let first = &first;
            scope.spawn(move || {
                for round in 0..4 {
                    let name = format!("task-{number}-{round}");
                    let task = start(stand, &name, Some("blue"));
                    assert_eq!((ask(&task, "first"), ask(first, &name)), ("first".into(), name));
                    task.stop("SIGKILL").unwrap();
                }
            });
        }
    });
    soon("the end of all names but its own", || {
        let names = inside(&first, "sed '1,/^# Tasks of the zone/d;/^#/d' /etc/hosts");
        Ok(names.lines().count() == 2 && names.lines().all(|line| line.contains(" first ")))
    });
    assert!(has_name(&first, "first"));
    let (links, set) = groups(&stand.rig);
    assert_eq!((links.len(), set.len()), (1, 2), "{links:?} {set:?}");
    first.stop("SIGKILL").unwrap();
    assert_same(host);
}

#[test]
fn a_zone_that_the_policy_does_not_list_is_refused() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    stand.rig.set_policy("[network]\nzones = [\"blue\", \"db-*\"]\n").unwrap();
    let green = stand.refusal(&config("t", Some("green"))).unwrap().text;
    let listed = start(stand, "listed", Some("db-1"));
    stand.rig.set_policy("[network]\nallow = [\"veth\"]\n").unwrap();
    let none = stand.refusal(&config("t", Some("blue"))).unwrap().text;
    // Who is in runs on.
    assert_eq!(ask(&listed, "listed"), "listed");
    stand.rig.set_policy("").unwrap();
    listed.stop("SIGKILL").unwrap();
    assert!(
        green.contains("zone green") && green.contains("\"green\" added to [network] zones"),
        "{green}"
    );
    assert!(none.contains("\"zone\" added to [network] allow"), "{none}");
    assert_same(host);
}
