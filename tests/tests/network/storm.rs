//! Hundreds of starts and stops at once: nothing of any of them is left, in no table of the kernel's.

use crate::{HOST_4, IN_LAN, alone, assert_same, port, soon, task, with_ports};
use nspawn_tests::stand::Stand;
use nspawn_tests::{Rig, product};
use serde_json::json;

/// Tasks at once, allocations that follow each other in each place, and runs of each allocation.
const PLACES: i32 = 10;
const ALLOCATIONS: i32 = 10;
const RUNS: i32 = 5;

/// The table that NETWORK.md shows, with the pools of this host.
fn documented(rig: &Rig) -> String {
    let text = std::fs::read_to_string(product::workspace().join("docs/NETWORK.md")).unwrap();
    let block = text.split_once("```nft\n").unwrap().1.split_once("```").unwrap().0;
    let pools = rig
        .sh("ip route show type unreachable proto kernel; ip -6 route show type unreachable proto kernel")
        .unwrap();
    let mut pools = pools.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    let text = block.replace("10.64.0.0/20", pools.next().unwrap());
    text.replace("fd64::/64", pools.next().unwrap())
}

/// As nft 1.0.6 prints it, without the owner's name.
fn listed(rig: &Rig) -> String {
    let text = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"]).unwrap() + "\n";
    let line = |line: &str| line.split(" # progname").next().unwrap().to_owned() + "\n";
    let text: String = text.lines().map(line).collect();
    // Others of this binary have been refused before.
    let text = uncounted(&text);
    text.replace("hook output priority dstnat", "hook output priority -100")
}

/// With counters at zero.
fn uncounted(text: &str) -> String {
    let mut words = text.split_inclusive([' ', '\n']);
    let mut all = String::new();
    while let Some(word) = words.next() {
        all.push_str(word);
        if word == "packets " || word == "bytes " {
            words.next();
            all.push_str("0 ");
        }
    }
    all
}

/// Addresses, routes, rules, neighbours and interfaces of the host, without what only counts time.
fn kernel(rig: &Rig) -> String {
    rig.sh(
        "ip -o address | sed 's/valid_lft.*//'; ip route show table all; ip -6 route show table all
        ip rule; ip -6 rule; ip neighbour | grep nv- || true; ip -o link | cut -d: -f2; ip netns
        ls /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf",
    )
    .unwrap()
}

/// One place: runs of an allocation follow each other at once, on one port, and so do allocations.
fn place(stand: &Stand, number: i32) {
    let rig = &stand.rig;
    let mut config = task("echo ready; exec httpd -f -p 80 -h /etc");
    config["ports"] = json!(["http"]);
    let value = 20_400 + number;
    let url = format!("http://{HOST_4}:{value}/hosts");
    for _ in 0..ALLOCATIONS {
        let mut allocation = stand.allocation("t").unwrap();
        for run in 1..=RUNS {
            let ports = with_ports(vec![port("http", HOST_4, value, 80)]);
            let started = stand.start_in(allocation, u32::try_from(run).unwrap(), &config, ports);
            let mut running =
                started.unwrap().unwrap_or_else(|it| panic!("run {run}: {}", it.text));
            running.wait_output("ready").unwrap();
            if run == 1 {
                soon("the page", || {
                    Ok(rig.exec(&[IN_LAN, &["curl", "-sfm", "3", &url]].concat())?.success())
                });
            }
            // Some end by themselves, so that the end is seen before anybody asks.
            if run % 2 == 0 {
                rig.run(&["kill", "-KILL", &running.leader().unwrap()]).unwrap();
                allocation = running.finish_run().unwrap().1;
            } else {
                allocation = running.stop_run("SIGKILL").unwrap().1;
            }
        }
        allocation.remove(rig).unwrap();
    }
}

#[test]
fn after_five_hundred_starts_and_stops_nothing_is_left() {
    let (_alone, host) = alone();
    let (stand, rig) = (&host.stand, &host.stand.rig);
    // The local network's own link is young.
    soon("the end of DAD", || Ok(!rig.run(&["ip", "address"])?.contains("tentative")));
    let before = kernel(rig);
    std::thread::scope(|scope| {
        for number in 0..PLACES {
            scope.spawn(move || place(stand, number));
        }
    });
    assert_same(host);
    let after = kernel(rig);
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let left: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    assert!(left.is_empty() && gone.is_empty(), "left: {left:#?}, gone: {gone:#?}");
    assert_eq!(listed(rig), documented(rig));
    // No connection of a task is known any more, so none can lead to the next one.
    let known = rig.run(&["cat", "/proc/net/nf_conntrack"]).unwrap();
    let theirs: Vec<&str> = known.lines().filter(|line| line.contains("dport=204")).collect();
    assert!(theirs.is_empty(), "{theirs:#?}");
}
