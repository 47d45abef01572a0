//! Ports that a task cannot have: each refused before anything is made, with who has it.

use crate::{HOST_4, address, host, port, serve, task, with_ports};
use serde_json::Value;

fn wanting(labels: &[&str]) -> Value {
    let mut config = task("sleep 1000");
    config["ports"] = labels.iter().copied().collect();
    config
}

/// Whatever listens there, or does not.
#[test]
fn p20_ports_below_1024_are_refused_until_the_policy_lists_them() {
    let (_life, stand) = host();
    for value in [22, 80, 1023] {
        let ports = with_ports(vec![port("http", HOST_4, value, 80)]);
        let refused = stand.refusal_with(&wanting(&["http"]), ports).unwrap();
        for word in [&format!("{HOST_4}:{value}"), &format!("\"{value}\" added to [network] ports")]
        {
            assert!(refused.text.contains(word), "{word}: {}", refused.text);
        }
        assert!(!refused.recoverable, "{}", refused.text);
    }
}

#[test]
fn p20_two_labels_at_one_place_are_refused() {
    let (_life, stand) = host();
    let ports = [("one", 80), ("two", 81)].map(|(label, to)| port(label, HOST_4, 20_028, to));
    let refused =
        stand.refusal_with(&wanting(&["one", "two"]), with_ports(ports.to_vec())).unwrap();
    assert!(refused.text.contains("20028"), "{}", refused.text);
    assert!(!refused.recoverable, "{}", refused.text);
}

#[test]
fn p20_a_port_of_a_running_task_is_refused_and_stays_its_own() {
    let (_life, stand) = host();
    let server = serve(stand, &[HOST_4], 20_021);
    let ports = with_ports(vec![port("http", HOST_4, 20_021, 80)]);
    let refused = stand.refusal_with(&wanting(&["http"]), ports).unwrap();
    for word in ["20021", HOST_4, "task t of allocation"] {
        assert!(refused.text.contains(word), "{word}: {}", refused.text);
    }
    assert!(refused.recoverable, "{}", refused.text);
    assert!(crate::page(&stand.rig, crate::IN_LAN, HOST_4, 20_021).contains("client "));
    assert!(!address(&server).is_empty());
    server.stop("SIGKILL").unwrap();
}

#[test]
fn p20_a_port_of_a_program_of_the_host_is_refused_with_its_unit() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let start =
        ["systemd-run", "-q", "--unit", "holder.service", "busybox", "nc", "-ll", "-p", "20022"];
    rig.run(&[&start[..], &["-e", "/bin/true"]].concat()).unwrap();
    crate::soon("the holder", || {
        Ok(rig.run(&["ss", "-Hltn", "sport", "=", "20022"])?.contains("20022"))
    });
    let ports = with_ports(vec![port("http", HOST_4, 20_022, 80)]);
    let refused = stand.refusal_with(&wanting(&["http"]), ports).unwrap();
    rig.run(&["systemctl", "stop", "holder.service"]).unwrap();
    for word in ["20022", "holder.service"] {
        assert!(refused.text.contains(word), "{word}: {}", refused.text);
    }
}

#[test]
fn an_outgoing_connection_of_the_host_holds_no_port() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let target = serve(stand, &[HOST_4], 20_023);
    let inner = address(&target);
    // From the host's address and the port that the next task wants.
    rig.sh(&format!(
        "set -e; truncate -s 100000000 /proc/{}/root/tmp/www/big
         systemd-run -q --unit outgoing.service curl -s --interface {HOST_4} --local-port 20024 \
             --limit-rate 1000 -o /dev/null http://{inner}/big",
        target.leader().unwrap()
    ))
    .unwrap();
    crate::soon("the connection", || {
        Ok(rig.run(&["ss", "-Htn", "sport", "=", "20024"])?.contains("ESTAB"))
    });
    let server = serve(stand, &[HOST_4], 20_024);
    assert!(crate::page(rig, crate::IN_LAN, HOST_4, 20_024).contains("client "));
    rig.run(&["systemctl", "stop", "outgoing.service"]).unwrap();
    server.stop("SIGKILL").unwrap();
    target.stop("SIGKILL").unwrap();
}

/// With this setting of the kernel's, bind(2) takes every address: so that would lead the host's own
/// connections to another machine into a task.
#[test]
fn p20_a_port_of_an_address_that_is_not_the_hosts_is_refused() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    rig.sh("sysctl -q net.ipv4.ip_nonlocal_bind=1").unwrap();
    for address in ["203.0.113.7", "198.51.100.255", "198.51.100.2"] {
        let ports = with_ports(vec![port("http", address, 20_025, 80)]);
        let refused = stand.refusal_with(&wanting(&["http"]), ports).unwrap();
        let text = &refused.text;
        assert!(text.contains(address) && text.contains("not an address of this host"), "{text}");
    }
    rig.sh("sysctl -q net.ipv4.ip_nonlocal_bind=0").unwrap();
    // The host's end of tasks' links is one of its addresses, and what tasks ask for names.
    let server = serve(stand, &[HOST_4], 20_026);
    let gateway = rig.sh("ip -4 -o address show | grep -o 'inet [^ ]* peer' | sort -u").unwrap();
    let gateway = gateway.split_whitespace().nth(1).unwrap();
    for address in [gateway, &address(&server)] {
        let ports = with_ports(vec![port("http", address, 20_027, 80)]);
        let refused = stand.refusal_with(&wanting(&["http"]), ports).unwrap();
        assert!(refused.text.contains("is an address of tasks"), "{}", refused.text);
    }
    server.stop("SIGKILL").unwrap();
}
