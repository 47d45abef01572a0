//! Streams, users, ends: what a session does for whoever asks for it.

use super::*;
use proto::error::Code;
use proto::exec::TerminalSize;
use proto::limits;
use proto::name::VariableName;
use proto::path::Absolute;
use proto::secret::Secret;
use proto::task_spec::Variable;
use proto::task_spec::process::User;

const TASK: (Kind, Users) = (Kind::Command, Users::Pick);

#[test]
fn a_command_runs_in_every_kind_of_task() {
    let (_guard, rig, client) = host();
    for kind in KINDS {
        let task = start(rig, &client, kind, |_| {});
        let ran = run(&client, &task, &["sh", "-c", "echo out $A; echo err >&2; exit 7"]);
        let expected =
            Executed { stdout: "out b c\n".to_owned(), stderr: "err\n".to_owned(), code: 7 };
        assert_eq!(ran, expected, "{kind:?}");
        let gone = run(&client, &task, &["sh", "-c", "kill -TERM $$"]);
        assert_eq!(gone.code, 128 + 15, "{kind:?}");
        task.remove(&client).unwrap();
    }
}

#[test]
fn standard_input_comes_through_and_ends() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let mut session = open(&client, &command(&task.key, &["cat"]));
    session.write("one\n").unwrap();
    session.write("two\n").unwrap();
    session.close_input();
    let ran = session.finish().unwrap();
    assert_eq!((ran.stdout.as_str(), ran.code), ("one\ntwo\n", 0));
    // The streams are the container's own.
    let again = "echo o >/dev/stdout; echo e >/dev/stderr; readlink /proc/self/fd/0";
    let ran = run(&client, &task, &["sh", "-c", again]);
    assert!(ran.stdout.starts_with("o\npipe:") && ran.stderr == "e\n", "{ran:?}");
    task.remove(&client).unwrap();
}

#[test]
fn a_terminal_is_the_containers_own() {
    let (_guard, rig, client) = host();
    for kind in KINDS {
        let task = start(rig, &client, kind, |_| {});
        let script =
            "tty; stty size; test -t 2 && echo terminal >/dev/tty; read line; echo got $line";
        let mut spec = command(&task.key, &["sh", "-c", script]);
        spec.terminal = Some(TerminalSize { rows: 31, columns: 97 });
        let mut session = open(&client, &spec);
        session.write("word\r").unwrap();
        let ran = session.finish().unwrap();
        for text in ["/dev/pts/", "31 97\r\n", "terminal\r\n", "got word\r\n"] {
            assert!(ran.stdout.contains(text), "{kind:?}: {ran:?}");
        }
        // ^C reaches the command.
        spec.words = command(&task.key, &["sleep", "1000"]).words;
        let mut session = open(&client, &spec);
        session.write("\x03").unwrap();
        assert_eq!(session.finish().unwrap().code, 128 + 2, "{kind:?}");
        task.remove(&client).unwrap();
    }
}

#[test]
fn a_command_has_its_own_user_directory_and_environment() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let make = "echo app:x:1000:1000::/srv: >>/etc/passwd; echo app:x:1000: >>/etc/group; \
                echo media:x:44:other,app >>/etc/group";
    script(&client, &task, make);
    let as_user = |user: &str| {
        let script = "id -u; id -g; id -G; pwd; umask; env | sort; echo x >/dev/stdout";
        let mut spec = command(&task.key, &["sh", "-c", script]);
        spec.user = Some(User::parse(user).unwrap());
        spec.directory = Some(Absolute::parse("/local").unwrap());
        client.exec(&spec).unwrap().unwrap()
    };
    let mut session = as_user("app");
    session.started().unwrap().unwrap();
    let ran = session.finish().unwrap();
    let begin = "1000\n1000\n1000 44\n/local\n0022\nA=b c\n";
    assert!(ran.stdout.starts_with(begin) && ran.stdout.ends_with("x\n"), "{ran:?}");
    let numbers = as_user("7:8");
    let mut numbers = numbers;
    numbers.started().unwrap().unwrap();
    assert!(numbers.finish().unwrap().stdout.starts_with("7\n8\n8\n"));
    // What the container's files say beyond the task's ids.
    script(&client, &task, "echo wide:x:70000:1::/: >>/etc/passwd");
    for (user, words) in [("nobodyhere", "give its number"), ("wide", "is not one of the task's")] {
        let refusal = as_user(user).started().unwrap().unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
    script(&client, &task, "rm /etc/passwd; mkfifo /etc/passwd");
    let refusal = as_user("app").started().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("not a regular file"), "{refusal}");
    task.remove(&client).unwrap();
}

#[test]
fn what_cannot_be_executed_is_an_error_that_names_it() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let refusal = |spec: &ExecSpec| {
        client.exec(spec).unwrap().unwrap().started().unwrap().unwrap_err().to_string()
    };
    let missing = refusal(&command(&task.key, &["no-such-command"]));
    for text in ["no-such-command", "no such file in the command's PATH"] {
        assert!(missing.contains(text), "{missing}");
    }
    let denied = refusal(&command(&task.key, &["/etc/hosts"]));
    assert!(denied.contains("no file that this user may execute"), "{denied}");
    let mut nowhere = command(&task.key, &["true"]);
    nowhere.directory = Some(Absolute::parse("/no/such").unwrap());
    assert!(refusal(&nowhere).contains("directory /no/such"));
    // Refused before any worker has it.
    let empty = client.exec(&command(&task.key, &[])).unwrap().unwrap_err();
    assert_eq!(empty.code, Code::Invalid, "{empty}");
    let key = task.key.clone();
    task.remove(&client).unwrap();
    let gone = client.exec(&command(&key, &["true"])).unwrap().unwrap_err();
    assert_eq!(gone.code, Code::Unknown, "{gone}");
    // The socket is still in order.
    assert!(client.exec_bytes(b"torn").unwrap().is_err());
    assert!(client.is_closed().unwrap());
}

#[test]
fn twenty_sessions_run_at_once() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let words = ["sh", "-c", "read line; seq 2000; exit $line"];
    let mut all: Vec<_> = (0..20).map(|_| open(&client, &command(&task.key, &words))).collect();
    for (number, session) in all.iter_mut().enumerate() {
        session.write(&format!("{number}\n")).unwrap();
    }
    for (number, session) in all.into_iter().enumerate() {
        let ran = session.finish().unwrap();
        assert_eq!((ran.code, ran.stdout.lines().count()), (i32::try_from(number).unwrap(), 2000));
    }
    wait_no_leaf(rig, &task);
    task.remove(&client).unwrap();
}

/// A request at any moment of a start is served as later ones are, or refused.
#[test]
fn requests_while_a_task_starts_are_served_or_refused() {
    let (_guard, rig, client) = host();
    let asking = Door::of(rig).unwrap().enter().unwrap();
    let (mut served, mut refused) = (0, 0);
    for round in 0..20 {
        let task = Handmade::new(rig, "exec").unwrap();
        let spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
        let key = task.key.clone();
        std::thread::scope(|scope| {
            let starting = Door::of(rig).unwrap().enter().unwrap();
            let spec = &spec;
            let starter = scope.spawn(move || starting.start(spec).unwrap().unwrap());
            for _ in 0..10 {
                let script =
                    "grep -E '^(CapBnd|CapEff|Seccomp|Seccomp_filters):' /proc/self/status";
                match asking.exec(&command(&key, &["sh", "-c", script])).unwrap() {
                    Ok(mut session) => match session.started().unwrap() {
                        Ok(()) => {
                            let shown = session.finish().unwrap().stdout;
                            assert!(
                                shown.contains("Seccomp:\t2\nSeccomp_filters:\t5\n")
                                    && shown.contains("CapBnd:\t00000000fdecbbff")
                                    || shown.contains("CapBnd:\t00000000fdecafff")
                                    || shown.contains("CapBnd:\t00000000fdecabff"),
                                "{shown}"
                            );
                            served += 1;
                        }
                        Err(_) => refused += 1,
                    },
                    Err(_) => refused += 1,
                }
                std::thread::sleep(Duration::from_millis(round));
            }
            starter.join().unwrap();
        });
        task.remove(&client).unwrap();
    }
    assert!(served > 20 && served + refused == 200, "{served} served, {refused} refused");
}

#[test]
fn the_policy_file_has_the_last_word() {
    let (_guard, rig, client) = alone();
    let task = start(rig, &client, TASK, |_| {});
    rig.set_policy(format!("{POLICY}[exec]\nallow = false\n")).unwrap();
    let refusal = client.exec(&command(&task.key, &["true"])).unwrap().unwrap_err();
    assert!(refusal.to_string().contains("allow = true in [exec]"), "{refusal}");
    rig.set_policy(format!("{POLICY}[exec]\nmax_sessions = 4\n")).unwrap();
    let two: Vec<_> =
        (0..2).map(|_| open(&client, &command(&task.key, &["sleep", "1000"]))).collect();
    let refused = || client.exec(&command(&task.key, &["true"])).unwrap().unwrap_err().to_string();
    let refusal = refused();
    assert!(refusal.contains("half of the 4") && refusal.contains("max_sessions"), "{refusal}");
    // Others' commands go on.
    let other = start(rig, &client, TASK, |_| {});
    assert_eq!(run(&client, &other, &["true"]).code, 0);
    other.remove(&client).unwrap();
    rig.set_policy(format!("{POLICY}[exec]\nmax_sessions = 2\n")).unwrap();
    let refusal = refused();
    assert!(refusal.contains("on this host, which may have 2"), "{refusal}");
    drop(two);
    wait::true_within("a session's place", SOON, || {
        Ok(client.exec(&command(&task.key, &["true"]))?.is_ok())
    })
    .unwrap();
    rig.set_policy(format!("{POLICY}{ROOM}")).unwrap();
    task.remove(&client).unwrap();
}

/// A command whose encoded specification has this length.
fn of_length(task: &Handmade<'_>, length: usize) -> ExecSpec {
    let mut spec = command(&task.key, &["true"]);
    let encoded = |spec: &ExecSpec| proto::codec::encode_whole(spec).unwrap().len();
    while encoded(&spec) < length {
        // An encoded variable is longer than its value by less than this.
        let value = (length - encoded(&spec)).saturating_sub(32).clamp(1, 100_000);
        let name = VariableName::new(format!("V{}", spec.environment.len())).unwrap();
        spec.environment.push(Variable { name, value: Secret::new("x".repeat(value)) });
        if value == 1 {
            break;
        }
    }
    assert!(encoded(&spec).abs_diff(length) < 100, "{}", encoded(&spec));
    spec
}

#[test]
fn a_specification_that_fits_no_plan_takes_no_place() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let wide = of_length(&task, limits::SPEC_MAX - 100);
    // More than a task may have at once.
    for _ in 0..40 {
        let refusal = client.exec(&wide).unwrap().unwrap_err();
        assert!(refusal.to_string().contains("shorten them"), "{refusal}");
        assert_eq!(refusal.code, Code::Invalid);
    }
    let longest = of_length(&task, limits::EXEC_MAX - 100);
    for _ in 0..3 {
        assert_eq!(open(&client, &longest).finish().unwrap().code, 0);
    }
    assert_eq!(script(&client, &task, "echo here"), "here\n");
    task.remove(&client).unwrap();
}
