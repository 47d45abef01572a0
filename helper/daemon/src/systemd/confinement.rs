//! What confines those of our units whose work needs little: the one that relays a task's output,
//! which handles the payload's bytes, and the one that removes a tree that the payload made.
//!
//! Constants alone; nothing of a job. The task's own unit has none of this: systemd-nspawn needs
//! what these take away. `RestrictSUIDSGID=` is not among them: systemd answers openat2(2) with
//! ENOSYS under it.

use zbus::Variant;

use crate::systemd::units::transient::Property;

/// Groups and calls of `@system-service` that neither program calls.
const WITHOUT: [&str; 8] =
    ["@aio", "@keyring", "@memlock", "@resources", "@setuid", "seccomp", "setns", "unshare"];

/// In what the confined units differ.
pub(crate) struct Needs {
    /// ReadWritePaths=: nothing else can be written.
    pub(crate) writable: Vec<String>,
    /// Mask of capabilities(7).
    pub(crate) capabilities: u64,
    /// Socket families, e.g. `AF_UNIX`.
    pub(crate) families: Vec<&'static str>,
    /// ProtectHome=.
    pub(crate) home: &'static str,
}

/// The properties of a unit that needs no more than this.
pub(crate) fn properties<'a>(needs: Needs) -> Vec<Property<'a>> {
    let on = [
        "NoNewPrivileges",
        // Sockets with a path work from another network namespace, and it needs no others.
        "PrivateNetwork",
        "PrivateDevices",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectClock",
        "ProtectHostname",
        "RestrictRealtime",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ];
    let mut all: Vec<Property<'a>> = on.map(|name| (name, Variant::from(true))).into();
    all.extend([
        ("CapabilityBoundingSet", Variant::from(needs.capabilities)),
        ("ProtectSystem", Variant::from("strict")),
        ("ProtectHome", Variant::from(needs.home)),
        ("ProtectProc", Variant::from("invisible")),
        // Strict leaves it writable where /proc or /sys are mounted again, as some of the above do.
        ("ReadOnlyPaths", Variant::from(vec!["/run"])),
        // The ways to PID 1, which obeys uid 0 even without a capability.
        ("InaccessiblePaths", Variant::from(vec!["-/run/dbus", "-/run/systemd/private"])),
        ("ReadWritePaths", Variant::from(needs.writable)),
        ("KeyringMode", Variant::from("private")),
        // None of the kernel's namespaces may be entered or made.
        ("RestrictNamespaces", Variant::from(0_u64)),
        ("RestrictAddressFamilies", Variant::from((true, needs.families))),
        ("SystemCallArchitectures", Variant::from(vec!["native"])),
        ("SystemCallErrorNumber", Variant::from(libc::EPERM)),
        ("SystemCallFilter", Variant::from((true, vec!["@system-service"]))),
        ("SystemCallFilter", Variant::from((false, WITHOUT.to_vec()))),
        // The bytes in memory are the payload's.
        ("LimitCORE", Variant::from(0_u64)),
    ]);
    all
}
