//! What the tool finds of the host's network, and shows of the tasks'.

use super::{ctl, doctor, state_of};
use nspawn_tests::product::{self, POLICY};
use nspawn_tests::{Rig, wait};
use serde_json::Value;
use std::time::Duration;

const JOB: &str = r#"
job "network" {
  group "g" {
    network {
      port "http" { to = 80 }
    }
    task "web" {
      driver = "nspawn"
      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        ports     = ["http"]
        command   = ["/bin/sh", "-c", <<EOF
mkdir /tmp/www; echo hello >/tmp/www/index.html; httpd -p 80 -h /tmp/www
host=$(ip route | grep default | cut -d' ' -f3)
while :; do nc -w 1 $host 9 </dev/null; sleep 1; done
EOF
        ]
      }
    }
  }
}
"#;

/// Each finding, and that its mend is what mends it.
pub(crate) fn checks(rig: &Rig) {
    let names = ["forward firewall", "pools of tasks", "saved rules", "forwarding"];
    let (_, report) = doctor(rig);
    for name in names {
        assert_eq!(state_of(&report, name).0, "ok", "{name}: {report:#}");
    }
    state_of(&report, "resolver");

    // Without the programs nothing is found, and that is no reason to be content.
    let blind = "exec env PATH=/none $(command -v nomad-nspawnctl) doctor --json";
    let report = serde_json::from_str(&rig.exec(&["sh", "-c", blind]).unwrap().text()).unwrap();
    let (state, found, mend) = state_of(&report, "forward firewall");
    assert!(state == "warning" && found.contains("nft: No such file"), "{state}: {found}");
    assert!(mend.starts_with("apt install nftables"), "{mend}");

    // As an operator's nftables.conf has it.
    let table = "add table inet own; add chain inet own forward { type filter hook forward \
                 priority 0; policy drop; }; add rule inet own forward ct state established accept";
    rig.run(&["nft", table]).unwrap();
    let (code, report) = doctor(rig);
    let (state, found, mend) = state_of(&report, "forward firewall");
    assert_eq!((code, state.as_str()), (1, "fail"), "{report:#}");
    assert!(found.starts_with("chain forward of table inet own drops all packets"), "{found}");
    rig.sh(&mend).unwrap();
    let (code, report) = doctor(rig);
    assert_eq!((code, state_of(&report, "forward firewall").0.as_str()), (0, "ok"), "{report:#}");
    rig.run(&["nft", "delete", "table", "inet", "own"]).unwrap();

    a_firewall_like_dockers(rig);

    let file = "/etc/nftables.conf";
    rig.sh(&format!("cp {file} /run/kept.conf; nft list ruleset >{file}")).unwrap();
    let (state, found, mend) = state_of(&doctor(rig).1, "saved rules");
    assert_eq!(state, "warning", "{found}");
    assert!(mend.contains(file), "{mend}");
    assert!(!rig.exec(&["nft", "-f", file]).unwrap().success(), "it can be loaded");
    rig.sh(&format!("mv /run/kept.conf {file}")).unwrap();
    assert_eq!(state_of(&doctor(rig).1, "saved rules").0, "ok");

    let forward = "/proc/sys/net/ipv4/ip_forward";
    let before = rig.run(&["cat", forward]).unwrap();
    rig.sh(&format!("echo 0 >{forward}; cp {POLICY} /run/kept.toml")).unwrap();
    assert_eq!(state_of(&doctor(rig).1, "forwarding").0, "ok");
    rig.write_file(POLICY, "[network]\nforwarding = \"check\"\n", 0o644).unwrap();
    let (state, found, _) = state_of(&doctor(rig).1, "forwarding");
    assert!(state == "fail" && found.contains("IPv4"), "{state}: {found}");
    rig.sh(&format!("mv /run/kept.toml {POLICY}; echo {} >{forward}", before.trim())).unwrap();
}

/// The chains that Docker makes, with the host's own iptables; the example unit lets packets pass.
fn a_firewall_like_dockers(rig: &Rig) {
    let state = || {
        let (_, report) = doctor(rig);
        state_of(&report, "forward firewall")
    };
    rig.sh("set -e; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
         iptables -A FORWARD -j DOCKER-USER; iptables -P FORWARD DROP
         iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP")
        .unwrap();
    let (found, text, mend) = state();
    assert!(found == "fail" && text.starts_with("Docker drops all packets"), "{found}: {text}");
    rig.sh(&mend).unwrap();
    assert_eq!(state().0, "ok");
    rig.sh(&mend.replace(" -I ", " -D ")).unwrap();
    assert_eq!(state().0, "fail");
    let unit = "nomad-nspawn-docker.service";
    let file = product::workspace().join("example/network").join(unit);
    let text = std::fs::read_to_string(file).unwrap();
    rig.write_file(&format!("/run/systemd/system/{unit}"), text, 0o644).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    rig.run(&["systemctl", "start", unit]).unwrap();
    assert_eq!(state().0, "ok");
    // A second time, as with a restart of Docker.
    rig.run(&["systemctl", "restart", unit]).unwrap();
    assert_eq!(rig.run(&["iptables", "-S", "DOCKER-USER"]).unwrap().matches("nv-+").count(), 2);
    rig.run(&["systemctl", "stop", unit]).unwrap();
    rig.sh("set -e; iptables -P FORWARD ACCEPT; iptables -F; iptables -X").unwrap();
    assert_eq!(state().0, "ok");
}

/// What a task has and does, also while the helper is stopped; and where its route is taken.
pub(crate) fn tasks(rig: &Rig) {
    let empty = ctl(rig, &["network"]);
    assert!(empty.success() && empty.text().contains("no task has a network of its own"));
    assert_eq!(ctl(rig, &["network", "--what"]).code(), 2);
    let job = rig.run_job(JOB).unwrap();
    let alloc = job.alloc().unwrap();
    alloc.wait_running().unwrap();
    let mut last = Value::Null;
    let seen = wait::true_within("a refusal", Duration::from_secs(20), || {
        last = serde_json::from_str(&ctl(rig, &["network", "--json"]).text())?;
        let refused = last["host"]["refused"]["input"]["packets"].as_u64();
        Ok(refused.is_some_and(|packets| packets > 0))
    });
    assert!(seen.is_ok(), "{last:#}");
    let [task] = last["tasks"].as_array().unwrap().as_slice() else { panic!("{last:#}") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!((text(&task["task"]), text(&task["allocation"])), ("web".into(), alloc.id.clone()));
    let links = rig.run(&["ip", "-br", "link"]).unwrap();
    assert!(links.contains(&text(&task["link"])), "{links}");
    let addresses: Vec<String> = task["addresses"].as_array().unwrap().iter().map(text).collect();
    for address in &addresses {
        let routes = rig.run(&["ip", "route", "get", address]).unwrap();
        assert!(routes.contains(&text(&task["link"])), "{routes}");
    }
    assert!(task["out"]["packets"].as_u64() > Some(0) && task["in"]["bytes"].as_u64() > Some(0));
    let port = &task["ports"][0];
    assert_eq!((&port["to"], &port["loopback"]), (&80.into(), &true.into()), "{port}");
    let url = format!("http://{}:{}/", text(&port["address"]), port["port"]);
    assert_eq!(rig.run(&["curl", "-sS", "-m", "5", &url]).unwrap().trim(), "hello");
    let host = &last["host"];
    assert_eq!((&host["table"], &host["note"]), (&"owned".into(), &Value::Null), "{host:#}");
    assert_eq!(host["forwarding"]["ipv4"], true);
    let pool = text(&host["pools"][0]);

    let people = ctl(rig, &["network"]).text();
    for words in [&text(&task["link"]), &addresses[0], &pool, "-> 80, on loopback too", "refused "]
    {
        assert!(people.contains(words), "{words}: {people}");
    }
    // A route of a VPN into the pool.
    let inside = addresses[0].rsplit_once('.').unwrap().0;
    rig.sh(&format!(
        "ip link add tun9 type veth peer name tun8; ip link set tun9 up; \
                     ip route add {inside}.0/24 dev tun9"
    ))
    .unwrap();
    let (state, found, _) = state_of(&doctor(rig).1, "pools of tasks");
    assert!(state == "warning" && found.contains("over tun9"), "{state}: {found}");
    rig.run(&["ip", "link", "delete", "tun9"]).unwrap();
    assert_eq!(state_of(&doctor(rig).1, "pools of tasks").0, "ok");
    job.purge().unwrap();
}
