//! Ports through everything that happens to helper, firewall and task.

use crate::{
    HELPER, HOST_4, IN_LAN, address, alone, assert_same, host, page, serve, task, udp_client,
    udp_server,
};
use nspawn_tests::Rig;
use std::time::{Duration, Instant};

/// What the table says of this port.
fn elements(rig: &Rig, port: &str) -> usize {
    let table = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"]).unwrap();
    table.matches(&format!(" . {port} : ")).count()
}

#[test]
fn d14_everything_goes_when_the_payload_ends_and_not_only_at_its_removal() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    let server = serve(&host.stand, &[HOST_4], 20_031);
    let inner = address(&server);
    assert_eq!(elements(rig, "20031"), 4 + 2, "two protocols at the address and on both loopbacks");
    let leader = server.leader().unwrap();
    rig.run(&["kill", "-KILL", &leader]).unwrap();
    let ended = Instant::now();
    crate::soon("the refusal", || Ok(page(rig, IN_LAN, HOST_4, 20_031).contains("onnect")));
    println!("refused {:?} after the payload's end", ended.elapsed());
    crate::soon("the end of its elements", || Ok(elements(rig, "20031") == 0));
    crate::soon("the end of its link", || {
        Ok(!rig.run(&["ip", "route"])?.lines().any(|line| line.starts_with(&format!("{inner} "))))
    });
    server.finish().unwrap();
    assert_same(host);
}

/// What a client fetches: 1 GB.
const BYTES: &str = "1000000000";

/// systemd-networkd leaves the links of the test host alone, and has the rest as it likes.
const NETWORKD: &str = "mkdir -p /run/systemd/network
printf '[Match]\\nName=host0 lan0\\n[Link]\\nUnmanaged=yes\\n' >/run/systemd/network/05-rig.network
systemctl restart systemd-networkd.service && systemctl restart systemd-networkd.service";

/// Runs `what` while a client of the local network fetches for seconds; nothing of it may be lost,
/// and new connections are answered all the while.
fn transfer_outlives(rig: &Rig, what: &[&str]) {
    let url = format!("http://{HOST_4}:20032/big");
    let words =
        [IN_LAN, &["curl", "-sS", "--limit-rate", "250M", "-o", "/dev/null", "-w"]].concat();
    let words = [&words[..], &["%{size_download}", "-m", "60", &url]].concat();
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| rig.run(&words).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        for step in what {
            rig.sh(step).unwrap();
            assert!(page(rig, IN_LAN, HOST_4, 20_032).contains("client "), "{step}");
        }
        assert!(!transfer.is_finished(), "it ended before {what:?}");
        assert_eq!(transfer.join().unwrap().trim(), BYTES, "{what:?}");
    });
}

#[test]
fn transfers_and_ports_outlive_firewall_and_helper() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    let server = serve(&host.stand, &[HOST_4], 20_032);
    let leader = server.leader().unwrap();
    rig.sh(&format!("truncate -s {BYTES} /proc/{leader}/root/tmp/www/big")).unwrap();
    let kill = format!("systemctl kill --kill-whom=main --signal=KILL {HELPER}");
    // The file that Debian ships begins with `flush ruleset`, which its unit's stop does as well.
    let reload = "systemctl start nftables.service && systemctl reload nftables.service";
    let clean = "systemctl stop nftables.service";
    transfer_outlives(rig, &["nft flush ruleset", reload, clean]);
    transfer_outlives(rig, &[NETWORKD]);
    rig.sh("systemctl stop systemd-networkd.socket systemd-networkd.service
         rm -r /run/systemd/network")
        .unwrap();
    transfer_outlives(rig, &[&kill, "nft flush ruleset"]);
    transfer_outlives(rig, &["systemctl restart nomad-nspawn-helper.service"]);
    let stop = "systemctl stop nomad-nspawn-helper.socket nomad-nspawn-helper.service";
    let start = "systemctl start nomad-nspawn-helper.socket nomad-nspawn-helper.service";
    transfer_outlives(rig, &[stop, start]);
    transfer_outlives(rig, &["systemctl daemon-reexec"]);
    assert!(elements(rig, "20032") > 0);
    let table = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"]).unwrap();
    assert!(table.contains("flags owner"), "{table}");
    server.stop("SIGKILL").unwrap();
    assert_same(host);
}

/// On systemd 252 each stop of the helper empties the descriptor store.
#[test]
fn a_descriptor_store_that_is_lost_takes_no_link_away() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    let server = serve(&host.stand, &[HOST_4], 20_034);
    let inner = address(&server);
    rig.sh("set -e; systemctl stop nomad-nspawn-helper.socket nomad-nspawn-helper.service
         systemctl clean --what=fdstore nomad-nspawn-helper.service 2>/dev/null || \
             systemctl show -P NFileDescriptorStore nomad-nspawn-helper.service | grep -qx 0
         systemctl start nomad-nspawn-helper.socket nomad-nspawn-helper.service")
        .unwrap();
    assert!(page(rig, IN_LAN, HOST_4, 20_034).contains("client "));
    assert_eq!(address(&server), inner);
    let leader = server.leader().unwrap();
    rig.run(&["kill", "-KILL", &leader]).unwrap();
    crate::soon("the end of its elements", || Ok(elements(rig, "20034") == 0));
    server.finish().unwrap();
    assert_same(host);
}

/// A client that sends all the while from one port would keep the connection to a dead task alive.
#[test]
fn udp_clients_find_the_next_task() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| udp_client(rig, 20_033, 300));
        let first = udp_server(stand, "first", 20_033);
        std::thread::sleep(Duration::from_secs(3));
        first.stop("SIGKILL").unwrap();
        let second = udp_server(stand, "second", 20_033);
        std::thread::sleep(Duration::from_secs(4));
        second.stop("SIGKILL").unwrap();
        let heard = heard.join().unwrap();
        let order: Vec<&str> = heard.lines().collect();
        assert!(order.contains(&"first") && order.contains(&"second"), "{order:?}");
    });
}

/// The same task of the same allocation keeps its address over restarts.
#[test]
fn an_address_belongs_to_the_task_of_an_allocation() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let look = task("ip -4 -o address show dev host0");
    let first = stand.start(&look, |_| {}).unwrap().unwrap();
    let (outcome, allocation) = first.finish_run().unwrap();
    let again = stand.start_in(allocation, 2, &look, |_| {}).unwrap().unwrap();
    assert_eq!(again.finish().unwrap().stdout, outcome.stdout);
    assert!(outcome.stdout.contains("inet "), "{}", outcome.stdout);
    assert_same(host);
}
