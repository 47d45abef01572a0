//! The tasks with a network of their own, as the daemon has written them into PID 1's units
//! (LogExtraFields=): `NSPAWN_LINK`, whose letters helper/daemon/src/network/link_record.rs has, and
//! `NSPAWN_ATTACHED` of tasks in a network of the operator's or of systemd-nspawn.
//!
//! Trusts PID 1. A word of a later release is skipped.

use std::net::{IpAddr, SocketAddr};

use proto::link::LinkName;
use proto::unit_id::UnitId;
use serde_json::Value;

use super::bus;

const SYSTEMD: &str = "org.freedesktop.systemd1";

/// A task with a network of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) name: String,
    /// Allocation and run.
    pub(super) unit: UnitId,
    /// Name of the host's end of its link, where it has one.
    pub(super) link: Option<String>,
    /// How it is attached to which link of the host, where that is not by a link of its own.
    pub(super) attached: Option<(&'static str, String)>,
    /// As far as the record has them.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) zone: Option<String>,
    pub(super) ports: Vec<Port>,
}

/// A port of the host that leads to a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) host: SocketAddr,
    /// Number inside.
    pub(super) task: u16,
    /// Whether 127.0.0.1 and `[::1]` lead there as well.
    pub(super) on_loopback: bool,
}

/// All of them, by allocation.
///
/// # Errors
/// PID 1 cannot be asked.
pub(super) fn all() -> Result<Vec<Task>, String> {
    let service = format!("{SYSTEMD}.Service");
    let units = units()?;
    let mut tasks = Vec::new();
    for unit in &units {
        let text = |n: usize| unit.get(n).and_then(Value::as_str).unwrap_or_default();
        let id = text(0).strip_prefix("nomad-nspawn-").and_then(|it| it.strip_suffix(".service"));
        let Some(id) = id.and_then(UnitId::parse) else { continue };
        // It may be gone since.
        let property = ["get-property", SYSTEMD, text(6), &service, "LogExtraFields"];
        let Ok(fields) = bus(&property) else { continue };
        tasks.extend(read(id, &fields_of(&fields)));
    }
    tasks.sort_by_key(|task| task.unit);
    Ok(tasks)
}

/// PID 1's rows of the units whose names begin like those of tasks: name, description, and the
/// states of load and activity, then others.
///
/// # Errors
/// PID 1 cannot be asked.
pub(super) fn units() -> Result<Vec<Value>, String> {
    let object = format!("/{}", SYSTEMD.replace('.', "/"));
    let manager = format!("{SYSTEMD}.Manager");
    let words = [
        "call",
        SYSTEMD,
        &object,
        &manager,
        "ListUnitsByPatterns",
        "asas",
        "0",
        "1",
        "nomad-nspawn-*.service",
    ];
    let units = bus(&words)?;
    let units = units.get(0).and_then(Value::as_array).ok_or("systemd: no list of units")?;
    Ok(units.clone())
}

/// An array of arrays of bytes.
fn fields_of(value: &Value) -> Vec<String> {
    let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let field = |field: &Value| {
        let bytes = field.as_array()?.iter().filter_map(byte).collect();
        String::from_utf8(bytes).ok()
    };
    value.as_array().into_iter().flatten().filter_map(field).collect()
}

/// Letters of the ways to be attached.
const ATTACHED: [(&str, &str); 4] =
    [("b", "bridge"), ("m", "macvlan"), ("v", "veth of systemd-nspawn"), ("j", "systemd-nspawn")];

/// The task of a unit; `None` when it has no network of its own.
fn read(unit: UnitId, fields: &[String]) -> Option<Task> {
    let get = |name: &str| {
        let value = fields.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        value.and_then(unescape)
    };
    let words = |name: &str| get(name).filter(|text| text != "none");
    let (link, attached) = (words("NSPAWN_LINK"), words("NSPAWN_ATTACHED"));
    if link.is_none() && attached.is_none() {
        return None;
    }
    let name = LinkName::from(unit).to_string();
    let mut task = Task {
        name: get("NOMAD_TASK_NAME").unwrap_or_default(),
        unit,
        link: link.is_some().then(|| name.clone()),
        attached: None,
        addresses: Vec::new(),
        zone: None,
        ports: Vec::new(),
    };
    for (letter, value) in pairs(link.as_deref()) {
        match letter {
            // After it the length of the pool's prefix.
            "4" | "6" => task.addresses.extend(address(value.split('/').next())),
            // After the number of its interface group.
            "z" => task.zone = value.split_once(':').map(|(_, name)| name.to_owned()),
            "p" | "l" => task.ports.extend(port(value, letter == "l")),
            _ => {}
        }
    }
    for (letter, value) in pairs(attached.as_deref()) {
        match letter {
            "a" => task.addresses.extend(address(Some(value))),
            "p" => task.ports.extend(port(value, false)),
            letter => {
                let Some((_, kind)) = ATTACHED.iter().find(|(known, _)| *known == letter) else {
                    continue;
                };
                task.attached = Some((kind, value.to_owned()));
                task.link = match letter {
                    // Its port of the bridge.
                    "b" => Some(name.replacen("nv-", "nb-", 1)),
                    // A longer name is shortened.
                    "v" => Some(value.to_owned()).filter(|name| name.len() < IFNAMSIZ),
                    _ => None,
                };
            }
        }
    }
    Some(task)
}

/// Bytes of a link's name with its end (netdevice(7)).
const IFNAMSIZ: usize = 16;

fn pairs(text: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    text.into_iter().flat_map(|text| text.split(',')).filter_map(|word| word.split_once('='))
}

fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse().ok()
}

fn port(text: &str, on_loopback: bool) -> Option<Port> {
    let (host, task) = text.rsplit_once('-')?;
    Some(Port { host: host.parse().ok()?, task: task.parse().ok()?, on_loopback })
}

/// The value of a field: `+` and two digits stand for other bytes.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((begin, after)) = rest.split_once('+') {
        bytes.extend_from_slice(begin.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = after.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{AllocId, Instance};

    #[test]
    fn a_record_is_read_as_the_daemon_writes_it() {
        let unit = UnitId { alloc: AllocId([3; 16]), instance: Instance(0xbeef) };
        let fields = |link: &str| {
            let link = format!("NSPAWN_LINK={link}");
            let all = ["NSPAWN_RECORD=1", "NOMAD_TASK_NAME=web+201", &link, "NSPAWN_LINKS=x"];
            let bytes = |text: &str| Value::from(text.bytes().collect::<Vec<u8>>());
            fields_of(&Value::from(all.map(bytes).to_vec()))
        };
        let text = "4+3d10.64.0.11/20+2c6+3dfd64+3a+3a11/64+2cl+3d198.51.100.1+3a20001-80+2cp+3d+5b\
            2001+3adb8+3a+3a1+5d+3a20001-8080+2cz+3d1853227009+3aback+2cq+3dlater";
        let task = read(unit, &fields(text)).unwrap();
        assert_eq!(task.name, "web 1");
        assert_eq!(task.link, Some(LinkName::from(unit).to_string()));
        assert_eq!(task.zone.as_deref(), Some("back"));
        assert_eq!(
            task.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            ["10.64.0.11", "fd64::11"]
        );
        let ports: Vec<_> = task.ports.iter().map(|it| (it.host.to_string(), it.task)).collect();
        let expected = [("198.51.100.1:20001", 80), ("[2001:db8::1]:20001", 8080)];
        assert_eq!(ports, expected.map(|(host, task)| (host.to_owned(), task)));
        assert!(task.ports[0].on_loopback && !task.ports[1].on_loopback);
        assert_eq!(read(unit, &fields("none")), None);
        let attached = |text: &str| {
            let field = format!("NSPAWN_ATTACHED={text}");
            read(unit, &["NSPAWN_LINK=none".to_owned(), field])
        };
        assert_eq!(attached("none"), None);
        let text = "b+3dbr0+2ca+3d192.0.2.7+2ca+3d2001+3adb8+3a+3a7+2cp+3d198.51.100.1+3a20001-80";
        let task = attached(text).unwrap();
        assert_eq!(task.attached, Some(("bridge", "br0".to_owned())));
        assert_eq!(task.link, Some(LinkName::from(unit).to_string().replace("nv-", "nb-")));
        assert_eq!((task.addresses.len(), task.ports.len()), (2, 1));
        let task = attached("m+3deth0").unwrap();
        assert_eq!((task.link, task.attached), (None, Some(("macvlan", "eth0".to_owned()))));
        assert_eq!(read(unit, &["NOMAD_TASK_NAME=web".to_owned()]), None);
    }
}
