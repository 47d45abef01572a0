//! A job file as the tasks that Nomad would give the driver.
//!
//! What only a node knows is made up (an allocation id, its directory) or named in a note (where a
//! volume lies, which devices a plugin gives).

use std::collections::HashMap;
use std::path::Path;

use nomad_proto::drivers::{
    AllocatedCpuResources, AllocatedMemoryResources, AllocatedTaskResources, NetworkIsolationSpec,
    PortMapping, Resources, TaskConfig, network_isolation_spec::NetworkIsolationMode,
};
use serde_json::Value;

/// The made-up allocation.
const ALLOC: &str = "00000000-0000-4000-8000-000000000000";

/// The made-up address of the node; for documentation (RFC 5737), so that it is no one's.
const ADDRESS: &str = "192.0.2.1";
/// The first port that Nomad gives a label without one, by default.
const DYNAMIC_FIRST: i32 = 20_000;

/// One task of the job.
#[derive(Debug)]
pub(super) struct Task {
    /// Group and task, for people.
    pub(super) name: String,
    /// What the driver would get.
    pub(super) config: TaskConfig,
    /// What was not looked at.
    pub(super) notes: Vec<String>,
}

/// Reads a job; allocations lie below `root`.
///
/// # Errors
/// It is no job.
pub(super) fn read(file: &str, root: &Path) -> Result<Vec<Task>, String> {
    let text = if Path::new(file).extension().is_some_and(|end| end == "json") {
        std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?
    } else {
        super::output("nomad", &["job", "run", "-output", file])
            .map_err(|e| format!("HCL is read through the installed nomad: {e}"))?
    };
    let whole: Value = serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
    let job = whole.get("Job").unwrap_or(&whole);
    let groups = list(job, "TaskGroups");
    if groups.is_empty() {
        return Err(format!("{file}: no task groups; is it the JSON of `nomad job run -output`?"));
    }
    let mut tasks = Vec::new();
    for group in groups {
        for task in list(group, "Tasks") {
            if text_of(task, "Driver") == "nspawn" {
                tasks.push(read_task(group, task, root));
            }
        }
    }
    Ok(tasks)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read_task(group: &Value, task: &Value, root: &Path) -> Task {
    let name = text_of(task, "Name").to_owned();
    let mut notes = Vec::new();
    for mount in list(task, "VolumeMounts") {
        notes.push(format!(
            "volume {:?}: where it lies is the node's configuration, so it was not looked at",
            text_of(mount, "Volume")
        ));
    }
    if task.get("Resources").is_some_and(|resources| !list(resources, "Devices").is_empty()) {
        notes.push("devices of device plugins are the node's and were not looked at".to_owned());
    }
    let names_ports = |key: &str| {
        let value = task.get("Config").and_then(|config| config.get(key));
        value.and_then(Value::as_array).is_some_and(|entries| !entries.is_empty())
    };
    if network(group).is_none() && (names_ports("ports") || names_ports("port_map")) {
        notes.push(format!(
            "ports: the node chooses addresses and dynamic ports; {ADDRESS} and ports from \
             {DYNAMIC_FIRST} on stand for them"
        ));
    }
    let mut config = Vec::new();
    encode(task.get("Config").unwrap_or(&Value::Null), &mut config);
    let alloc_dir = root.join(ALLOC).display().to_string();
    let config = TaskConfig {
        id: format!("{ALLOC}/{name}/00000001"),
        alloc_id: ALLOC.to_owned(),
        stdout_path: format!("{alloc_dir}/alloc/logs/.{name}.stdout.fifo"),
        stderr_path: format!("{alloc_dir}/alloc/logs/.{name}.stderr.fifo"),
        alloc_dir,
        user: text_of(task, "User").to_owned(),
        env: environment(task),
        msgpack_driver_config: config,
        resources: Some(Resources { ports: ports(group), ..resources(task) }),
        network_isolation_spec: network(group),
        name: name.clone(),
        ..TaskConfig::default()
    };
    Task { name: format!("{}.{name}", text_of(group, "Name")), config, notes }
}

fn environment(task: &Value) -> HashMap<String, String> {
    let pairs = task.get("Env").and_then(Value::as_object);
    let pairs = pairs.into_iter().flatten();
    pairs.map(|(name, v)| (name.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

fn resources(task: &Value) -> Resources {
    let number = |key: &str| {
        task.get("Resources").and_then(|r| r.get(key)).and_then(Value::as_i64).unwrap_or_default()
    };
    let memory = AllocatedMemoryResources {
        memory_mb: number("MemoryMB"),
        memory_max_mb: number("MemoryMaxMB"),
    };
    let cpu = AllocatedCpuResources { cpu_shares: number("CPU") };
    let allocated =
        AllocatedTaskResources { cpu: Some(cpu), memory: Some(memory), networks: Vec::new() };
    Resources { allocated_resources: Some(allocated), ..Resources::default() }
}

/// The ports of the group as the scheduler would give them.
fn ports(group: &Value) -> Vec<PortMapping> {
    let number = |port: &Value, key: &str| {
        let number = port.get(key).and_then(Value::as_i64).unwrap_or_default();
        i32::try_from(number).unwrap_or_default()
    };
    let networks = || list(group, "Networks").iter();
    let reserved = networks().flat_map(|network| list(network, "ReservedPorts"));
    let reserved = reserved.map(|port| (port, number(port, "Value")));
    let dynamic = networks().flat_map(|network| list(network, "DynamicPorts"));
    reserved
        .chain(dynamic.zip(DYNAMIC_FIRST..))
        .map(|(port, value)| PortMapping {
            label: text_of(port, "Label").to_owned(),
            value,
            // -1: the same port as outside.
            to: Some(number(port, "To")).filter(|to| *to != -1).unwrap_or(value),
            host_ip: ADDRESS.to_owned(),
        })
        .collect()
}

/// The group's network as Nomad makes it for a running allocation.
fn network(group: &Value) -> Option<NetworkIsolationSpec> {
    let mode = list(group, "Networks").first().map_or("", |network| text_of(network, "Mode"));
    if matches!(mode, "" | "host") {
        return None;
    }
    Some(NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: format!("/var/run/netns/{ALLOC}"),
        ..NetworkIsolationSpec::default()
    })
}

/// Writes a JSON value as the MessagePack that Nomad sends.
fn encode(value: &Value, out: &mut Vec<u8>) {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Number(number) => {
            if let Some(whole) = number.as_i64() {
                out.push(0xd3);
                out.extend(whole.to_be_bytes());
            } else {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap_or_default().to_be_bytes());
            }
        }
        Value::String(text) => {
            out.push(0xdb);
            out.extend(length(text.len()));
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            out.push(0xdd);
            out.extend(length(items.len()));
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Object(entries) => {
            out.push(0xdf);
            out.extend(length(entries.len()));
            for (key, item) in entries {
                encode(&Value::String(key.clone()), out);
                encode(item, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_those_that_the_scheduler_could_give() {
        let group = json!({ "Networks": [{
            "ReservedPorts": [{ "Label": "ssh", "Value": 22, "To": 0 }],
            "DynamicPorts": [
                { "Label": "http", "To": 80 },
                { "Label": "same", "To": -1 },
                { "Label": "none" },
            ],
        }] });
        let found: Vec<_> =
            ports(&group).into_iter().map(|port| (port.label, port.value, port.to)).collect();
        let expected = [("ssh", 22, 0), ("http", 20_000, 80), ("same", 20_001, 20_001)];
        let expected = expected.into_iter().chain([("none", 20_002, 0)]);
        let expected: Vec<_> =
            expected.map(|(label, value, to)| (label.to_owned(), value, to)).collect();
        assert_eq!(found, expected);
        assert_eq!(ports(&json!({})), []);
    }

    #[test]
    fn a_task_that_publishes_ports_has_a_note_that_they_are_made_up() {
        let notes = |network: Value, config: Value| {
            let group = json!({ "Name": "g", "Networks": [network] });
            let task = json!({ "Name": "t", "Config": config });
            read_task(&group, &task, Path::new("/alloc")).notes
        };
        let (host, bridge) = (json!({}), json!({ "Mode": "bridge" }));
        for key in [json!({ "ports": ["http"] }), json!({ "port_map": [{ "http": 80 }] })] {
            let [note] = &notes(host.clone(), key.clone())[..] else { panic!("{key}") };
            assert!(note.contains("192.0.2.1 and ports from 20000"), "{note}");
            assert_eq!(notes(bridge.clone(), key), Vec::<String>::new());
        }
        assert_eq!(notes(host, json!({ "ports": [] })), Vec::<String>::new());
    }
}
