//! One task's specification, from its configuration and what is known of its node.
//!
//! Every module is asked even when an earlier one has found a problem, so that one error lists all
//! of them. Nothing here guards anything: the helper judges the result by its own policy.

use std::collections::HashMap;

use nomad_proto::drivers::TaskConfig;
use proto::limits;
use proto::name::TaskKey;
use proto::path::Absolute;
use proto::task_spec::{Files, ImageKind, Names, Network, Ownership, TaskSpec, Variable};

use crate::config::task::TaskKeys;
use crate::config::{Problem, cross_rules, environment, judge};
use crate::error::Failure;

use super::node::Node;
use super::targets::Targets;
use super::{
    binds, credentials, devices, hosts, image, isolation, mount_blocks, network, output, overlays,
    process, resolver, resources, root, timezone, tmpfs,
};

/// Builds the specification. Blocks on the file system.
///
/// # Errors
/// Every problem of the job in one final error.
pub(crate) fn build(task: &TaskConfig, node: &Node<'_>) -> Result<TaskSpec, Failure> {
    let mut problems = Vec::new();
    let keys = TaskKeys::decode(&task.msgpack_driver_config, &mut problems);
    cross_rules::check(&keys, &mut problems);
    let spec = specify(task, &keys, node, &mut problems);
    judge(&problems)?;
    spec.ok_or_else(|| Failure::permanent("job not valid"))
}

/// The task's image, as it is written.
pub(crate) fn image_of(task: &TaskConfig) -> String {
    TaskKeys::decode(&task.msgpack_driver_config, &mut Vec::new()).image
}

/// The command whose success means that the task is ready, where it has one.
pub(crate) fn probe_of(task: &TaskConfig) -> Option<process::Probe> {
    process::probe(&TaskKeys::decode(&task.msgpack_driver_config, &mut Vec::new()))
}

fn specify(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Option<TaskSpec> {
    let key = collect(task_key(task), problems);
    let alloc_dir = Absolute::parse(&task.alloc_dir)
        .map_err(|e| Problem::new("alloc_dir", e.to_string()).value(&task.alloc_dir));
    let alloc_dir = collect(alloc_dir, problems);
    let network = network::network(task, keys, node, problems);
    let users = root::users(keys, node, problems);
    let mut targets = Targets::default();
    let mut root = root::root(keys, users, node, &mut targets, problems);
    let files = files(task, keys, node, &mut targets, problems);
    let isolation = isolation::isolation(keys, network.as_ref(), node, problems);
    isolation::counts(keys, problems);
    let process = process::process(keys, &task.user, problems);
    let names = names(keys, task, network.as_ref(), node, problems);
    let logs = output::logs(keys, task, node, problems);
    let labels = output::labels(keys, task, node, problems);
    let stop_signal = process::stop_signal(keys, problems);
    let kill_timeout_ms = process::shutdown_timeout_ms(keys, problems);
    let environment = environment(task, keys, problems);
    let resources = resources::resources(task.resources.as_ref(), keys, node.cores, problems);
    // Only a text that is well formed is worth a look at the disk.
    if problems.iter().any(|problem| problem.key() == "image") {
        return None;
    }
    let (image, kind) = collect(image::resolve(&keys.image, node.directories), problems)?;
    root.kind = kind;
    if root.ownership == Ownership::Chown && kind == ImageKind::Disk {
        problems.push(
            Problem::new("private_users_ownership", "needs an image that is a directory")
                .value("chown")
                .remedy("write map, which changes nothing on disk"),
        );
    }
    Some(TaskSpec {
        root,
        payload: process::payload(keys),
        process,
        isolation,
        users,
        names,
        files,
        environment,
        logs,
        labels,
        stop_signal,
        kill_timeout_ms,
        resources,
        network: network?,
        ..TaskSpec::new(key?, alloc_dir?, image)
    })
}

fn collect<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// Reads the task's id and compares it with the fields that say the same.
fn task_key(task: &TaskConfig) -> Result<TaskKey, Problem> {
    let problem = |rule: String| Problem::new("task id", rule).value(&task.id);
    let key: TaskKey = task.id.parse().map_err(|e| problem(format!("{e}")))?;
    let same = key.task.as_str() == task.name && key.alloc.to_string() == task.alloc_id;
    if same {
        Ok(key)
    } else {
        Err(problem(format!(
            "does not belong to task {:?} of allocation {:?}",
            task.name, task.alloc_id
        )))
    }
}

fn files(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Files {
    let mut files = Files {
        binds: binds::binds(keys, &task.mounts, node, targets, problems),
        devices: devices::devices(keys, &task.devices, targets, problems),
        credentials: credentials::credentials(keys, problems),
        tmpfs: tmpfs::read_list(keys, targets, problems),
        overlays: overlays::read_lists(keys, targets, problems),
        inaccessible: Vec::new(),
    };
    for path in &keys.inaccessible {
        files.inaccessible.extend(targets.take("inaccessible", path, problems));
    }
    mount_blocks::add(keys, node, &mut files, targets, problems);
    if files.binds.len() > limits::MOUNTS_MAX {
        problems.push(Problem::new(
            "bind",
            format!("{} with volumes, but at most {}", files.binds.len(), limits::MOUNTS_MAX),
        ));
    }
    files
}

fn names(
    keys: &TaskKeys,
    task: &TaskConfig,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Names {
    let resolver = resolver::resolver(keys, task, network, node, problems);
    let (localtime, zone) = timezone::timezone(keys, node, problems);
    let hosts = hosts::hosts(keys, task, problems).concat().into_bytes();
    Names { resolver, hosts, localtime, zone }
}

/// The job's variables below Nomad's, which hold those of its device plugins.
fn environment(task: &TaskConfig, keys: &TaskKeys, problems: &mut Vec<Problem>) -> Vec<Variable> {
    let mut nomad: HashMap<String, String> = task.device_env.clone();
    nomad.extend(task.env.clone());
    environment::merge(&keys.environment.0, &nomad, problems)
}
