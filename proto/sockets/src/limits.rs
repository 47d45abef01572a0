//! Every numeric bound of the two sockets, in one place.
//!
//! Decoders, policy and tests take theirs from this file. Times that only one side knows (how long
//! a reply may be refused, how long a job may run) stand where they are used.

/// Newest version of the helper protocol that this build speaks.
pub const PROTOCOL_NEWEST: u16 = 1;
/// Oldest version that this build still speaks (N-1; equal to N in the first release).
pub const PROTOCOL_OLDEST: u16 = 1;

/// Longest packet on either socket, in bytes. The kernel would take 212,960 at default buffers.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Longest piece of a larger value in one packet, in bytes; leaves room for the frame.
pub const PART_MAX: usize = 60 * 1024;
/// Longest encoded task specification or plan, in bytes.
///
/// The kernel takes at most 2 MiB of arguments and environment at the default stack limit
/// (execve(2)); this leaves a quarter of it to what systemd-nspawn adds.
pub const SPEC_MAX: usize = 1536 * 1024;
/// Longest encoded specification of a command, in bytes: its plan adds the cgroup's path and
/// numbers, and has to be within [`SPEC_MAX`] as well.
pub const EXEC_MAX: usize = SPEC_MAX - 32 * 1024;
/// Bytes of specifications that the helper holds for all connections together, from their first
/// part to the end of their start. A start needs about four times its size for a moment; the
/// helper's unit has MemoryMax=64M.
pub const ASSEMBLY_MAX: usize = 8 * 1024 * 1024;

/// Connections served at once; one more is closed at accept.
pub const CONNECTIONS_MAX: usize = 32;
/// Tasks that the helper keeps in its table.
pub const TASKS_MAX: usize = 1024;
/// Entries in one page of a list reply.
pub const LIST_PAGE: usize = 128;

/// Variables in one task's environment.
pub const VARIABLES_MAX: usize = 4096;
/// Bytes of one variable, name, equals sign and value together (MAX_ARG_STRLEN of execve(2) is
/// 131,072 with the closing NUL).
pub const VARIABLE_MAX: usize = 128 * 1024 - 1;
/// Bytes of a variable's name.
pub const VARIABLE_NAME_MAX: usize = 255;
/// Words of a command.
pub const ARGUMENTS_MAX: usize = 4096;
/// Bytes of one word of a command (see [`VARIABLE_MAX`]).
pub const ARGUMENT_MAX: usize = 128 * 1024 - 1;

/// Bytes of one path component (NAME_MAX of the kernel).
pub const COMPONENT_MAX: usize = 255;
/// Components of a path.
pub const COMPONENTS_MAX: usize = 64;
/// Bytes of a task name.
pub const TASK_NAME_MAX: usize = 128;
/// Bytes of a machine name (HOST_NAME_MAX of the kernel).
pub const MACHINE_NAME_MAX: usize = 64;
/// Bytes of each text in a refusal.
pub const TEXT_MAX: usize = 1024;

/// Remarks of one start that are passed on, each of at most [`TEXT_MAX`] bytes.
pub const NOTES_MAX: usize = 32;

/// Width of a task's uid range: one container's worth of ids.
pub const RANGE_WIDTH: u32 = 65_536;
/// First and last base of a uid range: the interval that systemd-nspawn's `pick` uses
/// (UIDS-GIDS.md of systemd).
pub const RANGE_FIRST: u32 = 524_288;
/// See [`RANGE_FIRST`].
pub const RANGE_LAST: u32 = 1_878_982_656;

/// First of the [`RANGE_WIDTH`] uids and gids that files in /alloc and /local have on disk where
/// other local users can reach them, whichever range the task has. systemd, its containers and its
/// foreign images leave these ids alone (UIDS-GIDS.md of systemd): no account has them.
pub const DISK_FIRST: u32 = 0x7FFC_0000;

/// Longest kill time-out that a unit gets, in milliseconds: systemd's own default, because a host
/// waits for it when it goes down. The driver asks for 30 s where the job does not.
pub const KILL_TIMEOUT_MAX_MS: u64 = 90 * 1000;
/// Shortest one: the unit's clean-up runs within it (`TimeoutStopSec=` of systemd.service(5)).
pub const KILL_TIMEOUT_MIN_MS: u64 = 5 * 1000;
/// Time that the helper gives one start, in seconds, before it undoes it.
pub const START_TIMEOUT_S: u64 = 120;
/// Time that the helper gives a peer to greet it, in seconds.
pub const GREETING_TIMEOUT_S: u64 = 10;
/// Time that the helper gives a peer to finish a start whose parts it has begun, in seconds.
pub const ASSEMBLY_TIMEOUT_S: u64 = 30;
/// Largest memory limit, in bytes: 64 TiB, above what the kernel can address on any machine of
/// today.
pub const MEMORY_MAX: u64 = 1 << 46;
/// Smallest memory limit, in bytes.
pub const MEMORY_MIN: u64 = 1 << 20;
/// Range of CPUWeight= (systemd.resource-control(5)).
pub const CPU_WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;
/// Range of TasksMax= that a job may ask for (PID_MAX_LIMIT of the kernel).
pub const TASKS_LIMIT: std::ops::RangeInclusive<u64> = 1..=4_194_304;
/// Range of IOWeight= (systemd.resource-control(5)).
pub const IO_WEIGHT: std::ops::RangeInclusive<u64> = 1..=10_000;
/// How many times its CPU weight a task may have until it is ready.
pub const CPU_BOOST: std::ops::RangeInclusive<u64> = 2..=100;
/// Range of a CPU quota in microseconds a second: from the kernel's least (1 ms in a period of 100
/// ms, cpu_cfs_quota_us) to all of [`CPUS_MAX`] CPUs.
pub const CPU_QUOTA_US: std::ops::RangeInclusive<u64> = 10_000..=CPUS_MAX as u64 * 1_000_000;
/// CPUs of a host (the kernel's largest NR_CPUS).
pub const CPUS_MAX: usize = 8192;
/// Range of oom_score_adj (proc_pid_oom_score_adj(5)).
pub const OOM_SCORE: std::ops::RangeInclusive<i16> = -1000..=1000;
/// Properties of one task's unit that its job asks for by name.
pub const PROPERTIES_MAX: usize = 64;
/// Ranges of addresses that one task reaches: each is an entry of two maps of the kernel.
pub const EGRESS_MAX: usize = 128;

/// Binds, volumes, tmpfs and overlay mounts, hidden paths, devices and credentials of one task,
/// each: systemd-nspawn handles them one after another while the task starts.
pub const MOUNTS_MAX: usize = 128;
/// Components of all paths of a task's mounts, devices and credentials together: each takes many
/// times its bytes in memory, of which the helper's unit has 64 MiB.
pub const PATHS_MAX: usize = 16 * 1024;
/// Layers of one overlay mount (OVL_MAX_STACK of the kernel is 500; a start has to open each).
pub const LAYERS_MAX: usize = 32;
/// Ports of the host that lead to tasks, of all tasks together: the packet filter's table is made
/// as a whole in the helper's 64 MiB.
pub const PORTS_TOTAL_MAX: usize = 16 * 1024;
/// Tasks of one zone on a host: the daemon writes each one's name into every other's /etc/hosts, in
/// memory.
pub const ZONE_TASKS_MAX: usize = 256;
/// Length of a zone's name in bytes.
pub const ZONE_NAME_MAX: usize = 64;
/// Longest name of a network interface, in bytes (IFNAMSIZ less the NUL byte).
pub const LINK_NAME_MAX: usize = 15;
/// Longest name of a zone that systemd-nspawn makes: `vz-` goes before it.
pub const LINK_ZONE_NAME_MAX: usize = LINK_NAME_MAX - 3;
/// Longest wait for an address that comes from outside, in seconds.
pub const ADDRESS_TIMEOUT_MAX_S: u32 = 600;
/// Ports of the host that lead to one task.
pub const PORTS_MAX: usize = 128;
/// System call rules, sysctls and process limits of one task, each.
pub const RULES_MAX: usize = 256;
/// Labels of one task: systemd-journald adds each to every line that the task writes.
pub const LABELS_MAX: usize = 32;
/// Bytes of all labels of one task together, as the fields `NAME=VALUE` that they become.
pub const LABELS_BYTES_MAX: usize = 4096;
/// Bytes of one credential (CREDENTIAL_SIZE_MAX of systemd is 1 MiB; the specification has to hold
/// it with everything else).
pub const CREDENTIAL_MAX: usize = 1024 * 1024;
/// Bytes of a sysctl's, label's or SELinux context's value.
pub const VALUE_MAX: usize = 255;
/// Bytes that a task gets for one of /etc/resolv.conf, /etc/hosts and /etc/localtime.
pub const ETC_FILE_MAX: usize = 64 * 1024;
/// Longest wait for a task that is to say when it is ready, in seconds: one hour.
pub const READY_TIMEOUT_MAX_S: u32 = 3600;
/// Bytes that a task of a zone may have above the names of its members in /etc/hosts: the file lies
/// in memory of the host (/run), and each task has one.
pub const ZONE_HOSTS_MAX: usize = 128 * 1024;
/// Layers of one image: their names on the launcher's stage have to fit into the options of one
/// overlay mount, which take a page.
pub const IMAGE_LAYERS_MAX: usize = 128;
/// Bytes of an image's /etc/hosts that are taken over.
pub const HOSTS_FILE_MAX: usize = 1024 * 1024;
