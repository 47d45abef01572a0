//! User, working directory, host name, console, readiness, and the environment beside them.

use crate::{Copy, complaint, debian, host, run, says};
use proto::name::VariableName;
use proto::path::Absolute;
use proto::secret::Secret;
use proto::task_spec::process::{Console, HostName, User};
use proto::task_spec::{Payload, Root, TaskSpec, Variable};

fn user(name: &str) -> impl FnOnce(&mut TaskSpec) {
    move |spec| {
        debian(spec);
        spec.process.user = Some(User::parse(name).unwrap());
    }
}

#[test]
fn the_user_is_the_images() {
    let text = says("id -u; id -un; echo $HOME; pwd", user("daemon"));
    assert_eq!(text, "1\ndaemon\n/usr/sbin\n/\n");
    assert_eq!(says("id -u", user("0")), "0\n");
}

#[test]
fn a_user_that_is_not_there_is_named() {
    let text = complaint(user("nobody-here"));
    assert!(text.contains("nobody-here") && text.contains("/etc/passwd"), "{text}");
    // Busybox has no getent, so nothing but its file can know the user.
    let text = complaint(|spec| spec.process.user = Some(User::parse("nobody-here").unwrap()));
    assert!(text.contains("user nobody-here") && text.contains("1000:1000"), "{text}");
}

#[test]
fn the_working_directory_is_entered() {
    let enter = |directory: &'static str| {
        move |spec: &mut TaskSpec| {
            spec.process.directory = Some(Absolute::parse(directory).unwrap());
        }
    };
    assert_eq!(says("pwd", enter("/usr/bin")), "/usr/bin\n");
    assert_eq!(says("pwd", enter("/local")), "/local\n");
    let text = complaint(enter("/no/such"));
    assert!(text.contains("/no/such"), "{text}");
}

#[test]
fn s9_a_missing_command_is_remarked_without_its_words() {
    for word in ["/bin/hunter2", "hunter2"] {
        let text = complaint(|spec| {
            spec.payload = Payload::Command { words: vec![Secret::new(word)] };
        });
        assert!(text.contains("command: its first word is not in the image"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let image = Copy::new("no-init", "rm usr/bin/init");
    let text = complaint(|spec| {
        image.give(spec, Root::ReadOnly);
        spec.payload = Payload::Boot { arguments: vec![] };
    });
    assert!(text.contains("the image has no /usr/lib/systemd/systemd"), "{text}");
}

#[test]
fn the_host_name_is_set() {
    let name = |spec: &mut TaskSpec| {
        spec.process.hostname = Some(HostName::new("a.long.host-name").unwrap());
    };
    assert_eq!(
        says("hostname; cat /proc/sys/kernel/hostname", name),
        "a.long.host-name\n".repeat(2)
    );
}

#[test]
fn the_console_is_what_was_asked_for() {
    let script = "test -t 1 && echo terminal || echo stream; echo error >&2";
    let console = |console| move |spec: &mut TaskSpec| spec.process.console = console;
    for (kind, stdout, stderr) in [
        (Console::Automatic, "stream\n", "error\n"),
        (Console::Pipe, "stream\n", "error\n"),
        (Console::ReadOnly, "terminal\r\nerror\r\n", ""),
        (Console::Interactive, "terminal\r\nerror\r\n", ""),
    ] {
        let ran = run(script, console(kind));
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (stdout, stderr), "{kind:?}");
    }
    // A terminal that nobody reads while it runs.
    let ran = run("test -t 1 && exit 7", console(Console::Passive));
    assert_eq!(ran.code, 7, "{ran:?}");
}

/// Control characters beside names that steer systemd-nspawn and its libraries.
#[test]
fn any_value_arrives_beside_any_name() {
    let mut values = vec![
        ("LD_PRELOAD".to_owned(), "/nonexistent/x.so".to_owned()),
        ("SYSTEMD_SECCOMP".to_owned(), "0".to_owned()),
        ("SYSTEMD_NSPAWN_SHARE_NS_PID".to_owned(), "1\n2".to_owned()),
        ("PEM".to_owned(), "-----BEGIN\r\n\"x\"\\y\r\n".to_owned()),
        ("WIDE".to_owned(), "é\u{85}\u{2028}🦀\u{e000}\u{10fffd}".to_owned()),
    ];
    for code in (1..0x20_u8).chain([0x7f]) {
        values.push((format!("CONTROL_{code}"), format!("a{}b", char::from(code))));
    }
    let given: Vec<_> = values
        .iter()
        .map(|(n, v)| Variable { name: VariableName::new(n).unwrap(), value: Secret::new(v) })
        .collect();
    let text = says("cat /proc/1/environ; grep Seccomp: /proc/self/status", |spec| {
        spec.environment = given;
    });
    for (name, value) in &values {
        assert!(text.split('\0').any(|pair| pair == format!("{name}={value}")), "{name}: {text:?}");
    }
    assert!(text.ends_with("Seccomp:\t2\n"), "{text:?}");
}

/// The image's own settings file and the host's are not read.
#[test]
fn nothing_beside_the_image_is_read() {
    let image = Copy::new("settled", "true");
    let machine = "/run/systemd/nspawn/settled.nspawn";
    let planted = "[Exec]\nEnvironment=PLANTED=1\nHostname=planted\n";
    host().run(&["mkdir", "-p", "/run/systemd/nspawn"]).unwrap();
    host().write_file(machine, planted, 0o644).unwrap();
    host().write_file("/var/lib/machines/settled.nspawn", planted, 0o644).unwrap();
    let text = says("env; hostname", |spec| image.give(spec, Root::Plain));
    assert!(!text.contains("PLANTED") && !text.contains("planted"), "{text}");
    host().run(&["rm", machine, "/var/lib/machines/settled.nspawn"]).unwrap();
}
