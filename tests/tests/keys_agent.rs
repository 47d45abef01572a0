//! Keys once more through a real agent, as HCL jobs: what Nomad's own parser and schema make of them,
//! in block and in attribute spelling. Every value is tried in `keys`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

use nspawn_tests::host::{Config, Rig};
use nspawn_tests::job::{Alloc, Job};
use std::sync::OnceLock;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
        rig.set_policy("preset = \"compat\"\n").unwrap();
        // The host's root is an overlay, which no kernel can ID-map.
        rig.sh("set -e; mkdir -p /opt/nomad/srv; \
                mount --bind /opt/nomad/srv /srv; mkdir -m 0700 /srv/closed; cd /srv/closed; \
                mkdir one two; echo one > one/file; echo two > two/file; chown 1000:1000 two; \
                mkdir /opt/nomad/plugins/images; cd /var/lib/machines; \
                cp -a busybox /opt/nomad/plugins/images/deep; \
                cp -a busybox init; rm init/usr/bin/init; \
                printf '#!/bin/sh\\necho init $*\\n' > init/usr/bin/init; chmod 755 init/usr/bin/init")
            .unwrap();
        rig
    })
}

/// A text as HCL writes it.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${").replace("%{", "%%{");
    serde_json::to_string(&text).unwrap()
}

/// Name, keys of the `config` block, what the shell does, what it writes.
type Case = (&'static str, &'static str, &'static str, &'static str);

const PAIRS: &[Case] = &[
    ("env-block", "environment {\n FOO = \"bar\"\n }", "echo $FOO", "bar\n"),
    (
        "env-blocks",
        "environment {\n A = \"1\"\n B = \"2\"\n }\n environment {\n B = \"3\"\n }",
        "echo $A $B",
        "1 3\n",
    ),
    (
        "env-map",
        "environment = { FOO = \"bar\", NOMAD_TASK_NAME = \"other\" }",
        "echo $FOO $NOMAD_TASK_NAME",
        "bar env-map\n",
    ),
    ("env-number", "environment = { FOO = 5 }", "echo $FOO", "5\n"),
    ("bind-block", "bind {\n local = \"/data\"\n }", "echo x > /data/f; cat /local/f", "x\n"),
    ("bind-map", "bind = { \"/srv/closed/one\" = \"/data\" }", "cat /data/file", "one\n"),
    (
        "bind-option",
        "bind = { \"/srv/closed/two\" = \"/data:rootidmap\" }",
        "stat -c %u /data",
        "0\n",
    ),
    (
        "bind-idmap",
        "bind_idmap = \"none\"\n bind = { \"/srv/closed/two\" = \"/data\" }",
        "stat -c %u /data",
        "65534\n",
    ),
    (
        "ro-block",
        "bind_read_only {\n local = \"/data\"\n }",
        "(echo x > /data/f) 2>/dev/null || echo no",
        "no\n",
    ),
    (
        "ro-map",
        "bind_read_only = { \"/srv/closed/one\" = \"/data\" }",
        "cat /data/file; (echo x > /data/f) 2>/dev/null || echo no",
        "one\nno\n",
    ),
    ("ulimit-block", "ulimit {\n nofile = \"100\"\n }", "ulimit -n", "100\n"),
    ("ulimit-map", "ulimit = { nofile = \"50:60\" }", "ulimit -n; ulimit -Hn", "50\n60\n"),
    (
        "sysctl-map",
        "sysctl = { \"net.core.somaxconn\" = \"321\" }",
        "cat /proc/sys/net/core/somaxconn",
        "321\n",
    ),
    ("labels-block", "labels {\n TEAM = \"search\"\n }", "echo runs", "runs\n"),
];

const FILES: &[Case] = &[
    (
        "mount-blocks",
        "mount {\n type = \"tmpfs\"\n target = \"/a\"\n }\n \
         mount {\n source = \"/srv/closed/one\"\n target = \"/b\"\n readonly = true\n }",
        "stat -f -c %T /a; cat /b/file; (echo x > /b/f) 2>/dev/null || echo no",
        "tmpfs\none\nno\n",
    ),
    (
        "mount-list",
        "mount = [{ type = \"tmpfs\", target = \"/a\", options = [\"size=1m\"] }]",
        "grep ' /a ' /proc/mounts | grep -c size=1024k",
        "1\n",
    ),
    ("tmpfs", "tmpfs = [\"/m:mode=1777\"]", "stat -c %a /m", "1777\n"),
    (
        "overlay",
        "overlay = [\"/srv/closed/one:/srv/closed/two::/o\"]",
        "cat /o/file; echo x > /o/file",
        "two\n",
    ),
    ("hidden", "inaccessible = [\"/home\"]", "stat -c %a /home", "0\n"),
    (
        "device-block",
        "device {\n host_path = \"/dev/zero\"\n container_path = \"/dev/own\"\n }",
        "head -c 2 /dev/own | wc -c",
        "2\n",
    ),
    (
        "device-list",
        "device = [{ host_path = \"/dev/zero\", container_path = \"/dev/own\", permissions = \"r\" }]",
        "stat -c %a /dev/own",
        "444\n",
    ),
    (
        "cred-block",
        "credential {\n name = \"key\"\n value = \"secret\"\n }",
        "cat $CREDENTIALS_DIRECTORY/key",
        "secret",
    ),
    (
        "cred-file",
        "credential {\n name = \"key\"\n source = \"${NOMAD_SECRETS_DIR}/key\"\n }",
        "cat $CREDENTIALS_DIRECTORY/key",
        "of a template",
    ),
    (
        "read-only",
        "ephemeral = false\n read_only = true",
        "touch /x 2>/dev/null || echo no",
        "no\n",
    ),
    ("volatile", "ephemeral = false\n volatile = \"state\"", "stat -f -c %T /var", "tmpfs\n"),
    ("in-memory", "ephemeral_mode = \"tmpfs\"", "echo x > /x; cat /x", "x\n"),
    ("by-path", "image = \"/var/lib/machines/busybox\"", "echo runs", "runs\n"),
    ("relative", "image = \"images/deep\"", "echo runs", "runs\n"),
];

const CONFINED: &[Case] = &[
    (
        "capability",
        "capability = [\"CAP_SYS_TIME\"]",
        "echo $((0x$(sed -n 's/CapBnd:.//p' /proc/self/status) >> 25 & 1))",
        "1\n",
    ),
    (
        "cap-drop",
        "cap_drop = [\"all\"]",
        "grep -c CapBnd:.0000000000000000 /proc/self/status",
        "1\n",
    ),
    ("no-new", "no_new_privileges = true", "grep -c NoNewPrivs:.1 /proc/self/status", "1\n"),
    (
        "syscalls",
        "syscall_filter = [\"~@mount\"]",
        "mount -t tmpfs x /mnt 2>/dev/null || echo no",
        "no\n",
    ),
    ("hostname", "hostname = \"web-1\"", "hostname", "web-1\n"),
    ("directory", "working_directory = \"/usr/bin\"", "pwd", "/usr/bin\n"),
    ("user", "image = \"debian\"\n user = \"daemon\"", "id -un", "daemon\n"),
    ("two", "process_two = true", "echo $$", "2\n"),
    (
        "host-users",
        "user_namespacing = false",
        "echo $(cat /proc/self/uid_map)",
        "0 0 4294967295\n",
    ),
    ("identity", "private_users = \"identity\"", "echo $(cat /proc/self/uid_map)", "0 0 65536\n"),
    (
        "fixed",
        "private_users = \"1342177280\"",
        "echo $(cat /proc/self/uid_map)",
        "0 1342177280 65536\n",
    ),
    ("veth", "network_veth = true", "ls /sys/class/net", "host0\nlo\n"),
    ("private", "private_network = true", "ls /sys/class/net", "lo\n"),
    ("resolv", "resolv_conf = \"delete\"", "test -e /etc/resolv.conf || echo none", "none\n"),
    ("hosts", "extra_hosts = [\"db:192.0.2.7\"]", "tail -n 1 /etc/hosts", "192.0.2.7 db\n"),
    ("zone", "timezone = \"delete\"", "test -e /etc/localtime || echo none", "none\n"),
    ("pids", "pids_limit = 50", "echo runs", "runs\n"),
    ("console", "console = \"read-only\"", "test -t 1 && echo terminal", "terminal\r\n"),
    ("log-block", "logging {\n driver = \"both\"\n }", "echo both", "both\n"),
    ("log-map", "logging = { driver = \"nomad\" }", "echo nomad", "nomad\n"),
    ("ready", "ready {\n mode = \"started\"\n timeout = \"30s\"\n }", "echo runs", "runs\n"),
];

/// One task in HCL; `keys` win over the usual ones.
fn task((name, keys, script, _): &Case) -> String {
    let mut config = keys.to_string();
    let sets = |key: &str| keys.lines().any(|line| line.trim().starts_with(&format!("{key} =")));
    for (key, value) in [("image", "\"busybox\""), ("boot", "false"), ("ephemeral", "true")] {
        if !sets(key) {
            config.push_str(&format!("\n{key} = {value}"));
        }
    }
    format!(
        "task {name:?} {{\n driver = \"nspawn\"\n config {{\n {config}\n \
         command = [\"/bin/sh\", \"-c\", {}]\n }}\n \
         template {{\n destination = \"secrets/key\"\n data = \"of a template\"\n }}\n \
         resources {{\n cpu = 10\n memory = 16\n }}\n }}\n",
        quoted(script)
    )
}

fn run(name: &str, tasks: &str) -> (Job, Alloc) {
    let job = format!(
        "job {name:?} {{\n type = \"batch\"\n group \"g\" {{\n \
         restart {{\n attempts = 0\n mode = \"fail\"\n }}\n \
         reschedule {{\n attempts = 0\n unlimited = false\n }}\n \
         ephemeral_disk {{\n size = 200\n }}\n {tasks}\n }}\n }}\n"
    );
    let job = rig().run_job(&job).unwrap_or_else(|error| panic!("{error:#}\n{job}"));
    let alloc = job.alloc().unwrap();
    (job, alloc)
}

fn text(alloc: &Alloc, task: &str, stream: &str) -> String {
    String::from_utf8_lossy(&alloc.logs(task, stream).unwrap_or_default()).into_owned()
}

fn check(name: &str, cases: &[Case]) {
    let tasks: String = cases.iter().map(task).collect();
    // Twenty log collectors of two streams each keep small logs.
    let tasks = tasks
        .replace("resources {", "logs {\n max_files = 1\n max_file_size = 1\n }\n resources {");
    let (job, alloc) = run(name, &tasks);
    alloc.wait_done(LIMIT).unwrap();
    for (task, keys, _, expected) in cases {
        let state = alloc.task(task).unwrap();
        let told = || format!("{keys}: {:?} {}", state.events(), text(&alloc, task, "stderr"));
        assert_eq!(state.exit(), Some((0, 0)), "{}", told());
        let enough = |bytes: &[u8]| bytes.len() >= expected.len();
        let seen = alloc.wait_logs(task, "stdout", LIMIT, enough);
        let seen = seen.unwrap_or_else(|error| panic!("{error:#}: {}", told()));
        assert_eq!(String::from_utf8_lossy(&seen), *expected, "{}", told());
    }
    job.purge().unwrap();
}

#[test]
fn names_with_values_in_both_spellings() {
    check("pairs", PAIRS);
}

#[test]
fn files_and_roots() {
    check("files", FILES);
}

#[test]
fn process_isolation_and_names() {
    check("confined", CONFINED);
}

/// Unset keys boot the image, and `command` holds its init's arguments.
#[test]
fn a_system_is_booted_with_its_arguments() {
    let task = "task \"t\" {\n driver = \"nspawn\"\n config {\n image = \"init\"\n \
                ephemeral = true\n console = \"pipe\"\n command = [\"one\", \"two\"]\n }\n \
                resources {\n cpu = 10\n memory = 16\n }\n }\n";
    let (job, alloc) = run("init", task);
    alloc.wait_done(LIMIT).unwrap();
    let seen = alloc.wait_logs("t", "stdout", LIMIT, |bytes| bytes.ends_with(b"\n")).unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), "init one two\n");
    job.purge().unwrap();
}

/// Every problem in the task's events, each with its key.
#[test]
fn what_is_wrong_is_told_in_the_tasks_events() {
    let task = task(&(
        "t",
        "volatile = \"maybe\"\n port_map {\n http = 80\n }\n ready {\n mode = \"exec\"\n }\n \
         ulimit = { files = \"1\" }",
        "true",
        "",
    ));
    // A log collector waits for a writer that never comes.
    let task = task.replace("resources {", "logs {\n disabled = true\n }\n resources {");
    let (job, alloc) = run("wrong", &task);
    assert_eq!(alloc.wait_done(LIMIT).unwrap(), "failed");
    let text = alloc.wait_event("t", "Driver Failure", LIMIT).unwrap().message;
    for part in ["volatile = \"maybe\"", "port_map", "ready.command", "ulimit.files"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    job.purge().unwrap();
}
