//! Device nodes and credentials.

use std::collections::HashSet;

use nomad_proto::drivers;
use proto::limits;
use proto::secret::Secret;
use proto::task_spec::files::{
    Credential, CredentialContent, CredentialName, Device, DeviceAccess,
};

use super::place::{Targets, absolute, below};
use crate::config::Problem;
use crate::config::block_keys::CredentialKeys;
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

/// The job's credentials.
pub(crate) fn credentials(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Vec<Credential> {
    let mut names = HashSet::new();
    let mut credentials = Vec::new();
    for (index, block) in keys.credential.0.iter().enumerate() {
        let key = format!("credential[{index}]");
        if !names.insert(block.name.as_str()) {
            problems.push(Problem::new(&key, "its name is there twice").value(&block.name));
        }
        credentials.extend(credential(&key, block, problems));
    }
    credentials
}

fn credential(
    key: &str,
    block: &CredentialKeys,
    problems: &mut Vec<Problem>,
) -> Option<Credential> {
    let name = CredentialName::new(&block.name)
        .map_err(|e| {
            let problem = Problem::new(format!("{key}.name"), e.to_string());
            problems.push(problem.value(&block.name));
        })
        .ok();
    let content = match (&block.source, &block.value) {
        (Some(source), None) => file(&format!("{key}.source"), source, problems),
        (None, Some(value)) if value.0.len() > limits::CREDENTIAL_MAX => {
            problems.push(
                Problem::new(format!("{key}.value"), "at most 1 MiB")
                    .remedy("write a file with a template block and name it as source"),
            );
            None
        }
        (None, Some(value)) => Some(CredentialContent::Value(Secret::new(value.0.as_str()))),
        _ => {
            problems.push(
                Problem::new(key, "needs exactly one of source and value")
                    .remedy("source = \"secrets/name\" for a file that a template writes"),
            );
            None
        }
    };
    Some(Credential { name: name?, content: content?, encrypted: block.encrypted })
}

/// A file below the task's secrets or local folder, by its path below the task's folder or by the
/// one that it has inside.
fn file(key: &str, text: &str, problems: &mut Vec<Problem>) -> Option<CredentialContent> {
    let path = below(text).ok().filter(|path| {
        let parts = path.components();
        parts.len() > 1
            && parts.first().is_some_and(|first| matches!(first.as_str(), "secrets" | "local"))
    });
    if path.is_none() {
        problems.push(
            Problem::new(key, "must be a file below the task's secrets or local folder")
                .value(text)
                .remedy("e.g. secrets/name or ${NOMAD_SECRETS_DIR}/name"),
        );
    }
    path.map(CredentialContent::File)
}
