//! Where output goes, what is behind the console, and the journal fields of a task's lines.

use crate::*;

#[test]
fn key_console() {
    let script = "test -t 1 && echo terminal || echo stream; echo error >&2";
    let boots = |console: Value| json!({ "image": "init", "ephemeral": true, "boot": true, "console": console, "command": [] });
    for console in [json!("pipe"), json!("autopipe"), Value::Null] {
        let outcome = stand().run(&sh(json!({ "console": console }), script)).unwrap();
        let seen = (outcome.stdout.as_str(), outcome.stderr.as_str());
        assert_eq!(seen, ("stream\n", "error\n"), "{console}");
    }
    for console in ["read-only", "interactive"] {
        let keys = json!({ "console": console });
        assert_eq!(says(keys, script), "terminal\r\nerror\r\n", "{console}");
    }
    // A terminal that nobody reads.
    let outcome = stand().run(&sh(json!({ "console": "passive" }), "test -t 1 && exit 7")).unwrap();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (7, ""), "{outcome:?}");
    // Unset with boot: as read-only.
    let prepare = format!("cat > $1/t/local/script <<'X'\n{script}\nX");
    for (console, seen) in [
        (Value::Null, "terminal\r\nerror\r\n"),
        (json!("pipe"), "stream\n"),
        (json!("read-only"), "terminal\r\nerror\r\n"),
    ] {
        let outcome = prepared(&prepare, &boots(console.clone())).finish().unwrap();
        let first = outcome.stdout.find('\n').unwrap() + 1;
        assert_eq!(&outcome.stdout[first..], seen, "{console}: {outcome:?}");
    }
    refusals(&[(json!({ "console": "tty" }), &["console = \"tty\"", "interactive", "autopipe"])]);
}

/// Lines of the task's unit in the host's journal, with their priorities, in their order.
fn journal(unit: &str) -> String {
    let words = ["journalctl", "-q", "-o", "json", "-u", unit, "_TRANSPORT=stdout"];
    let text = stand().rig.run(&words).unwrap();
    let line = |line: &str| -> Option<String> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let message = entry["MESSAGE"].as_str()?.strip_prefix("says ")?;
        Some(format!("{}:{message}", entry["PRIORITY"].as_str()?))
    };
    let mut lines: Vec<_> = text.lines().filter_map(line).collect();
    lines.sort();
    lines.join(" ")
}

#[test]
fn key_logging() {
    let script = "echo says out; echo says err >&2; until [ -e /local/go ]; do sleep 0.05; done";
    for (driver, collected, journaled) in [
        (json!("nomad"), true, false),
        (json!("journald"), false, true),
        (json!("both"), true, true),
        (json!("none"), false, false),
        (Value::Null, true, false),
    ] {
        let mut task = started(&sh(json!({ "logging": { "driver": driver } }), script));
        let expected = if journaled { "3:err 6:out" } else { "" };
        wait::true_within(&format!("{driver}: {expected:?}"), SOON, || {
            Ok(journal(&task.unit()) == expected)
        })
        .unwrap();
        if collected {
            task.wait_output("says out\n").unwrap();
        }
        stand().rig.run(&["touch", &format!("{}/t/local/go", task.allocation.dir())]).unwrap();
        let unit = task.unit();
        let outcome = task.finish().unwrap();
        let seen = if collected { ("says out\n", "says err\n") } else { ("", "") };
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), seen, "{driver}");
        assert_eq!(journal(&unit), expected, "{driver}");
    }
    // Nomad's `logs { disabled = true }`: nothing is collected, and the journal gets its part.
    for (driver, expected) in [("nomad", ""), ("both", "3:err 6:out")] {
        let keys =
            sh(json!({ "logging": { "driver": driver } }), "echo says out; echo says err >&2");
        let task = stand().start(&keys, |task| {
            task.stdout_path = "/dev/null".to_owned();
            task.stderr_path = "/dev/null".to_owned();
        });
        let task = task.unwrap().unwrap();
        let unit = task.unit();
        assert_eq!(task.finish().unwrap().stdout, "", "{driver}");
        wait::true_within(driver, SOON, || Ok(journal(&unit) == expected)).unwrap();
    }
    let logging = |more: Value| json!({ "logging": more });
    refusals(&[
        (
            logging(json!({ "driver": "syslog" })),
            &["logging.driver = \"syslog\"", "nomad, journald, both, none"],
        ),
        (logging(json!({ "journal": true })), &["logging.journal", "needs boot"]),
        (logging(json!({ "priority": "loud" })), &["logging.priority = \"loud\"", "emerg"]),
        (
            with(
                logging(json!({ "journal": true, "driver": "journald" })),
                json!({ "boot": true }),
            ),
            &["logging.journal", "fills Nomad's log"],
        ),
        (
            with(logging(json!({ "journal": "x" })), json!({ "boot": true })),
            &["logging.journal = \"x\"", "true or false"],
        ),
    ]);
}

/// A booted system's own journal, at two priorities.
#[test]
fn key_logging_journal() {
    for (priority, err_stream) in [(json!("crit"), 0), (json!("warning"), 1), (Value::Null, 1)] {
        let mut task = started(&json!({
            "image": "debian", "ephemeral": true,
            "logging": { "journal": true, "priority": priority },
        }));
        wait_booted(&task);
        inside(
            &task,
            "echo says info | systemd-cat -p info; echo says err | systemd-cat -p err; \
                       echo says crit | systemd-cat -p crit",
        );
        for (stream, text) in [(0, "says info"), (err_stream, "says err"), (1, "says crit")] {
            wait::true_within(&format!("{priority}: {text}"), SOON, || {
                Ok(task.written(stream)?.contains(text))
            })
            .unwrap();
            assert!(!task.written(1 - stream).unwrap().contains(text), "{priority}: {text}");
        }
        task.stop("SIGKILL").unwrap();
    }
}

/// The journal fields of the task's lines.
pub(crate) fn fields(stand: &Stand, unit: &str) -> Value {
    let words = ["journalctl", "-q", "-o", "json", "-u", unit, "_TRANSPORT=stdout"];
    wait::until("the line in the journal", SOON, || {
        let text = stand.rig.run(&words)?;
        let line = text.lines().find(|line| line.contains("says out"));
        Ok(line.and_then(|line| serde_json::from_str(line).ok()))
    })
    .unwrap()
}

#[test]
fn key_labels() {
    let labelled = |labels: Value| {
        let keys = json!({ "labels": labels, "logging": { "driver": "journald" } });
        let task = started(&sh(keys, "echo says out"));
        let unit = task.unit();
        task.finish().unwrap();
        fields(stand(), &unit)
    };
    let fields = labelled(json!([{ "TEAM": "search", "RELEASE_2": "1.2-x" }]));
    assert_eq!((&fields["TEAM"], &fields["RELEASE_2"]), (&json!("search"), &json!("1.2-x")));
    let fields = labelled(json!([{ "TEAM": "one" }, { "TEAM": "two" }]));
    assert_eq!(fields["TEAM"], "two");
    let labels = |name: &str, value: &str| json!({ "labels": [{ name: value }] });
    refusals(&[
        (labels("team", "x"), &["labels.team", "e.g. labels"]),
        (labels("_PID", "1"), &["labels._PID"]),
        (labels("TEAM", "a\nB=c"), &["labels.TEAM"]),
    ]);
}
