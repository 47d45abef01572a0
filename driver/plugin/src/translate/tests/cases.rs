//! Jobs that break one rule each, with the problem that must be named.

use super::*;

/// Keys of a job, and a part of its refusal.
pub(super) type Case = (Vec<(&'static str, Value)>, &'static str);

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [payload(), surroundings::all()].concat()
}

/// Rules about image, root and process, those of the older driver first.
fn payload() -> Vec<Case> {
    let one = |key, value: Value, problem| (vec![(key, value)], problem);
    let command = || ("boot", Value::from(false));
    vec![
        // What the older driver checked.
        one(
            "volatile",
            "maybe".into(),
            r#"volatile = "maybe": must be one of no, yes, state, overlay"#,
        ),
        one(
            "console",
            "tty".into(),
            r#"console = "tty": must be one of read-only, interactive, passive, pipe, autopipe"#,
        ),
        one(
            "resolv_conf",
            "copy".into(),
            r#"resolv_conf = "copy": must be one of auto, off, delete, copy-host, "#,
        ),
        one(
            "private_users",
            "some".into(),
            r#"private_users = "some": must be yes, no, pick, identity, uid or uid:count (e.g. 524288:65536)"#,
        ),
        one("private_users", "1:0".into(), "the range must have 1 to 65536 ids"),
        one("private_users", "1:65537".into(), "the range must have 1 to 65536 ids"),
        one("private_users", "4294967295:2".into(), "the range ends above the largest uid"),
        one("private_users", "70000".into(), "must begin at a multiple of 65536 from 524288"),
        one(
            "private_users_ownership",
            "mine".into(),
            r#"private_users_ownership = "mine": must be one of auto, map, chown, off, foreign"#,
        ),
        one(
            "process_two",
            true.into(),
            "process_two = true: excludes boot: init must be PID 1 (set boot = false, or remove process_two)",
        ),
        (
            vec![("volatile", "no".into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": excludes volatile: the owners are rewritten on disk (write map, which changes nothing on disk)"#,
        ),
        (
            vec![("read_only", true.into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": excludes read_only"#,
        ),
        (
            vec![("image", "x.raw".into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": needs an image that is a directory"#,
        ),
        one(
            "working_directory",
            "srv".into(),
            r#"working_directory = "srv": must be an absolute path (write the path from / on, without ..)"#,
        ),
        one("pivot_root", "a".into(), r#"pivot_root = "a": must be an absolute path"#),
        one("pivot_root", "/a:b".into(), r#"pivot_root = "b": must be an absolute path"#),
        one("pivot_root", "/a:/b:/c".into(), "one or two absolute paths joined by a colon"),
        one("pivot_root", "/".into(), "/ is the root already"),
        one("pivot_root", "/a:/run/host".into(), r#"pivot_root = "/run/host": nothing is mounted"#),
        one("pivot_root", "/a:/run".into(), "the task has a mount of its own there"),
        (
            vec![("pivot_root", "/a:/b".into()), ("bind", pairs(&[("/a", "/b")]))],
            "pivot_root is mounted at the same place (leave one out)",
        ),
        one(
            "image",
            "/".into(),
            r#"image = "/": the host's own root would be changed (add ephemeral = true, or volatile = "yes" or "state")"#,
        ),
        (
            vec![("image", "/".into()), ("volatile", "overlay".into())],
            "the host's own root would be changed",
        ),
        one("image", "".into(), r#"image = "": must not be empty"#),
        one("image", "a/../b".into(), "must not hold .. components"),
        one("image", "./".into(), "the agent's own directory is not an image"),
        one("image", "a\nb".into(), "must not hold control characters"),
        one("image", "docker://x".into(), "cannot download images yet"),
        one("image", "none/here".into(), "there is no such file or directory below"),
        one("image", "a b".into(), "letters, digits and ._-+ only"),
        one(
            "image_download",
            map(&[("url", "x".into()), ("type", "zip".into())]),
            r#"image_download.type = "zip": must be one of tar, raw, docker"#,
        ),
        one(
            "image_download",
            map(&[("url", "x".into()), ("verify", "yes".into())]),
            r#"image_download.verify = "yes": must be one of no, checksum, signature"#,
        ),
        one("image_download", map(&[]), "image_download.url: is required"),
        one("port_map", pairs(&[("http", "0")]), "port_map.http = 0: must be 1 to 65535"),
        (
            vec![("port_map", pairs(&[("http", "1")])), ("ports", list(&["http"]))],
            "port_map: excludes ports (remove port_map, which is deprecated)",
        ),
        // Image and root.
        one(
            "ephemeral_mode",
            "tmpfs".into(),
            r#"ephemeral_mode = "tmpfs": has no effect without ephemeral"#,
        ),
        one("ephemeral_mode", "snapshot".into(), "must be one of auto, overlay, tmpfs"),
        one(
            "persist",
            "alloc".into(),
            "keeps the changes of an ephemeral root, which this task does not have",
        ),
        (
            vec![
                ("persist", "alloc".into()),
                ("ephemeral", true.into()),
                ("ephemeral_mode", "tmpfs".into()),
            ],
            r#"persist = "alloc": excludes ephemeral_mode = "tmpfs": memory keeps nothing"#,
        ),
        one("persist", "job".into(), "must be one of none, alloc"),
        one(
            "overlay",
            list(&["/a"]),
            r#"overlay "/a": must be at least two paths joined by colons"#,
        ),
        one("overlay", list(&["::/t"]), "the source must not be empty"),
        one("overlay_ro", list(&["/a:t"]), r#"overlay_ro "/a:t" = "t": must be an absolute path"#),
        // Process.
        one("user", "www".into(), r#"user = "www": excludes boot: init must run as root"#),
        (
            vec![command(), ("user", "-x".into())],
            r#"user = "-x": not a valid user: no leading dash"#,
        ),
        one("command", list(&["a\0"]), "command[0]: must be without NUL"),
        (vec![command(), ("command", list(&[""]))], "command: its first word is empty"),
        (
            vec![("args", list(&["a"])), ("command", list(&["b"]))],
            "args: excludes command (remove one of them)",
        ),
        one("environment", pairs(&[("a-b", "c")]), r#"environment variable "a-b": not a valid"#),
        one(
            "hostname",
            "a_b".into(),
            r#"hostname = "a_b": not a valid host name: labels of letters"#,
        ),
        one(
            "stop_signal",
            "SIGFOO".into(),
            r#"stop_signal = "SIGFOO": is not a signal (write a name like SIGTERM"#,
        ),
        one("shutdown_timeout", "2s".into(), "shutdown_timeout = 2s: must be 5s to 90s (e.g."),
        one("shutdown_timeout", "2m".into(), "shutdown_timeout = 120s: must be 5s to 90s (e.g."),
        one(
            "ready",
            map(&[("mode", "soon".into())]),
            "must be one of started, notify, network, exec",
        ),
        one(
            "ready",
            map(&[("mode", "exec".into())]),
            "ready.command: mode = \"exec\" needs a command",
        ),
        one(
            "ready",
            map(&[("command", list(&["x"]))]),
            "ready.command: has no effect without mode",
        ),
        one(
            "ready",
            map(&[("mode", "exec".into()), ("command", list(&["x", "y\0z"]))]),
            "ready.command[1]: must be without NUL",
        ),
        one(
            "ready",
            map(&[("interval", "999ms".into())]),
            "ready.interval = 999ms: must be 1s to 10m",
        ),
        one(
            "ready",
            map(&[("interval", "601s".into())]),
            "ready.interval = 601s: must be 1s to 10m",
        ),
        one("ready", map(&[("timeout", "0".into())]), "ready.timeout = 0ns: must be 1s to 1h"),
        one("ready", map(&[("timeout", "1h1ms".into())]), "must be 1s to 1h"),
        one(
            "ready",
            map(&[("timeout", "soon".into())]),
            r#"must be a duration like "30s" or "1h30m""#,
        ),
        (
            vec![
                command(),
                ("process_two", true.into()),
                ("ready", map(&[("mode", "notify".into())])),
            ],
            "ready.mode: notify excludes process_two: PID 1 must say READY=1",
        ),
        (
            vec![("private_network", true.into()), ("ready", map(&[("mode", "network".into())]))],
            "ready.mode: network excludes private_network: loopback has no address",
        ),
        one("timezone", "utc".into(), "must be one of off, copy, bind, symlink, delete, auto"),
    ]
}
