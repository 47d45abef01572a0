//! When a task counts as started, what asks it to end, and its time zone.

use crate::{effects, inside, prepared, refusals, sh, stand, started};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Says which signal it gets. 37 is SIGRTMIN+3.
const TRAPS: &str = "trap 'echo usr1; exit 0' USR1; trap 'echo term; exit 0' TERM; \
                     trap 'echo int; exit 0' INT; trap 'echo poweroff; exit 0' 37; \
                     echo ready; while :; do sleep 0.05; done";

#[test]
fn key_stop_signal() {
    // The key, then Nomad's kill_signal, then what is sent.
    for (key, kill_signal, boot, seen) in [
        (json!("SIGUSR1"), "", false, "usr1"),
        (json!("usr1"), "", false, "usr1"),
        (json!("10"), "", false, "usr1"),
        (json!("SIGRTMIN+3"), "", false, "poweroff"),
        (json!("SIGUSR1"), "SIGINT", false, "int"),
        (Value::Null, "", false, "term"),
        (Value::Null, "", true, "poweroff"),
        (json!("SIGTERM"), "", true, "term"),
    ] {
        let more = match boot {
            false => json!({ "stop_signal": key }),
            true => json!({
                "stop_signal": key, "image": "init", "boot": true, "console": "pipe", "command": [],
            }),
        };
        let keys = sh(more, TRAPS);
        let prepare = format!("cat > $1/t/local/script <<'X'\n{TRAPS}\nX");
        let mut task = prepared(&prepare, &keys);
        task.wait_output("ready").unwrap();
        let outcome = task.stop(kill_signal).unwrap();
        assert!(outcome.stdout.ends_with(&format!("ready\n{seen}\n")), "{keys}: {outcome:?}");
        assert_eq!((outcome.code, outcome.signal), (0, 0), "{keys}");
    }
    // PID 1 stops the unit, as when the host shuts down: the first process of the container is the
    // payload, or a stub init that would pass nothing on.
    for process_two in [false, true] {
        let script = "trap 'sleep 1; echo usr1; exit 0' USR1; trap 'echo term' TERM; \
                      trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
        let keys = sh(json!({ "stop_signal": "SIGUSR1", "process_two": process_two }), script);
        let mut task = started(&keys);
        task.wait_output("ready").unwrap();
        stand().rig.run(&["systemctl", "stop", &task.unit()]).unwrap();
        let outcome = task.finish().unwrap();
        assert_eq!(outcome.stdout, "ready\nusr1\n", "process_two = {process_two}: {outcome:?}");
    }
    refusals(&[(
        json!({ "stop_signal": "SIGNOTHING" }),
        &["stop_signal = \"SIGNOTHING\"", "is not a signal", "SIGRTMIN+3"],
    )]);
}

#[test]
fn key_shutdown_timeout() {
    // How PID 1 stops a unit is seen with `stop_signal`.
    for (key, seen) in [(json!("5s"), "5s"), (json!("90s"), "1min 30s"), (Value::Null, "30s")] {
        let task = started(&sh(json!({ "shutdown_timeout": key }), "sleep 1000"));
        let ask = ["systemctl", "show", "-P", "TimeoutStopUSec", &task.unit()];
        assert_eq!(stand().rig.run(&ask).unwrap(), seen);
        task.stop("SIGKILL").unwrap();
    }
    refusals(&[
        (json!({ "shutdown_timeout": "4s" }), &["shutdown_timeout = 4s", "must be 5s to 90s"]),
        (json!({ "shutdown_timeout": "91s" }), &["shutdown_timeout = 91s", "must be 5s to 90s"]),
    ]);
}

#[test]
fn key_ready() {
    // As PID 1, whose word alone counts.
    let script = "exec perl -MIO::Socket::UNIX -e 'sleep 3; open my $f, \">\", \"/local/said\"; \
                  IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})\
                  ->send(\"READY=1\"); sleep 1000'";
    let keys = |ready: Value| sh(json!({ "image": "debian", "ready": ready }), script);
    let said = |allocation: &nspawn_tests::plugin::Allocation| {
        stand().rig.exists(&format!("{}/t/local/said", allocation.dir()))
    };
    for (ready, waited) in [
        (json!({ "mode": "notify", "timeout": "30s" }), true),
        (json!({ "mode": "notify" }), true),
        (json!({ "mode": "started" }), false),
        (json!({}), false),
        (Value::Null, false),
    ] {
        let task = started(&keys(ready.clone()));
        assert_eq!(said(&task.allocation), waited, "{ready}");
        task.stop("SIGKILL").unwrap();
    }
    // A booted system says it itself.
    let task = started(&json!({
        "image": "debian", "ephemeral": true, "ready": { "mode": "notify", "timeout": "1m" },
    }));
    let state = inside(&task, "systemctl is-system-running");
    assert!(["running", "degraded"].contains(&state.trim()), "{state}");
    task.stop("SIGKILL").unwrap();

    // A command in it says it; its tries are an interval apart.
    let script = "sleep 2; touch /local/said; sleep 1000";
    let tries = "echo x >> /local/tries; test -e /local/said";
    let exec = json!({
        "mode": "exec", "command": ["/bin/sh", "-c", tries], "interval": "1s", "timeout": "30s",
    });
    let task = started(&sh(json!({ "ready": exec }), script));
    assert!(said(&task.allocation));
    let tries = format!("{}/t/local/tries", task.allocation.dir());
    let count = stand().rig.read_file(&tries).unwrap().len() / 2;
    assert!((2..=6).contains(&count), "{count} tries");
    task.stop("SIGKILL").unwrap();
    let never = json!({ "mode": "exec", "command": ["false"], "timeout": "1s" });
    let refused = stand().refusal(&sh(json!({ "ready": never }), "sleep 1000")).unwrap();
    assert!(refused.recoverable && refused.text.contains("within 1s (exit code 1"), "{refused:?}");

    let begun = Instant::now();
    let silent = json!({ "ready": { "mode": "notify", "timeout": "1s" } });
    let refused = stand().refusal(&sh(silent, "sleep 1000")).unwrap();
    assert!(refused.recoverable && refused.text.contains("within 1 s"), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let ready = |ready: Value| json!({ "ready": ready });
    refusals(&[
        (
            json!({ "ready": { "mode": "network" }, "private_network": true }),
            &["ready.mode", "network excludes private_network"],
        ),
        (ready(json!({ "mode": "exec" })), &["ready.command", "needs a command"]),
        (ready(json!({ "command": ["x"] })), &["ready.command", "has no effect without mode"]),
        (ready(json!({ "interval": "1ms" })), &["ready.interval", "must be 1s to 10m"]),
        (ready(json!({ "mode": "up" })), &["ready.mode = \"up\"", "started, notify"]),
        (ready(json!({ "timeout": "2h" })), &["ready.timeout", "must be 1s to 1h"]),
        (ready(json!({ "timeout": "soon" })), &["ready.timeout = \"soon\"", "a duration like"]),
        (
            json!({ "ready": { "mode": "notify" }, "process_two": true }),
            &["ready.mode", "notify excludes process_two"],
        ),
    ]);
}

/// The image `zones` is at UTC, the host at Tokyo's time.
#[test]
fn key_timezone() {
    let script = "readlink /etc/localtime || echo no link; tail -n 1 /etc/localtime 2>/dev/null || \
                  echo none; date +%Z -d @0 2>/dev/null";
    let zone = |word: Value, more: Value| {
        let keys = crate::with(json!({ "image": "zones", "timezone": word }), more);
        (keys, script)
    };
    let image = "../usr/share/zoneinfo/UTC\nUTC0\nUTC\n";
    let link = "../usr/share/zoneinfo/Asia/Tokyo\nJST-9\nJST\n";
    let bound = "../usr/share/zoneinfo/UTC\nJST-9\nJST\n";
    let copied = "no link\nJST-9\nJST\n";
    let gone = "no link\nnone\nUTC\n";
    let read_only = || json!({ "read_only": true });
    let rows: Vec<_> = [
        (json!("off"), json!({}), image),
        (Value::Null, json!({}), image),
        (json!("copy"), json!({}), copied),
        (json!("bind"), json!({}), bound),
        (json!("symlink"), json!({}), link),
        (json!("delete"), json!({}), gone),
        (json!("auto"), json!({}), link),
        (json!("auto"), read_only(), bound),
        (json!("auto"), json!({ "volatile": "state" }), bound),
        (json!("copy"), read_only(), copied),
        (json!("delete"), read_only(), gone),
    ]
    .into_iter()
    .map(|(word, more, seen)| {
        let (keys, script) = zone(word, more);
        (keys, script, seen)
    })
    .collect();
    effects(&rows);
    let keys = json!({ "timezone": "UTC" });
    refusals(&[(keys, &["timezone = \"UTC\"", "off, copy, bind, symlink, delete, auto"])]);
}
