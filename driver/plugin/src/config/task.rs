//! The keys of a job's `config` block.
//!
//! Types are checked while reading, each key's own rule where it becomes part of the specification
//! ([`crate::translate`]), and what keys exclude after that (`cross_rules`). None of it guards anything:
//! it is the driver's service to people, and the helper judges every request again by its own policy.

use super::Problem;
use super::block_keys::{CredentialKeys, DeviceKeys, Download, LoggingKeys, MountKeys, ReadyKeys};
use super::field::{Numbers, Pairs};
use super::nested::{Block, Blocks};
use super::table::{Table as _, keys};
use super::value::Period;
use super::words::{
    BindMapping, ConsoleWord, EphemeralMode, NetworkSetup, OomWord, OwnershipWord, Persist,
    ResolvConf, TimezoneWord, VolatileWord, WaitForAddress,
};
use crate::msgpack;

keys! {
    /// What a job asks for.
    pub(crate) struct TaskKeys {
        // Image and root.
        /// Root file system: a name, a relative path with a slash, or an absolute path. A name is
        /// looked up in the image store, then in the plugin's directory. A relative path is looked
        /// up below the agent's working directory, then below the plugin's. The image is a
        /// directory, a file with a file system, or a block device. In the store, and where the
        /// plugin cannot look, a name that ends in `.raw` and a path below /dev are disks. The
        /// policy must allow it.
        image: String, required;
        /// Image to fetch before the start.
        image_download: Block<Download>, later;
        /// Whether entrypoint, command, environment, user and directory of an OCI image apply.
        use_image_config: Option<bool>, later;
        /// Root hash of a verity image.
        root_hash: Option<String>, later;
        /// Signature of the root hash.
        root_hash_signature: Option<String>, later;
        /// File with the verity data.
        verity_data: Option<String>, later;
        /// Whether what the task writes is removed with it. Any number of tasks share the image.
        /// `false`: the image itself is changed, by one task at a time.
        ephemeral: bool = false;
        /// Where an ephemeral task's changes are. auto and overlay: on disk. tmpfs: in memory,
        /// charged to the task. Only with ephemeral.
        ephemeral_mode: EphemeralMode = "auto";
        /// How long an ephemeral task's changes stay. none: until its run ends. alloc: from run to
        /// run, as long as the allocation. Only with ephemeral, and not in memory.
        persist: Persist = "none";
        /// Whether the root is read-only. Missing mount points are provided. Not with
        /// `private_users_ownership = "chown"`.
        read_only: bool = false;
        /// Which part of the root is in memory. yes: all but /usr, which is read-only. state: /var,
        /// the rest is read-only. overlay: all changes. no: none. Wins over read_only, which wins
        /// over ephemeral. Not with `private_users_ownership = "chown"`.
        volatile: Option<VolatileWord>;
        /// Directory of the image that becomes the root. After a colon: where the old root is then.
        pivot_root: Option<String>;
        /// Overlay mounts, as `lower:…:upper:target`. An empty upper is a directory that goes with
        /// the task. With two paths, the second is upper and target. A colon in a path is `\:`.
        overlay: Vec<String>;
        /// Read-only overlay mounts, as `lower:…:target`.
        overlay_ro: Vec<String>;

        // Process.
        /// Whether the image's init is PID 1, with `command` as its arguments. `false`: `command`
        /// is run. Unset: true.
        boot: Option<bool>;
        /// Full argument vector. Empty with `boot = false`: the image's shell.
        command: Vec<String>;
        /// Program in place of the image's.
        entrypoint: Vec<String>, later;
        /// Arguments in place of the image's.
        args: Vec<String>, later;
        /// Whether the command is PID 2 below a stub init. Not with boot.
        process_two: bool = false;
        /// User that runs the command, or `user:group`. Each is a name of the image or a number.
        /// Unset: the task's `user`, else root. Not with boot. The task's `user` has no effect
        /// inside a booted container.
        user: Option<String>;
        /// Absolute path inside in which the command starts. Unset: /; for the image's shell
        /// without a command, the user's home.
        working_directory: Option<String>;
        /// Variables, as one block, several, or `= { … }`. Nomad's own win.
        environment: Pairs;
        /// Host name, at most 64 letters, digits, inner dashes and dots (RFC 1123). Unset: the
        /// machine name.
        hostname: Option<String>;
        /// Signal that asks the payload to end, when the task has no `kill_signal`. Unset:
        /// SIGRTMIN+3 with boot, else SIGTERM.
        stop_signal: Option<String>;
        /// How long the payload has to end after that signal when the host shuts down, 5s to 90s.
        /// Nomad does not pass its `kill_timeout` to the driver in advance.
        shutdown_timeout: Period = "30s";
        /// When the task counts as started.
        ready: Block<ReadyKeys>;
        /// What happens to /etc/localtime. off and unset: the image's stays. copy, bind, symlink:
        /// the host's. delete: removed. auto: symlink, or bind where the root is read-only.
        timezone: Option<TimezoneWord>;
        /// Whether the task only fetches its image.
        prefetch: bool, later = false;

        // Files and devices.
        /// Files and directories of the host, writable: `source = "target"` or `"target:options"`.
        /// A relative source is below the task's directory. Options: rbind, norbind, noidmap,
        /// idmap, rootidmap, owneridmap (systemd 256). In the target, a colon is `\:`.
        bind: Pairs;
        /// The same as bind, read-only.
        bind_read_only: Pairs;
        /// Which owners the files of binds and volumes have inside. auto: as on disk where that is
        /// safe. none: the host's, which show as nobody. idmap: uid n inside is uid n on disk.
        /// rootidmap: root inside is the source's owner. owneridmap: the target's owner is the
        /// source's (systemd 256). On a file system that cannot be ID-mapped (NFS, CIFS, 9p, ramfs,
        /// overlay), a writable bind is refused unless this is none.
        bind_idmap: BindMapping = "auto";
        /// Mounts, in Docker's form.
        mount: Blocks<MountKeys>;
        /// File systems in memory, as `target` or `target:options`. Options: size, nr_inodes, mode,
        /// ro, rw, exec, noexec. Root inside owns them. The default mode is 1777 at /tmp, /var/tmp
        /// and /dev/shm, else 0755.
        tmpfs: Vec<String>;
        /// Absolute paths inside that are hidden; they must exist.
        inaccessible: Vec<String>;
        /// Device nodes. Devices of Nomad's device plugins need no entry.
        device: Blocks<DeviceKeys>;
        /// Credentials for PID 1 of the container.
        credential: Blocks<CredentialKeys>;

        // Isolation.
        /// Whether the task gets a user namespace of its own. `false` needs a policy that allows
        /// it; private_users and private_users_ownership then have no effect.
        user_namespacing: bool = true;
        /// Range of uids. yes and pick: one that the helper chooses. `uid` or `uid:count`: this
        /// one. identity and no: the host's own uids, where the policy allows it. managed: not yet.
        /// Unset: the plugin's `user_namespaces`.
        private_users: Option<String>;
        /// How the image's owners become those of the range. auto and map: by an ID-mapped mount.
        /// chown: rewritten on disk. off: they are in the range already. foreign: not yet.
        private_users_ownership: OwnershipWord = "auto";
        /// Capabilities beyond systemd-nspawn's own set, with or without `CAP_`, or all.
        capability: Vec<String>;
        /// Capabilities that the task does not get, or all. Wins over capability.
        cap_drop: Vec<String>;
        /// Whether set-uid files and file capabilities have no effect.
        no_new_privileges: bool = false;
        /// System calls or groups (`@name`) added to systemd-nspawn's list, or with `~` removed.
        syscall_filter: Vec<String>;
        /// Kernel settings in the task's own namespaces: kernel.shm*, kernel.msg*, kernel.sem,
        /// fs.mqueue.*, and net.* where the task has a network namespace of its own.
        sysctl: Pairs;
        /// SELinux context of the payload; refused where SELinux is off.
        selinux_context: Option<String>;

        // Network.
        /// Whether the task gets a network of its own, with addresses and a way out. `false`: the
        /// host's network, where the policy allows it. No effect in groups with a network of
        /// Nomad's (`bridge`, `cni/*`, `none`).
        network_veth: bool = true;
        /// Existing bridge of the host that the task's interface host0 is a port of, as described in
        /// "Networks of the host" below. The policy must list it.
        network_bridge: Option<String>;
        /// Interface of the host on which the task gets a macvlan interface of its own (mode
        /// bridge), in the same way. The policy must list it. The host and the task do not reach
        /// each other. Not with network_bridge or ports.
        macvlan: Option<String>;
        /// Zone: its tasks reach each other at every port, and by name, as described in "Names"
        /// below. At most 64 letters, digits and `._-`, beginning with a letter or digit, and at most 12
        /// with `network_setup = "container"`. Not with `network_veth = false`, `private_network`,
        /// network_bridge or macvlan, nor in a group with a network of Nomad's.
        network_zone: Option<String>;
        /// Whether the task gets loopback only. Not with `network_veth = false`, nor in a group
        /// with a network of Nomad's.
        private_network: bool = false;
        /// Who makes the network. helper: the helper, with an address from the first instruction
        /// on. container: systemd-nspawn, and a DHCP client of the image gets the address, as
        /// described in "Networks of the host" below; the policy must list it. auto: container
        /// with boot, else helper. Unset: the plugin's `network.default_setup`.
        network_setup: Option<NetworkSetup>;
        /// Whether a start waits for an address. auto, require, no.
        wait_for_address: WaitForAddress, later = "auto";
        /// The task's IPv4 address: one of the pool of the node's tasks that no other task has; with
        /// network_bridge or macvlan one of that network, as `ADDRESS` or `ADDRESS/BITS`, without
        /// BITS with the prefix of the host's own address there. Unset: one of the pool that follows
        /// from allocation and task; with network_bridge or macvlan none. Only in a network of the
        /// task's own, not with `network_setup = "container"`.
        ipv4_address: Option<String>;
        /// The same of IPv6, on a node with IPv6.
        ipv6_address: Option<String>;
        /// MAC address of the task's link, as `02:00:00:00:00:01`; no other task may have it. Unset:
        /// one that follows from the IPv4 address, or from the allocation. Only in a network of the
        /// task's own, not with `network_setup = "container"`.
        mac_address: Option<String>;
        /// Labels of the group's network block whose ports lead to the task, TCP and UDP, as
        /// described in "Ports" below. No effect in groups with a network of Nomad's; not with
        /// `network_veth = false` or `private_network`.
        ports: Vec<String>;
        /// The same in the older driver's form, with the port inside of each label, 1 to 65,535.
        /// Deprecated: use ports, and `to` in the network block. Not with ports.
        port_map: Numbers;
        /// What happens to /etc/resolv.conf. off: nothing. delete: removed. copy-, replace- or
        /// bind- with host, static, uplink or stub: the host's file, read at the start. copy:
        /// unless the image has a link there. replace: also in the place of a link. bind:
        /// read-only, over what a link leads to. Unset and auto: see "Names" below. The group's
        /// `dns` block wins.
        resolv_conf: Option<ResolvConf>;
        /// Lines for /etc/hosts, as `name:address`; an IPv6 address may be in brackets.
        extra_hosts: Vec<String>;

        // Resources.
        /// Whether the task gets no more of the CPU than its share of the node (`cpu` or `cores`),
        /// also while nobody else needs it.
        cpu_hard_limit: bool = false;
        /// How many times its CPU weight the task has until it is ready, for 60 s at the most:
        /// 2 to 100, and no weight above 10,000. Only with `ready.mode` notify or network.
        cpu_boost: Option<i64>;
        /// Most swap, as a size or unlimited. Unset: none, so that a task out of memory is killed
        /// and not slow. The policy has a maximum.
        memory_swap: Option<String>;
        /// Most processes and threads, 1 to 4,194,304. Unset: 16,384, or the policy's lower limit.
        pids_limit: Option<i64>;
        /// How readily the kernel kills the task when the host's memory runs out, -1000 to 1000.
        /// Below 0 needs a policy that allows it.
        oom_score_adj: i64 = 0;
        /// What ends when the task's own memory runs out. process: the process that the kernel
        /// kills. task: the whole task.
        oom: OomWord = "process";
        /// Process limits, as `name = "soft"` or `"soft:hard"`, with infinity. Names are those of
        /// getrlimit(2), such as nofile.
        ulimit: Pairs;
        /// Weight of the task's disk accesses, 1 to 10,000.
        io_weight: Option<i64>;
        /// Further limits of the task's unit (systemd.resource-control(5)). MemoryHigh: a size.
        /// IOReadBandwidthMax, IOWriteBandwidthMax, IOReadIOPSMax, IOWriteIOPSMax: `DEVICE MOST`,
        /// several with commas. The policy lists them.
        properties: Pairs;
        /// Slice of systemd that the task's unit is in, with the limits that the operator gave it.
        /// The policy must list it. Unset: machine-nspawn-share.slice, which has the CPUs that no
        /// task reserves, or with `cores` machine-nspawn.slice.
        slice: Option<String>;
        /// The only addresses that the task exchanges packets with, in both directions: deny, then
        /// addresses or `ADDRESS/BITS`. Loopback inside always works. Unset: all. See "Resources"
        /// below.
        egress: Vec<String>;

        // Logs and labels.
        /// What the payload's console is. interactive, read-only, passive, pipe, autopipe (as
        /// pipe). Unset: read-only with boot, else pipe.
        console: Option<ConsoleWord>;
        /// Where output goes.
        logging: Block<LoggingKeys>;
        /// Journal fields of the task's lines. Names: at most 64 capital letters, digits and `_`,
        /// beginning with a letter, but not with NOMAD_, NSPAWN_, MESSAGE, PRIORITY, CODE_,
        /// SYSLOG_, UNIT, USER_, COREDUMP_ or OBJECT_. Values: at most 255 letters, digits, spaces
        /// and `._:/@+,=-`, no `=` after a space. At most 32 labels and 4,096 bytes of
        /// `NAME=VALUE`, together with those of `extra_labels`.
        labels: Pairs;
    }
}

impl TaskKeys {
    /// Reads what StartTask brings; values of a wrong type are added to `problems`.
    pub(crate) fn decode(bytes: &[u8], problems: &mut Vec<Problem>) -> Self {
        let value = if bytes.is_empty() {
            msgpack::Value::Nil
        } else {
            msgpack::decode(bytes).unwrap_or_else(|e| {
                problems.push(Problem::new("config", format!("cannot be read: {e}")));
                msgpack::Value::Nil
            })
        };
        Self::read(value, "", problems)
    }

    /// Whether the image's init is started.
    pub(crate) fn boots(&self) -> bool {
        self.boot.unwrap_or(true)
    }

    /// Which part of the root is in memory, when any is.
    pub(crate) fn volatile(&self) -> Option<VolatileWord> {
        self.volatile.filter(|volatile| *volatile != VolatileWord::No)
    }
}

#[cfg(test)]
mod tests;
