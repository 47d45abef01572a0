//! Tests of whole specifications: what a job says against what the helper is asked for.

mod attached;
mod cases;
mod files;
mod mapped;
mod names;
mod ports;
mod random;
mod refused;
mod surroundings;

use nomad_proto::drivers::TaskConfig;
use proto::task_spec::TaskSpec;

use super::host_files::HostFiles;
use super::{Node, build};
use crate::config::plugin::PluginConfig;
use crate::msgpack::{Value, tests::encode};

pub(super) const ALLOC: &str = "0e8b1c2d-1111-2222-3333-444455556666";

/// A task whose `config` block has these keys, and `image = "debian"` when it has none.
pub(super) fn task(entries: &[(&str, Value)]) -> TaskConfig {
    let mut map: Vec<_> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    if !map.iter().any(|(key, _)| key == "image") {
        map.push(("image".to_owned(), "debian".into()));
    }
    let mut config = Vec::new();
    encode(&Value::Map(map), &mut config);
    TaskConfig {
        id: format!("{ALLOC}/web/00c0ffee"),
        name: "web".to_owned(),
        job_name: "shop €".to_owned(),
        alloc_id: ALLOC.to_owned(),
        alloc_dir: format!("/var/lib/nomad/alloc/{ALLOC}"),
        stdout_path: "/x/.web.stdout.fifo".to_owned(),
        stderr_path: "/x/.web.stderr.fifo".to_owned(),
        msgpack_driver_config: config,
        ..TaskConfig::default()
    }
}

/// A node with systemd 257 and a strict policy.
pub(super) fn node(config: &PluginConfig) -> Node<'_> {
    Node {
        systemd: 257,
        host_users: Some(false),
        config,
        directories: &[],
        cores: 4.0,
        selinux: false,
        host: HostFiles {
            read: |path| Ok(path.into()),
            link: |_| Ok("../usr/share/zoneinfo/Asia/Tokyo".into()),
        },
        loopback_resolver: false,
    }
}

/// The specification of a task on such a node, or the text of the refusal.
pub(super) fn try_task(task: &TaskConfig) -> Result<TaskSpec, String> {
    let config = PluginConfig::default();
    build(task, &node(&config)).map_err(|failure| failure.text().to_owned())
}

/// The specification of these keys, or the text of the refusal.
pub(super) fn try_keys(entries: &[(&str, Value)]) -> Result<TaskSpec, String> {
    try_task(&task(entries))
}

pub(super) fn spec(entries: &[(&str, Value)]) -> TaskSpec {
    try_keys(entries).unwrap()
}

pub(super) fn list(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::from(*text)).collect())
}

pub(super) fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

/// `key { name = "text" … }` of a `list(map(string))`.
pub(super) fn pairs(entries: &[(&str, &str)]) -> Value {
    let entries: Vec<_> = entries.iter().map(|(key, text)| (*key, Value::from(*text))).collect();
    Value::List(vec![map(&entries)])
}

/// One block of a list of blocks.
pub(super) fn blocks(entries: &[(&str, Value)]) -> Value {
    Value::List(vec![map(entries)])
}
