//! Networks of tasks beside Nomad's own: its bridge with the real CNI plugins, its services and
//! checks, its host networks, groups of several tasks and several allocations of one task.

use crate::work::{Host, LIMIT, TASK, Work};
use nspawn_tests::lan::{self, HOST_4, IN_LAN, SERVER};
use nspawn_tests::{Alloc, Job, Rig, wait};
use serde_json::{Value, json};

/// The machine of the local network, until it is dropped.
struct Lan<'a>(&'a Rig);

impl<'a> Lan<'a> {
    fn up(rig: &'a Rig) -> Self {
        lan::up(rig).unwrap();
        Self(rig)
    }
}

impl Drop for Lan<'_> {
    fn drop(&mut self) {
        lan::down(self.0).unwrap();
    }
}

/// Address and number of a label as the scheduler chose them.
fn port_of(alloc: &Alloc, label: &str) -> (String, i32) {
    let alloc = alloc.get().unwrap();
    let ports = alloc["AllocatedResources"]["Shared"]["Ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["Label"] == label).unwrap();
    let number = i32::try_from(port["Value"].as_i64().unwrap()).unwrap();
    (port["HostIP"].as_str().unwrap().to_owned(), number)
}

fn assert_answers(rig: &Rig, from: &[&str], (address, number): &(String, i32), what: &str) {
    let mut last = String::new();
    let answered = wait::true_within(what, LIMIT, || {
        last = lan::page(rig, from, address, *number, 3)?;
        Ok(last.contains("client "))
    });
    assert!(answered.is_ok(), "{what}: {last}");
}

/// A server, with its port 80 under the label `http`.
fn server(mode: &str) -> Work {
    let network = json!([{ "Mode": mode, "DynamicPorts": [{ "Label": "http", "To": 80 }] }]);
    let work = Work::sh(SERVER).service().group("Networks", network);
    work.task("KillTimeout", 100_000_000)
}

fn registered(rig: &Rig, group: &Value, count: usize) -> (Job, Vec<Alloc>) {
    let id = group["Name"].as_str().unwrap();
    let job = json!({ "ID": id, "Name": id, "Type": "service", "TaskGroups": [group] });
    let job = rig.run_job_json(&job).unwrap();
    let allocs = job.wait_allocs(count).unwrap();
    (job, allocs)
}

#[test]
fn ports_of_nomads_bridge_and_of_tasks_answer_at_once_and_reach_each_other() {
    let host = Host::alone();
    let _lan = Lan::up(&host);
    let theirs = server("bridge").run(&host, "beside-bridge");
    let ours = server("host").config("ports", json!(["http"])).run(&host, "beside-own");
    let all = [&theirs, &ours].map(|task| {
        task.alloc.wait_running().unwrap();
        (format!("--net=/proc/{}/ns/net", task.leader(&host)), port_of(&task.alloc, "http"))
    });
    for (_, port) in &all {
        assert_answers(&host, IN_LAN, port, "from the local network");
        assert_answers(&host, &[], port, "from the host");
        for (netns, own) in &all {
            // Nomad's bridge leads nobody back to itself (bridge_network_hairpin_mode, off by default).
            if own == port && own == &all[0].1 {
                continue;
            }
            assert_answers(&host, &["nsenter", netns], port, &format!("{own:?} to {port:?}"));
        }
    }
    // The one goes, the other stays.
    theirs.job.purge().unwrap();
    assert_answers(&host, IN_LAN, &all[1].1, "after Nomad's has gone");
    ours.job.purge().unwrap();
}

/// Two tasks share the network that Nomad made for their group: one serves on its loopback alone, the
/// other, which runs as long, carries the port there.
#[test]
fn a_sidecar_of_a_group_network_reaches_its_neighbour_on_loopback() {
    let host = Host::shared();
    let app = "echo from the app >/tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp";
    let proxy = "exec nc -ll -p 80 -e nc 127.0.0.1 8080";
    let mut group = Work::sh(app).group("Name", "sidecar").body();
    group["Networks"] =
        json!([{ "Mode": "bridge", "DynamicPorts": [{ "Label": "http", "To": 80 }] }]);
    let mut second = group["Tasks"][0].clone();
    second["Name"] = json!("proxy");
    second["Config"]["command"][2] = json!(proxy);
    second["Lifecycle"] = json!({ "Hook": "prestart", "Sidecar": true });
    for task in [&mut group["Tasks"][0], &mut second] {
        task["KillTimeout"] = json!(100_000_000);
    }
    group["Tasks"].as_array_mut().unwrap().push(second);
    let (job, allocs) = registered(&host, &group, 1);
    allocs[0].wait_running().unwrap();
    let (address, number) = port_of(&allocs[0], "http");
    let url = format!("http://{address}:{number}/");
    wait::true_within("the app's page through the sidecar", LIMIT, || {
        Ok(host.exec(&["curl", "-s", "-m", "3", &url])?.text() == "from the app\n")
    })
    .unwrap();
    job.purge().unwrap();
}

/// Links would collide if they were named after the task (systemd#10721).
#[test]
fn three_tasks_of_a_long_name_have_three_networks() {
    let host = Host::shared();
    let name = "a-task-with-a-name-that-is-much-longer-than-the-name-of-any-link";
    let work = server("host").config("ports", json!(["http"])).task("Name", name);
    let group = work.group("Name", "three").group("Count", 3).body();
    let (job, allocs) = registered(&host, &group, 3);
    for alloc in &allocs {
        alloc.wait_running().unwrap();
        assert_answers(&host, &[], &port_of(alloc, "http"), &alloc.id);
    }
    let names = host.run(&["ip", "-d", "-o", "link"]).unwrap();
    for alloc in &allocs {
        assert_eq!(names.matches(&alloc.id).count(), 1, "{names}");
    }
    job.purge().unwrap();
}

/// Each task has a network of its own, so a port of the group's can lead to one of them.
#[test]
fn a_label_that_two_tasks_use_belongs_to_the_first() {
    let host = Host::shared();
    let mut group = server("host").config("ports", json!(["http"])).group("Name", "twice").body();
    let mut second = group["Tasks"][0].clone();
    second["Name"] = json!("second");
    // It starts when the first one runs.
    second["Lifecycle"] = json!({ "Hook": "poststart", "Sidecar": true });
    second["LogConfig"] = json!({ "Disabled": true });
    group["Tasks"].as_array_mut().unwrap().push(second);
    let (job, allocs) = registered(&host, &group, 1);
    let event = allocs[0].wait_event("second", "Driver Failure", LIMIT).unwrap().message;
    let (address, number) = port_of(&allocs[0], "http");
    for word in [&format!("port {number} of {address}"), &format!("task {TASK} of allocation")] {
        assert!(event.contains(word), "{word}: {event}");
    }
    job.purge().unwrap();
}

/// What Nomad has registered of a service, and how its checks stand.
fn service(rig: &Rig, alloc: &Alloc, name: &str) -> (String, i64, Vec<String>) {
    let mut found = None;
    wait::true_within("the service to pass its checks", LIMIT, || {
        let list = rig.api().get(&format!("/v1/service/{name}"))?;
        let checks = rig.api().get(&format!("/v1/client/allocation/{}/checks", alloc.id))?;
        let mine = checks.as_object().into_iter().flat_map(|all| all.values());
        let mine = mine.filter(|check| check["Service"] == name);
        let states: Vec<String> =
            mine.map(|check| check["Status"].as_str().unwrap_or_default().to_owned()).collect();
        let entry = &list[0];
        let (address, port) = (entry["Address"].as_str(), entry["Port"].as_i64());
        let passing = states.iter().all(|state| state == "success");
        if let (Some(address), Some(port), true) = (address, port, passing) {
            found = Some((address.to_owned(), port, states));
        }
        Ok(found.is_some())
    })
    .unwrap_or_else(|error| {
        let checks = rig.api().get(&format!("/v1/client/allocation/{}/checks", alloc.id));
        panic!("{name}: {error:#}: {checks:?}")
    });
    found.unwrap()
}

fn check(mode: &str) -> Value {
    json!({
        "Name": format!("answers-{mode}"), "Type": "http", "Path": "/cgi-bin/who",
        "Interval": 1_000_000_000, "Timeout": 3_000_000_000_u64, "AddressMode": mode,
    })
}

/// `address_mode = "driver"` is the task's own address, with the port inside; a check of Nomad's own
/// cannot have it (1.6.3 and 1.11.3 refuse the job), and reaches the published port.
#[test]
fn services_with_address_mode_driver_have_the_tasks_address() {
    let host = Host::shared();
    let services = json!([
        { "Name": "by-driver", "PortLabel": "http", "Provider": "nomad", "AddressMode": "driver" },
        { "Name": "by-host", "PortLabel": "http", "Provider": "nomad", "AddressMode": "host",
          "Checks": [check("host")] },
    ]);
    let work = server("host").config("ports", json!(["http"])).task("Services", services);
    let task = work.run(&host, "by-driver");
    task.alloc.wait_running().unwrap();
    let (address, number) = port_of(&task.alloc, "http");
    let (at, port, checks) = service(&host, &task.alloc, "by-host");
    assert_eq!((at, port, checks), (address, i64::from(number), vec!["success".to_owned()]));
    let (at, port, _) = service(&host, &task.alloc, "by-driver");
    let netns = format!("--net=/proc/{}/ns/net", task.leader(&host));
    let own = ["nsenter", &netns, "ip", "-4", "-o", "address", "show", "dev", "host0"];
    let own = host.run(&own).unwrap();
    assert!(own.contains(&format!("inet {at} ")) && port == 80, "{at} {port}: {own}");
    // Clients of the host use it as it is.
    assert_answers(&host, &[], &(at, 80), "the service's address");
    task.job.purge().unwrap();
}

/// `address_mode = "alloc"` is the address in Nomad's own network, for service and check.
#[test]
fn services_with_address_mode_alloc_have_the_groups_address() {
    let host = Host::shared();
    let services = json!([
        { "Name": "by-alloc", "PortLabel": "http", "Provider": "nomad", "AddressMode": "alloc",
          "Checks": [check("alloc")] },
    ]);
    let task = server("bridge").group("Services", services).run(&host, "by-alloc");
    task.alloc.wait_running().unwrap();
    let (at, port, checks) = service(&host, &task.alloc, "by-alloc");
    assert!(at.starts_with("172.26.") && port == 80, "{at} {port}");
    assert_eq!(checks, ["success"]);
    task.job.purge().unwrap();
}

/// The agent reads its networks at its start, so it is started again with one more, and as before.
#[test]
fn a_label_of_a_host_network_is_published_at_its_address_alone() {
    const CONFIG: &str = "/etc/nomad.d/client.hcl";
    let host = Host::alone();
    let _lan = Lan::up(&host);
    let before = host.read_file(CONFIG).unwrap();
    let more = "client {\n  host_network \"lan\" {\n    cidr = \"198.51.100.0/24\"\n  }\n}\n";
    host.write_file(CONFIG, [&before, more.as_bytes()].concat(), 0o644).unwrap();
    host.agent_restart().unwrap();
    host.wait_driver("nspawn").unwrap();
    let network = json!([{ "Mode": "host", "DynamicPorts": [
        { "Label": "http", "To": 80, "HostNetwork": "lan" },
        { "Label": "usual", "To": 80 },
    ] }]);
    let work = server("host").group("Networks", network).config("ports", json!(["http", "usual"]));
    let task = work.run(&host, "host-network");
    task.alloc.wait_running().unwrap();
    let (lan, usual) = (port_of(&task.alloc, "http"), port_of(&task.alloc, "usual"));
    assert!(lan.0 == HOST_4 && usual.0 != HOST_4, "{lan:?} {usual:?}");
    for port in [&lan, &usual] {
        assert_answers(&host, IN_LAN, port, "at its address");
        assert_answers(&host, &[], &("127.0.0.1".to_owned(), port.1), "on loopback");
    }
    for (address, number) in [(&usual.0, lan.1), (&lan.0, usual.1)] {
        let seen = lan::page(&host, IN_LAN, address, number, 3).unwrap();
        assert!(seen.contains("onnect") && !seen.contains("client "), "{seen}");
    }
    task.job.purge().unwrap();
    host.write_file(CONFIG, before, 0o644).unwrap();
    host.agent_restart().unwrap();
    host.wait_driver("nspawn").unwrap();
}

#[test]
fn a_transfer_outlives_a_restart_of_the_agent() {
    let host = Host::alone();
    let _lan = Lan::up(&host);
    let task = server("host").config("ports", json!(["http"])).run(&host, "transfer");
    task.alloc.wait_running().unwrap();
    let port = port_of(&task.alloc, "http");
    assert_answers(&host, IN_LAN, &port, "before");
    let leader = task.leader(&host);
    host.sh(&format!("truncate -s 1G /proc/{leader}/root/tmp/www/big")).unwrap();
    let url = format!("http://{}:{}/big", port.0, port.1);
    let fetch = ["curl", "-sSm", "120", "--limit-rate", "100M", "-o", "/dev/null", "-w"];
    let fetch = [IN_LAN, &fetch, &["%{size_download}", &url]].concat();
    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| host.exec_within(&fetch, LIMIT * 2).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(300));
        host.agent_kill9().unwrap();
        assert_answers(&host, IN_LAN, &port, "without an agent");
        host.agent_start().unwrap();
        assert_answers(&host, IN_LAN, &port, "with the next agent");
        assert!(!transfer.is_finished(), "it ended before the agent was back");
        assert_eq!(transfer.join().unwrap().text(), "1073741824");
    });
    host.wait_driver("nspawn").unwrap();
    task.job.purge().unwrap();
}
