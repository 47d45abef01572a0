//! A policy file as the oracle sees it: which keys are given, its text, and what holds with them.

/// Which defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// Little is allowed.
    #[default]
    Strict,
    /// What the older driver allowed.
    Compat,
}

/// One entry of `images.paths`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImagePath {
    /// The directory.
    pub path: String,
    /// Whether images below may be written to.
    pub writable: bool,
    /// Whether the file gives it as a table; a text means not writable.
    pub table: bool,
}

/// The keys of one policy file; `None`: not given.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "named as the keys are")]
pub struct File {
    pub preset: Option<Preset>,
    pub images_store: Option<String>,
    pub images_paths: Option<Vec<ImagePath>>,
    pub alloc_dirs: Option<Vec<String>>,
    pub userns_require: Option<bool>,
    pub userns_except: Option<Vec<String>>,
    pub binds_read_only: Option<Vec<String>>,
    pub binds_read_write: Option<Vec<String>>,
    pub binds_deny: Option<Vec<String>>,
    pub binds_unmapped: Option<bool>,
    pub devices_allow: Option<Vec<String>>,
    pub caps_allow: Option<Vec<String>>,
    pub network_allow: Option<Vec<String>>,
    pub netns_paths: Option<Vec<String>>,
    pub network_zones: Option<Vec<String>>,
    /// First and last port of each entry.
    pub network_ports: Option<Vec<(u16, u16)>>,
    pub container_admin: Option<bool>,
    /// The number of bytes, and the text when it is given as a text with a suffix.
    pub limits_memory: Option<(u64, Option<String>)>,
    pub limits_tasks: Option<u64>,
    pub limits_ulimit: Option<Vec<(String, u64)>>,
    /// The largest number: `unlimited`.
    pub limits_swap: Option<u64>,
    pub limits_oom_score: Option<i16>,
    pub properties_allow: Option<Vec<String>>,
    pub systemd_slices: Option<Vec<String>>,
    pub network_egress: Option<Vec<(String, u8)>>,
    pub exec_allow: Option<bool>,
    pub exec_max_sessions: Option<u64>,
    pub syscalls_allow_extra: Option<Vec<String>>,
    pub sysctl_allow: Option<Vec<String>>,
    pub lsm_profiles: Option<Vec<String>>,
}

/// What holds: the preset's defaults with the file's keys over them.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "named as the keys are")]
pub struct Settings {
    pub preset: Preset,
    pub images_store: String,
    pub images_paths: Vec<ImagePath>,
    pub alloc_dirs: Vec<String>,
    pub userns_require: bool,
    pub userns_except: Vec<String>,
    pub binds_read_only: Vec<String>,
    pub binds_read_write: Vec<String>,
    pub binds_deny: Vec<String>,
    pub binds_unmapped: bool,
    pub devices_allow: Vec<String>,
    pub caps_allow: Vec<String>,
    pub network_allow: Vec<String>,
    pub netns_paths: Vec<String>,
    pub network_zones: Vec<String>,
    pub network_ports: Vec<(u16, u16)>,
    pub container_admin: bool,
    pub limits_memory: Option<u64>,
    pub limits_tasks: Option<u64>,
    pub limits_ulimit: Vec<(String, u64)>,
    pub limits_swap: u64,
    pub limits_oom_score: i16,
    pub properties_allow: Vec<String>,
    pub systemd_slices: Vec<String>,
    pub network_egress: Option<Vec<(String, u8)>>,
    pub exec_allow: bool,
    pub syscalls_allow_extra: Vec<String>,
    pub sysctl_allow: Vec<String>,
    pub lsm_profiles: Vec<String>,
}

/// The default capability list of Nomad's docker driver.
const NOMAD_CAPS: [&str; 14] = [
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "mknod",
    "net_bind_service",
    "net_raw",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
];

/// Properties of a unit that have no key of their own.
pub(super) const PROPERTIES: [&str; 5] =
    ["MemoryHigh", "IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"];

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

impl Settings {
    /// The defaults of a preset.
    #[must_use]
    pub fn of(preset: Preset) -> Self {
        let compat = preset == Preset::Compat;
        let any = |yes: &[&str]| if compat { texts(yes) } else { Vec::new() };
        let images = if compat { "/" } else { "/var/lib/machines" };
        let mut network = texts(&["private", "veth", "zone", "group"]);
        network.extend(any(&["host", "bridge:*", "none", "container"]));
        Self {
            preset,
            images_store: "/var/lib/machines".to_owned(),
            images_paths: vec![ImagePath { path: images.to_owned(), writable: true, table: true }],
            alloc_dirs: texts(&["/var/lib/nomad/alloc", "/opt/nomad/data/alloc"]),
            userns_require: !compat,
            userns_except: Vec::new(),
            binds_read_only: Vec::new(),
            binds_read_write: any(&["/"]),
            binds_deny: Vec::new(),
            binds_unmapped: compat,
            devices_allow: any(&["/dev/**:rwm"]),
            caps_allow: if compat { texts(&["all"]) } else { texts(&NOMAD_CAPS) },
            network_allow: network,
            netns_paths: texts(&["/run/netns", "/var/run/netns"]),
            network_zones: texts(&["*"]),
            network_ports: vec![(if compat { 1 } else { 1024 }, 65_535)],
            container_admin: true,
            limits_memory: None,
            limits_tasks: None,
            limits_ulimit: Vec::new(),
            limits_swap: if compat { u64::MAX } else { 0 },
            limits_oom_score: 0,
            properties_allow: texts(&PROPERTIES),
            systemd_slices: Vec::new(),
            network_egress: None,
            exec_allow: true,
            syscalls_allow_extra: any(&["*"]),
            sysctl_allow: texts(&[
                "net.*",
                "kernel.shm*",
                "kernel.msg*",
                "kernel.sem",
                "fs.mqueue.*",
            ]),
            lsm_profiles: any(&["*"]),
        }
    }
}

impl File {
    /// What holds with this file.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let base = Settings::of(self.preset.unwrap_or_default());
        let or = |given: &Option<Vec<String>>, base: Vec<String>| given.clone().unwrap_or(base);
        Settings {
            preset: base.preset,
            images_store: self.images_store.clone().unwrap_or(base.images_store),
            images_paths: self.images_paths.clone().unwrap_or(base.images_paths),
            alloc_dirs: or(&self.alloc_dirs, base.alloc_dirs),
            userns_require: self.userns_require.unwrap_or(base.userns_require),
            userns_except: or(&self.userns_except, base.userns_except),
            binds_read_only: or(&self.binds_read_only, base.binds_read_only),
            binds_read_write: or(&self.binds_read_write, base.binds_read_write),
            binds_deny: or(&self.binds_deny, base.binds_deny),
            binds_unmapped: self.binds_unmapped.unwrap_or(base.binds_unmapped),
            devices_allow: or(&self.devices_allow, base.devices_allow),
            caps_allow: or(&self.caps_allow, base.caps_allow),
            network_allow: or(&self.network_allow, base.network_allow),
            netns_paths: or(&self.netns_paths, base.netns_paths),
            network_zones: or(&self.network_zones, base.network_zones),
            network_ports: self.network_ports.clone().unwrap_or(base.network_ports),
            container_admin: self.container_admin.unwrap_or(base.container_admin),
            limits_memory: self.limits_memory.as_ref().map(|(bytes, _)| *bytes),
            limits_tasks: self.limits_tasks,
            limits_ulimit: self.limits_ulimit.clone().unwrap_or_default(),
            limits_swap: self.limits_swap.unwrap_or(base.limits_swap),
            limits_oom_score: self.limits_oom_score.unwrap_or(base.limits_oom_score),
            properties_allow: or(&self.properties_allow, base.properties_allow),
            systemd_slices: or(&self.systemd_slices, base.systemd_slices),
            network_egress: self.network_egress.clone(),
            exec_allow: self.exec_allow.unwrap_or(base.exec_allow),
            syscalls_allow_extra: or(&self.syscalls_allow_extra, base.syscalls_allow_extra),
            sysctl_allow: or(&self.sysctl_allow, base.sysctl_allow),
            lsm_profiles: or(&self.lsm_profiles, base.lsm_profiles),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        if let Some(preset) = self.preset {
            let word = if preset == Preset::Compat { "compat" } else { "strict" };
            out.push_str(&format!("preset = \"{word}\"\n"));
        }
        let images = self.images_paths.as_ref().map(|all| array(all, image_path));
        table(&mut out, "images", &[("store", quoted(&self.images_store)), ("paths", images)]);
        table(&mut out, "nomad", &[("alloc_dirs", list(&self.alloc_dirs))]);
        let require = self.userns_require.map(|on| on.to_string());
        table(&mut out, "userns", &[("require", require), ("except", list(&self.userns_except))]);
        let unmapped = self.binds_unmapped.map(|on| if on { "\"unmapped\"" } else { "\"refuse\"" });
        table(
            &mut out,
            "binds",
            &[
                ("read_only", list(&self.binds_read_only)),
                ("read_write", list(&self.binds_read_write)),
                ("deny", list(&self.binds_deny)),
                ("unprotected", unmapped.map(str::to_owned)),
            ],
        );
        table(&mut out, "devices", &[("allow", list(&self.devices_allow))]);
        table(&mut out, "caps", &[("allow", list(&self.caps_allow))]);
        table(
            &mut out,
            "network",
            &[
                ("allow", list(&self.network_allow)),
                ("netns_paths", list(&self.netns_paths)),
                ("zones", list(&self.network_zones)),
                ("ports", self.network_ports.as_ref().map(|all| array(all, ports))),
                ("container_admin", self.container_admin.map(|on| on.to_string())),
                ("egress", self.network_egress.as_ref().map(|all| array(all, egress))),
            ],
        );
        let memory = self.limits_memory.as_ref().map(|(bytes, text)| {
            text.as_ref().map_or_else(|| bytes.to_string(), |text| format!("\"{text}\""))
        });
        let tasks = self.limits_tasks.map(|n| n.to_string());
        let ulimit = self.limits_ulimit.as_ref().map(|all| {
            let members = all.iter().map(|(name, most)| format!("{name} = {most}"));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        });
        let swap = self.limits_swap.map(|bytes| match bytes {
            u64::MAX => "\"unlimited\"".to_owned(),
            bytes => bytes.to_string(),
        });
        let score = self.limits_oom_score.map(|score| score.to_string());
        table(
            &mut out,
            "limits",
            &[
                ("memory", memory),
                ("tasks", tasks),
                ("ulimit", ulimit),
                ("swap", swap),
                ("oom_score_adj", score),
            ],
        );
        table(&mut out, "properties", &[("allow", list(&self.properties_allow))]);
        table(&mut out, "systemd", &[("slices", list(&self.systemd_slices))]);
        let allow = self.exec_allow.map(|on| on.to_string());
        let sessions = self.exec_max_sessions.map(|n| n.to_string());
        table(&mut out, "exec", &[("allow", allow), ("max_sessions", sessions)]);
        table(&mut out, "syscalls", &[("allow_extra", list(&self.syscalls_allow_extra))]);
        table(&mut out, "sysctl", &[("allow", list(&self.sysctl_allow))]);
        table(&mut out, "lsm", &[("profiles", list(&self.lsm_profiles))]);
        out
    }
}

fn image_path(entry: &ImagePath) -> String {
    if entry.table {
        format!("{{ path = \"{}\", writable = {} }}", entry.path, entry.writable)
    } else {
        format!("\"{}\"", entry.path)
    }
}

fn ports((low, high): &(u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("\"{low}-{high}\"") }
}

fn egress((address, bits): &(String, u8)) -> String {
    format!("\"{address}/{bits}\"")
}

fn array<T>(of: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", of.iter().map(show).collect::<Vec<_>>().join(", "))
}

fn list(of: &Option<Vec<String>>) -> Option<String> {
    of.as_ref().map(|all| array(all, |text| format!("\"{text}\"")))
}

fn quoted(text: &Option<String>) -> Option<String> {
    text.as_ref().map(|text| format!("\"{text}\""))
}

fn table(out: &mut String, name: &str, keys: &[(&str, Option<String>)]) {
    if keys.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    out.push_str(&format!("[{name}]\n"));
    for (key, value) in keys {
        if let Some(value) = value {
            out.push_str(&format!("{key} = {value}\n"));
        }
    }
}
