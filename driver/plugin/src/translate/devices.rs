//! Device nodes: those of the job, and those that Nomad's device plugins have reserved for it.

use nomad_proto::drivers;
use proto::task_spec::files::{Device, DeviceAccess};

use super::paths::absolute;
use super::targets::Targets;
use crate::config::Problem;
use crate::config::task::TaskKeys;

/// Nodes of the job's own `device` blocks and of Nomad's device plugins.
pub(crate) fn devices(
    keys: &TaskKeys,
    plugins: &[drivers::Device],
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Vec<Device> {
    let mut devices = Vec::new();
    for (index, device) in keys.device.0.iter().enumerate() {
        let target = device.container_path.as_deref().unwrap_or(&device.host_path);
        let key = format!("device[{index}]");
        devices.extend(node(
            &key,
            (&device.host_path, target, &device.permissions),
            targets,
            problems,
        ));
    }
    for device in plugins {
        let key = format!("device {:?} of the task's resources", device.host_path);
        let permissions = match device.cgroup_permissions.as_str() {
            "" => "rw",
            given => given,
        };
        let target = match device.task_path.as_str() {
            "" => &device.host_path,
            given => given,
        };
        devices.extend(node(&key, (&device.host_path, target, permissions), targets, problems));
    }
    devices
}

fn node(
    key: &str,
    (host, target, permissions): (&str, &str, &str),
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Device> {
    let access = DeviceAccess {
        read: permissions.contains('r'),
        write: permissions.contains('w'),
        mknod: permissions.contains('m'),
    };
    if permissions.is_empty() || !permissions.bytes().all(|b| b"rwm".contains(&b)) {
        problems.push(
            Problem::new(format!("{key}: permissions"), "must be some of the letters r, w and m")
                .value(permissions)
                .remedy("e.g. \"rw\""),
        );
        return None;
    }
    let host_path = absolute(&format!("{key}: host_path"), host, problems);
    if host_path.is_some() && !host.starts_with("/dev/") {
        problems.push(
            Problem::new(format!("{key}: host_path"), "must lie below /dev")
                .value(host)
                .remedy("use bind for other files"),
        );
    }
    let target = targets.take(&format!("{key}: container_path"), target, problems);
    Some(Device { host: host_path?, target: target?, access })
}
