//! The names of the steps of a start, a removal or a command in a task: one list for refusals, logs, test hooks and documents.

/// Declares the steps with their names and the list of all of them.
macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $name:literal,)*) => {
        /// A named step, on either side of the launcher's or the worker's socket.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Step {
            $($(#[$doc])* $step,)*
        }

        impl Step {
            /// Every step, in the order in which a task meets them.
            pub const ALL: &'static [Self] = &[$(Self::$step,)*];

            /// The name in logs, refusals and hooks.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    // The daemon, at a start.
    Decide = "decide",
    Range = "range",
    Unit = "unit",
    SendPlan = "send-plan",
    // The launcher.
    ReadPlan = "read-plan",
    MountNamespace = "mount-namespace",
    NetworkNamespace = "network-namespace",
    Image = "image",
    UserNamespace = "user-namespace",
    RootFs = "root",
    MachineId = "machine-id",
    TaskDirs = "task-dirs",
    Files = "files",
    Names = "names",
    Logs = "logs",
    /// Makes the payload's cgroup, frozen, for a network that belongs to the container.
    Freeze = "freeze",
    Settings = "settings",
    // The daemon: ports and addresses in the packet filter.
    Ports = "ports",
    // Both.
    Go = "go",
    /// The launcher starts the process that connects a frozen payload.
    Doorman = "doorman",
    Exec = "exec",
    /// In `exec`, where the filters come from the cache.
    Keyring = "keyring",
    /// The same; met once for each filter.
    Filter = "filter",
    // That process.
    AwaitPayload = "await-payload",
    Connect = "connect",
    Thaw = "thaw",
    // The daemon again.
    Leader = "leader",
    Store = "store",
    Register = "register",
    // The daemon, at a removal.
    Unregister = "unregister",
    KillAll = "kill-all",
    StopUnit = "stop-unit",
    Clean = "clean",
    Forget = "forget",
    // A command in a task: the daemon.
    SessionWorker = "session-worker",
    SessionHandOver = "session-hand-over",
    // Its worker.
    SessionFilters = "session-filters",
    SessionCgroup = "session-cgroup",
    /// The copy of the worker; what follows it happens inside of the container.
    SessionEnter = "session-enter",
    /// The worker itself again.
    SessionStart = "session-start",
    SessionEnd = "session-end",
    // What makes system call filters for later starts.
    FillStage = "fill-stage",
    /// Met at each stop of systemd-nspawn.
    FillStop = "fill-stop",
    FillWrite = "fill-write",
    FillRename = "fill-rename",
}
