//! The machine as test host, with one plugin for all tests.

use nomad_proto::drivers::{
    AllocatedCpuResources, AllocatedMemoryResources, AllocatedTaskResources, LinuxResources,
    Resources, TaskConfig,
};
use nspawn_tests::stand::{Running, Stand};
use serde_json::{Value, json};
use std::sync::LazyLock;

pub(crate) const MIB: u64 = 1 << 20;

/// Only inside of [`nspawn_tests::vm::inside`].
pub(crate) fn stand() -> &'static Stand {
    static STAND: LazyLock<Stand> = LazyLock::new(|| Stand::up("preset = \"compat\"\n").unwrap());
    &STAND
}

/// A script in the busybox image.
pub(crate) fn script(script: &str) -> Value {
    json!({
        "image": "busybox", "boot": false, "ephemeral": true,
        "command": ["/bin/sh", "-c", script],
    })
}

/// Gives a task this much memory (MiB) and CPU (MHz).
pub(crate) fn resources(memory: i64, cpu: i64) -> impl FnOnce(&mut TaskConfig) {
    move |task| {
        task.resources = Some(Resources {
            allocated_resources: Some(AllocatedTaskResources {
                cpu: Some(AllocatedCpuResources { cpu_shares: cpu }),
                memory: Some(AllocatedMemoryResources { memory_mb: memory, memory_max_mb: 0 }),
                ..Default::default()
            }),
            linux_resources: Some(LinuxResources {
                cpu_shares: cpu,
                memory_limit_bytes: memory * (1 << 20),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
}

/// Starts a script with such resources.
pub(crate) fn start(text: &str, memory: i64, cpu: i64) -> Running<'static> {
    stand().start(&script(text), resources(memory, cpu)).unwrap().unwrap()
}

/// Path of the task's control group.
pub(crate) fn group(task: &Running<'_>) -> String {
    let unit = task.unit();
    let group = task.rig().run(&["systemctl", "show", "-P", "ControlGroup", &unit]).unwrap();
    format!("/sys/fs/cgroup{group}")
}

/// A file of the task's control group, as the kernel has it.
pub(crate) fn control(task: &Running<'_>, file: &str) -> String {
    let path = format!("{}/{file}", group(task));
    String::from_utf8(task.rig().read_file(&path).unwrap()).unwrap().trim().to_owned()
}

/// A number behind a name, as in `memory.events`.
pub(crate) fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text:?}")).parse().unwrap()
}
