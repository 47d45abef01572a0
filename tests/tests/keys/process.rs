//! The payload: what runs, as whom, where, and under which names.

use crate::{effects, inside, prepared, refusals, says, says_of, sh, stand, started, wait_booted};
use nomad_proto::drivers::TaskConfig;
use serde_json::{Value, json};

#[test]
fn key_boot() {
    // Unset is true, and `command` holds init's arguments.
    for boot in [json!(true), Value::Null] {
        let keys = json!({
            "image": "init", "ephemeral": true, "boot": boot, "console": "pipe",
            "command": ["one", "two three"],
        });
        let task = prepared("echo 'echo up' > $1/t/local/script", &keys);
        let outcome = task.finish().unwrap();
        assert_eq!(outcome.stdout, "pid 1 as 0 with one two three\nup\n", "{boot}: {outcome:?}");
    }
    assert_eq!(says(json!({ "boot": false }), "echo $$"), "1\n");
    // A real system.
    let task = started(&json!({
        "image": "debian", "ephemeral": true, "command": ["systemd.unit=multi-user.target"],
    }));
    wait_booted(&task);
    let seen = inside(&task, "cat /proc/1/comm; systemctl is-active multi-user.target");
    assert_eq!(seen, "systemd\nactive\n");
    let line = inside(&task, "tr '\\0' ' ' < /proc/1/cmdline");
    assert!(line.contains("systemd.unit=multi-user.target"), "{line}");
    task.stop("SIGKILL").unwrap();
    refusals(&[(json!({ "boot": "maybe" }), &["boot = \"maybe\"", "must be true or false"])]);
}

#[test]
fn key_command() {
    let words = |words: Value| {
        let keys = sh(json!({ "command": words }), "");
        let outcome = stand().run(&keys).unwrap();
        crate::good(&keys.to_string(), outcome)
    };
    // One word is one word, whatever it holds.
    let odd = json!(["/bin/printf", "<%s>", "a b", "$HOME", "'q\"", "", "é\n", "--", "-x", "%n"]);
    assert_eq!(words(odd), "<a b><$HOME><'q\"><><é\n><--><-x><%n>");
    // A name without a path is looked for.
    assert_eq!(words(json!(["echo", "found"])), "found\n");
    // No word at all: the image's shell, as a login shell.
    let image = json!({ "image": "shell", "command": [] });
    crate::copy("shell", "echo 'echo shell $0 in $PWD' > etc/profile");
    let outcome = stand().run(&sh(image, "")).unwrap();
    assert_eq!((outcome.stdout.as_str(), outcome.code), ("shell -sh in /root\n", 0));
    refusals(&[
        (json!({ "command": ["", "x"] }), &["command", "its first word is empty"]),
        (json!({ "command": "sh" }), &["command = \"sh\"", "must be a list of texts"]),
        (json!({ "command": ["a\0b"] }), &["command[0]", "without NUL"]),
    ]);
}

#[test]
fn key_process_two() {
    let script = "echo $$; test $(cat /proc/1/comm) = sh && echo sh";
    let code = |two| stand().run(&sh(json!({ "process_two": two }), script)).unwrap().stdout;
    assert_eq!(code(true), "2\n");
    assert_eq!(code(false), "1\nsh\n");
    refusals(&[(
        json!({ "process_two": true, "boot": true }),
        &["process_two = true", "excludes boot", "set boot = false"],
    )]);
}

#[test]
fn key_user() {
    let script = "echo $(id -un) $(id -u) $HOME $PWD";
    let seen = |keys: Value, user: &str| {
        let debian = crate::with(json!({ "image": "debian" }), keys);
        says_of(debian, script, |task| task.user = user.to_owned())
    };
    assert_eq!(seen(json!({}), ""), "root 0 /root /\n");
    assert_eq!(seen(json!({ "user": "daemon" }), ""), "daemon 1 /usr/sbin /\n");
    assert_eq!(seen(json!({}), "daemon"), "daemon 1 /usr/sbin /\n");
    // The key wins over the task's; a number does too.
    assert_eq!(seen(json!({ "user": "mail" }), "daemon"), "mail 8 /var/mail /\n");
    assert_eq!(seen(json!({ "user": "1" }), ""), "daemon 1 /usr/sbin /\n");
    assert_eq!(
        seen(json!({ "user": "daemon", "process_two": true }), ""),
        "daemon 1 /usr/sbin /\n"
    );
    // A booted task's own user owns its files, and init stays root.
    let keys = json!({ "image": "init", "ephemeral": true, "console": "pipe" });
    let change = |task: &mut TaskConfig| task.user = "daemon".to_owned();
    let allocation = crate::allocation("echo 'echo up' > $1/t/local/script");
    let task = stand().start_in(allocation, 1, &keys, change).unwrap().unwrap();
    assert_eq!(task.finish().unwrap().stdout, "pid 1 as 0 with \nup\n");
    refusals(&[
        (json!({ "user": "daemon", "boot": true }), &["user = \"daemon\"", "excludes boot"]),
        (json!({ "user": "a:b:c" }), &["user = \"a:b:c\"", "user:group"]),
    ]);
}

#[test]
fn key_working_directory() {
    let debian = |keys| crate::with(json!({ "image": "debian", "user": "mail" }), keys);
    effects(&[
        (json!({ "working_directory": "/usr/bin" }), "pwd", "/usr/bin\n"),
        (json!({ "working_directory": "/local" }), "pwd", "/local\n"),
        (json!({ "working_directory": "/home/app", "process_two": true }), "pwd", "/home/app\n"),
        (json!({}), "pwd", "/\n"),
        (debian(json!({})), "pwd", "/\n"),
        (debian(json!({ "working_directory": "/var/mail" })), "pwd", "/var/mail\n"),
    ]);
    let relative = json!({ "working_directory": "local" });
    refusals(&[(relative, &["working_directory", "\"local\"", "absolute"])]);
}

#[test]
fn key_environment() {
    let nomad = |task: &mut TaskConfig| {
        task.env.insert("NOMAD_TASK_NAME".to_owned(), "t".to_owned());
        task.env.insert("BOTH".to_owned(), "nomad".to_owned());
        task.device_env.insert("BOTH".to_owned(), "device".to_owned());
        task.device_env.insert("GPU".to_owned(), "device".to_owned());
    };
    let script = "echo $A/$B/$BOTH/$GPU/$NOMAD_TASK_NAME";
    for (environment, seen) in [
        // One block or map, several of which later ones win, none.
        (json!([{ "A": "1", "B": "2", "BOTH": "job" }]), "1/2/nomad/device/t\n"),
        (json!([{ "A": "1", "B": "2" }, { "B": "3", "GPU": "job" }]), "1/3/nomad/device/t\n"),
        (json!({ "A": "map", "NOMAD_TASK_NAME": "other" }), "map//nomad/device/t\n"),
        // Scalars are texts.
        (json!([{ "A": 5, "B": true }]), "5/true/nomad/device/t\n"),
        (json!([]), "//nomad/device/t\n"),
    ] {
        let keys = json!({ "environment": environment });
        assert_eq!(says_of(keys, script, nomad), seen, "{environment}");
    }
    let odd = "two\nlines\t\"'$HOME\\ é\u{7f} =";
    assert_eq!(says(json!({ "environment": [{ "ODD": odd }] }), "printf %s \"$ODD\""), odd);
    refusals(&[
        (json!({ "environment": [{ "a-b": "x" }] }), &["variable \"a-b\"", "rename it"]),
        (json!({ "environment": [{ "A": "x\0" }] }), &["variable \"A\"", "NUL"]),
        (json!({ "environment": "A=1" }), &["environment", "must be a block of names and texts"]),
    ]);
}

#[test]
fn key_hostname() {
    let name = json!({ "hostname": "web-1.example" });
    effects(&[(name, "hostname; cat /proc/sys/kernel/hostname", "web-1.example\nweb-1.example\n")]);
    // Unset: the machine's, made of task and allocation.
    let allocation = crate::allocation("true");
    let expected = format!("t-{}\n", allocation.id);
    let task = stand().start_in(allocation, 1, &sh(json!({}), "hostname"), |_| {});
    assert_eq!(task.unwrap().unwrap().finish().unwrap().stdout, expected);
    refusals(&[
        (json!({ "hostname": "a_b" }), &["hostname = \"a_b\"", "e.g. web-1"]),
        (json!({ "hostname": "-a" }), &["hostname = \"-a\""]),
        (json!({ "hostname": "x".repeat(65) }), &["hostname", "64"]),
    ]);
}
