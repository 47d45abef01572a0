//! `network`: the tasks with a network of their own, what they have and send, and what the packet
//! filter refused, for people or as JSON.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::tasks::{Port, Task};
use super::{own_table, routes, tasks};

/// The chains of the helper's table that count what they refuse, and what they are about.
const REFUSING: [(&str, &str); 3] = [
    ("from_task", "what tasks send to others"),
    ("to_task", "what others send to tasks"),
    ("input", "what tasks send to the host"),
];

/// Prints it.
///
/// # Errors
/// An option that there is not, or PID 1 cannot be asked.
pub(super) fn run(options: &[&str]) -> Result<bool, String> {
    let json = match options {
        [] => false,
        ["--json"] => true,
        [other, ..] => return Err(format!("network has no option {other}")),
    };
    let tasks: Vec<Value> = tasks::all()?.iter().map(describe).collect();
    let host = host();
    if json {
        println!("{}", json!({ "tasks": tasks, "host": host }));
    } else {
        print!("{}", text(&tasks, &host));
    }
    Ok(true)
}

fn describe(task: &Task) -> Value {
    let port = |port: &Port| {
        json!({
            "address": port.host.ip(),
            "port": port.host.port(),
            "to": port.task,
            "loopback": port.on_loopback,
        })
    };
    // What the host's end receives is what the task has sent.
    let count = |way: &str| {
        let read = |unit: &str| {
            let link = task.link.as_ref()?;
            let file = format!("/sys/class/net/{link}/statistics/{way}_{unit}");
            fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
        };
        match (read("packets"), read("bytes")) {
            (Some(packets), Some(bytes)) => json!({ "packets": packets, "bytes": bytes }),
            // It has none, or the payload has ended.
            _ => Value::Null,
        }
    };
    json!({
        "task": task.name,
        "allocation": task.unit.alloc.to_string(),
        "run": task.unit.instance.0,
        "link": task.link,
        "attached": task.attached.as_ref().map(|(kind, to)| json!({ "kind": kind, "to": to })),
        "addresses": task.addresses,
        "zone": task.zone,
        "ports": task.ports.iter().map(port).collect::<Vec<_>>(),
        "out": count("rx"),
        "in": count("tx"),
    })
}

/// What is common to all tasks. `refused` is null where it cannot be read.
fn host() -> Value {
    let is_on = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() != "0");
    let pools = routes::all().map(|routes| routes::pools(&routes)).unwrap_or_default();
    let pools: Vec<_> = pools.iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
    let (table, refused, note) = match own_table::read() {
        Ok(Some(table)) => {
            let refused = |(chain, _): (&str, &str)| {
                let counted = table.counters.iter().find(|(name, ..)| name == chain);
                let (packets, bytes) =
                    counted.map_or((0, 0), |(_, packets, bytes)| (*packets, *bytes));
                (chain.to_owned(), json!({ "packets": packets, "bytes": bytes }))
            };
            let refused = Value::Object(REFUSING.map(refused).into_iter().collect());
            (json!(if table.is_owned { "owned" } else { "plain" }), refused, Value::Null)
        }
        Ok(None) => (json!("missing"), Value::Null, Value::Null),
        Err(error) => (Value::Null, Value::Null, error.into()),
    };
    json!({
        "pools": pools,
        "forwarding": {
            "ipv4": is_on("/proc/sys/net/ipv4/ip_forward"),
            "ipv6": is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
        },
        "table": table,
        "refused": refused,
        "note": note,
    })
}

/// The same for people.
fn text(tasks: &[Value], host: &Value) -> String {
    let of = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut lines = String::new();
    // A String takes everything.
    let mut line = |text: String| _ = writeln!(lines, "{text}");
    for task in tasks {
        let (name, allocation, link) = (of(task, "task"), of(task, "allocation"), of(task, "link"));
        line(format!("{name}  allocation {allocation}  {link}").trim_end().to_owned());
        let attached = task.get("attached").filter(|it| !it.is_null());
        if let Some(attached) = attached {
            line(format!("    attached   {}, {}", of(attached, "kind"), of(attached, "to")));
        }
        let addresses = words(task.get("addresses")).unwrap_or("not in the record".to_owned());
        line(format!("    addresses  {addresses}"));
        if let Some(zone) = task.get("zone").and_then(Value::as_str) {
            line(format!("    zone       {zone}"));
        }
        for port in task.get("ports").and_then(Value::as_array).into_iter().flatten() {
            let number = |key: &str| port.get(key).and_then(Value::as_u64).unwrap_or_default();
            let address = of(port, "address");
            let address = if address.contains(':') { format!("[{address}]") } else { address };
            let on_loopback = port.get("loopback") == Some(&Value::Bool(true));
            let loopback = if on_loopback { ", on loopback too" } else { "" };
            let (host, task) = (number("port"), number("to"));
            line(format!("    port       {address}:{host} -> {task}{loopback}"));
        }
        match (count(task.get("out")), count(task.get("in"))) {
            (Some(out), Some(into)) => line(format!("    traffic    out {out}; in {into}")),
            _ if link.is_empty() => {}
            _ => line("    traffic    the link is gone: the payload has ended".to_owned()),
        }
    }
    if tasks.is_empty() {
        line("no task has a network of its own".to_owned());
    }
    let pools = words(host.get("pools")).unwrap_or("none yet".to_owned());
    line(format!("\npools        {pools}"));
    let on = |family: &str| {
        let is_on = host.get("forwarding").and_then(|it| it.get(family));
        if is_on == Some(&Value::Bool(true)) { "on" } else { "off" }
    };
    line(format!("forwarding   IPv4 {}, IPv6 {}", on("ipv4"), on("ipv6")));
    let table = match of(host, "table").as_str() {
        "owned" => "there, and only the helper changes it",
        "plain" => "there, and anybody may change it: the helper is stopped",
        "missing" => {
            "missing: tasks with a network of their own are refused (journalctl -u \
                      nomad-nspawn-helper)"
        }
        _ => "not known",
    };
    line(format!("table        {table}"));
    for (chain, about) in REFUSING {
        if let Some(count) = count(host.get("refused").and_then(|it| it.get(chain))) {
            line(format!("refused      {count} ({about})"));
        }
    }
    if let Some(note) = host.get("note").and_then(Value::as_str).and_then(|it| it.lines().next()) {
        line(format!("refusals     not known: {note} (apt install nftables, and run it as root)"));
    }
    lines
}

/// A list of texts in one line; `None` when it is empty.
fn words(list: Option<&Value>) -> Option<String> {
    let words = list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Some(words.collect::<Vec<_>>().join(", ")).filter(|line| !line.is_empty())
}

/// Packets and bytes.
fn count(value: Option<&Value>) -> Option<String> {
    let number = |key: &str| value?.get(key)?.as_u64();
    Some(format!("{} packets, {}", number("packets")?, size(number("bytes")?)))
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    // Tenths, rounded down.
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), "bytes");
    for larger in units {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1024, larger);
    }
    if unit == "bytes" {
        return format!("{bytes} bytes");
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (160_000_000, "152.5 MiB"),
            (3 << 41, "6.0 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
