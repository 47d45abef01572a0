//! The texts that random files and specifications are made of: close to the rules' edges.

use proto::path::{Absolute, Component, Relative};

/// The task's own allocation.
pub(super) const OWN: &str = "07070707-0707-0707-0707-070707070707";
/// Another one.
pub(super) const OTHER: &str = "0e8b1c2d-1111-2222-3333-444455556666";

/// Paths of the host; `OWN` and `OTHER` stand for the two allocation ids.
pub(super) const PATHS: [&str; 69] = [
    "/",
    "/boot",
    "/data/alloc",
    "/data/alloc/OWN/x",
    "/data/client/csi/node/OWN",
    "/dev",
    "/dev/null",
    "/etc",
    "/etc/nomad-nspawn",
    "/etc/nomad-nspawn/policy.toml",
    "/etc/nomad-nspawn2",
    "/home",
    "/home/user/x",
    "/opt",
    "/opt/nomad",
    "/opt/nomad/alloc_mounts",
    "/opt/nomad/alloc_mounts/OWN",
    "/opt/nomad/data",
    "/opt/nomad/data/alloc/OWN",
    "/opt/nomad/data/alloc/OTHER/x",
    "/opt/nomad/data/client/csi/a/OWN/b",
    "/proc",
    "/proc/1/root",
    "/process",
    "/run",
    "/run/netns/OWN",
    "/run/systemd/private",
    "/runner",
    "/srv",
    "/srv/data",
    "/srv/data/x",
    "/srv/data/OWN",
    "/srv/database",
    "/srv/images/web",
    "/sys",
    "/sys/fs/cgroup",
    "/usr",
    "/usr/libexec",
    "/usr/libexec/nomad-nspawn/nomad-nspawn-helper",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/lib/alloc_mounts/client/csi/OWN",
    "/var/lib/machines",
    "/var/lib/machines/busybox",
    "/var/lib/machines2",
    "/var/lib/nomad",
    "/var/lib/nomad/alloc",
    "/var/lib/nomad/alloc/OWN",
    "/var/lib/nomad/alloc/OWN/alloc",
    "/var/lib/nomad/alloc/OWN/alloc/alloc/logs",
    "/var/lib/nomad/alloc/OWN/alloc/data",
    "/var/lib/nomad/alloc/OWN/alloc/logs",
    "/var/lib/nomad/alloc/OWN/alloc/secrets",
    "/var/lib/nomad/alloc/OWN/other/alloc",
    "/var/lib/nomad/alloc/OWN/other/local",
    "/var/lib/nomad/alloc/OWN/other/private/x",
    "/var/lib/nomad/alloc/OWN/other/secrets",
    "/var/lib/nomad/alloc/OWN/web/local",
    "/var/lib/nomad/alloc/OTHER",
    "/var/lib/nomad/alloc/client/csi/OWN",
    "/var/lib/nomad/client",
    "/var/lib/nomad/client/OWN",
    "/var/lib/nomad/client/csi",
    "/var/lib/nomad/client/csi/node/OWN/vol",
    "/var/lib/nomad/client/csi/node/OTHER/vol",
    "/var/lib/nomad/client/csi2/OWN",
    "/var/lib/nomad-nspawn",
    "/var/lib/nomad-nspawn/x",
];

/// First components of places of an allocation.
pub(super) const ALLOC_FIRST: [&str; 7] = ["alloc", "alloc", "web", "web", "other", "webs", ""];

/// Second components.
pub(super) const ALLOC_SECOND: [&str; 16] = [
    "local", "local", "local", "data", "data", "secrets", "tmp", "private", "logs", "logs2", "etc",
    "usr", "alloc", "locals", "tmp2", "",
];

/// Third components.
pub(super) const ALLOC_THIRD: [&str; 7] = ["", "", "x", "logs", "local", "crontab", "secrets"];

/// Files of credentials, below the task's directory.
pub(super) const CREDENTIALS: [&[&str]; 10] = [
    &["secrets", "x"],
    &["local", "x"],
    &["secrets", "private", "x"],
    &["local"],
    &["private", "vault_token"],
    &["private"],
    &["tmp", "x"],
    &["alloc", "logs", "x"],
    &["secrets2", "x"],
    &[],
];

/// Directories that a policy lists for binds.
pub(super) const DIRECTORIES: [&str; 21] = [
    "/",
    "/srv",
    "/srv/data",
    "/home",
    "/usr",
    "/usr/share",
    "/var",
    "/var/lib/nomad",
    "/var/lib/nomad/client/csi",
    "/opt/nomad/alloc_mounts",
    "/opt/nomad/data/client/csi",
    "/var/lib/alloc_mounts",
    "/etc",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/var/lib/nomad-nspawn",
    "/var/lib/machines",
    "/opt",
];

/// Directories with images.
pub(super) const IMAGES: [&str; 9] = [
    "/",
    "/var/lib/machines",
    "/var/lib/machines/group",
    "/srv/images",
    "/srv",
    "/home/user",
    "/var/lib",
    "/var/lib/nomad/plugins",
    "/dev",
];

/// Image paths.
pub(super) const IMAGE_PATHS: [&str; 20] = [
    "/",
    "/var/lib/machines",
    "/var/lib/machines/busybox",
    "/var/lib/machines/group",
    "/var/lib/machines/group/web",
    "/var/lib/machines/group/web/disk",
    "/var/lib/machines2/web",
    "/var/lib/nomad",
    "/var/lib/nomad/alloc/OTHER/web",
    "/var/lib/nomad/alloc/OWN/alloc/disk",
    "/var/lib/nomad/plugins/web",
    "/opt/nomad/alloc_mounts/OWN",
    "/srv/images",
    "/srv/images/web",
    "/usr/share/web",
    "/boot/web",
    "/srv/web",
    "/home/user/web",
    "/etc",
    "/dev/sdb",
];

/// Mount targets.
pub(super) const TARGETS: [&str; 27] = [
    "/mnt/a",
    "/mnt/b",
    "/mnt/c",
    "/mnt/a/b",
    "/data",
    "/opt/x",
    "/etc/hosts",
    "/alloc/x",
    "/local/x",
    "/secrets/x",
    "/dev/x",
    "/run/x",
    "/run/hosts",
    "/run/host",
    "/run/host/x",
    "/procs",
    "/system",
    "/",
    "/proc",
    "/proc/kcore",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/run",
    "/alloc",
    "/local",
    "/secrets",
];

/// Devices as jobs name them.
pub(super) const DEVICES: [&str; 10] = [
    "/dev/null",
    "/dev/fuse",
    "/dev/dri/card0",
    "/dev/dri/by-path/x",
    "/dev",
    "/dev2/null",
    "/etc/passwd",
    "/dev/sda",
    "/dev/sda1",
    "/dev/odd name",
];

/// Devices as policies list them.
pub(super) const DEVICE_RULES: [&str; 10] = [
    "/dev/null:rwm",
    "/dev/fuse:rw",
    "/dev/dri/*:rw",
    "/dev/**:r",
    "/dev/sd*:r",
    "/dev/sda:rwm",
    "/dev/**:rwm",
    "/dev/*:m",
    "/dev/dri/**:w",
    "/dev/*/card?:rwm",
];

/// System calls.
pub(super) const SYSCALLS: [&str; 6] =
    ["keyctl", "@keyring", "bpf", "@mount", "perf_event_open", "key"];

/// Kernel settings as jobs name them.
pub(super) const SYSCTLS: [&str; 14] = [
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "network.x",
    "kernel.shmmax",
    "kernel.shm_rmid_forced",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.sem2",
    "kernel.core_pattern",
    "kernel.hostname",
    "fs.mqueue.msg_max",
    "fs.mqueue2.x",
    "vm.swappiness",
];

/// Kernel settings as policies list them.
pub(super) const SYSCTL_RULES: [&str; 9] = [
    "*",
    "net.*",
    "net.ipv4.*.forwarding",
    "net.core.somaxconn",
    "kernel.shm*",
    "kernel.*",
    "kernel.sem",
    "fs.mqueue.*",
    "vm.*",
];

/// Ports of the host as policies list them.
pub(super) const PORTS: [(u16, u16); 8] = [
    (22, 22),
    (80, 443),
    (1024, 1024),
    (1, 65_535),
    (1024, 65_535),
    (8080, 8081),
    (20_000, 32_000),
    (65_535, 65_535),
];

/// SELinux contexts.
pub(super) const CONTEXTS: [&str; 3] =
    ["system_u:system_r:container_t:s0", "system_u:system_r:spc_t:s0", "a:b:c:d"];

/// Capabilities as policies list them.
pub(super) const CAPS: [&str; 9] = [
    "net_admin",
    "CAP_NET_ADMIN",
    "sys_time",
    "SYS_MODULE",
    "cap_bpf",
    "chown",
    "all",
    "syslog",
    "ipc_lock",
];

/// An absolute path from one of these texts.
#[allow(clippy::expect_used, reason = "constants")]
pub(super) fn path(text: &str) -> Absolute {
    let text = text.replace("OWN", OWN).replace("OTHER", OTHER);
    Absolute::parse(&text).expect("a path of this file")
}

/// A path below a directory.
#[allow(clippy::expect_used, reason = "constants")]
pub(super) fn relative(parts: &[&str]) -> Relative {
    let parts = parts.iter().map(|part| Component::new(*part).expect("a name of this file"));
    Relative::new(parts.collect()).expect("few names")
}

/// Patterns of slices in policy files.
pub(super) const SLICE_RULES: [&str; 4] =
    ["machine-nspawn-*.slice", "batch.slice", "*", "machine-nspawn-batch.slice"];
/// Slices of jobs.
pub(super) const SLICES: [&str; 5] = [
    "machine-nspawn-batch.slice",
    "machine-nspawn.slice",
    "batch.slice",
    "batch-1.slice",
    "system.slice",
];
/// Ranges of addresses, as a policy file may list them.
pub(super) const RANGES: [(&str, u8); 8] = [
    ("10.0.0.0", 8),
    ("10.1.0.0", 16),
    ("10.0.0.0", 7),
    ("192.0.2.7", 32),
    ("0.0.0.0", 0),
    ("fd00::", 8),
    ("fd00::1", 128),
    ("::", 0),
];
