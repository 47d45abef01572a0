//! The words that keys of jobs and of the plugin may have as values.
//!
//! A value that is not one of a key's words is a problem of the job; its text lists the words.

/// Declares a key's type whose values are words; the first is the default.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the words say it")]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                let [first, ..] = [$(Self::$variant),+];
                first
            }
        }

        impl $crate::config::field::Field for $name {
            fn kind() -> String {
                "string".to_owned()
            }

            fn read(
                value: $crate::msgpack::Value,
                key: &str,
                problems: &mut Vec<$crate::config::Problem>,
            ) -> Option<Self> {
                $crate::config::field::plain(value, key, problems, |value| {
                    let text = $crate::config::field::text(value).unwrap_or_default();
                    Self::ALL.iter().copied().find(|v| v.word() == text).ok_or_else(|| {
                        format!("must be one of {}", [$($text),+].join(", "))
                    })
                })
            }

            fn show(&self) -> Option<String> {
                Some(format!("{:?}", self.word()))
            }
        }
    };
}

words! {
    /// Which part of the root is in memory.
    VolatileWord { No = "no", Yes = "yes", State = "state", Overlay = "overlay" }
}

words! {
    /// Where an ephemeral root's changes are.
    EphemeralMode { Auto = "auto", Overlay = "overlay", Tmpfs = "tmpfs" }
}

words! {
    /// How long an ephemeral root's changes stay.
    Persist { None = "none", Alloc = "alloc" }
}

words! {
    /// How an image's owners become those of the task's range.
    OwnershipWord {
        Auto = "auto", Map = "map", Chown = "chown", Off = "off", Foreign = "foreign",
    }
}

words! {
    /// What the payload's console is connected to.
    ConsoleWord {
        ReadOnly = "read-only", Interactive = "interactive", Passive = "passive", Pipe = "pipe",
        Autopipe = "autopipe",
    }
}

words! {
    /// Which owners the files of binds and volumes have inside.
    BindMapping {
        Auto = "auto", None = "none", Idmap = "idmap", Rootidmap = "rootidmap",
        Owneridmap = "owneridmap",
    }
}

words! {
    /// What ends when a task's own memory runs out.
    OomWord { Process = "process", Task = "task" }
}

words! {
    /// What becomes of /etc/localtime.
    TimezoneWord {
        Off = "off", Copy = "copy", Bind = "bind", Symlink = "symlink", Delete = "delete",
        Auto = "auto",
    }
}

words! {
    /// What becomes of /etc/resolv.conf.
    ResolvConf {
        Auto = "auto", Off = "off", Delete = "delete",
        CopyHost = "copy-host", CopyStatic = "copy-static", CopyUplink = "copy-uplink",
        CopyStub = "copy-stub", ReplaceHost = "replace-host", ReplaceStatic = "replace-static",
        ReplaceUplink = "replace-uplink", ReplaceStub = "replace-stub", BindHost = "bind-host",
        BindStatic = "bind-static", BindUplink = "bind-uplink", BindStub = "bind-stub",
    }
}

words! {
    /// When a task counts as started.
    ReadyMode { Started = "started", Notify = "notify", Network = "network", Exec = "exec" }
}

words! {
    /// Who gives the task its address.
    NetworkSetup { Helper = "helper", Container = "container", Auto = "auto" }
}

words! {
    /// Whether a start waits for an address.
    WaitForAddress { Auto = "auto", Require = "require", No = "no" }
}

words! {
    /// What is downloaded.
    DownloadType { Tar = "tar", Raw = "raw", Docker = "docker", Oci = "oci", Archive = "archive" }
}

words! {
    /// How a download is checked.
    Verify { No = "no", Checksum = "checksum", Signature = "signature" }
}

words! {
    /// When a downloaded image may go.
    Retain { Cache = "cache", Task = "task", Always = "always" }
}

words! {
    /// What a `mount` block mounts.
    MountType { Bind = "bind", Tmpfs = "tmpfs", Overlay = "overlay" }
}

words! {
    /// Which later mounts of the host show up inside.
    Propagation {
        Private = "private", HostToTask = "host-to-task", Bidirectional = "bidirectional",
    }
}

words! {
    /// Priority of a line (syslog(3)).
    Priority {
        Err = "err", Emerg = "emerg", Alert = "alert", Crit = "crit", Warning = "warning",
        Notice = "notice", Info = "info", Debug = "debug",
    }
}

words! {
    /// Default user namespace of tasks.
    UserNamespaces { Pick = "pick", Identity = "identity", Managed = "managed" }
}

words! {
    /// Where output goes.
    LogDriver { Nomad = "nomad", Journald = "journald", Both = "both", None = "none" }
}

impl Priority {
    /// The number in syslog(3).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Emerg => 0,
            Self::Alert => 1,
            Self::Crit => 2,
            Self::Err => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}
