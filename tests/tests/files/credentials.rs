//! Credentials: what the container's PID 1 gets, and that nobody else sees it.

use crate::{Task, host, relative};
use proto::name::ImageName;
use proto::secret::Secret;
use proto::task_spec::files::{Credential, CredentialContent, CredentialName, Files};
use proto::task_spec::{Image, Payload, TaskSpec};
use std::time::Duration;

fn value(name: &str, text: &str) -> Credential {
    Credential {
        name: CredentialName::new(name).unwrap(),
        content: CredentialContent::Value(Secret::new(text)),
        encrypted: false,
    }
}

fn file(name: &str, below: &str) -> Credential {
    let content = CredentialContent::File(relative(below));
    Credential { content, ..value(name, "") }
}

fn credentials(all: impl Into<Vec<Credential>>) -> Files {
    Files { credentials: all.into(), ..Files::default() }
}

/// Starts a task whose own directory a script has prepared; `@dir@` is the allocation's directory.
fn prepared(files: Files, prepare: &str, script: &str) -> Result<Task<'static>, String> {
    let rig = host();
    let before = |made: &nspawn_tests::hostile::Handmade<'_>| {
        rig.sh(&prepare.replace("@dir@", &made.dir())).unwrap();
        files
    };
    Task::try_with(rig, before, script, |spec| spec).map_err(|refusal| refusal.to_string())
}

#[test]
fn values_and_files_arrive_and_stand_on_no_command_line() {
    let secret = "canary \"quoted\" \\x41 : %n $HOME\nsecond line";
    let files = credentials([value("db.password", secret), file("from-file", "secrets/token")]);
    let script = r#"
        ls -la "$CREDENTIALS_DIRECTORY" | awk '{print $1, $3, $9}' | grep -v '^d'
        cat /run/host/credentials/db.password; echo; cat /run/host/credentials/from-file
        echo; until [ -e /local/go ]; do sleep 0.05; done
    "#;
    let prepare = "printf 'to\\0ken' >@dir@/t/secrets/token; chmod 0600 @dir@/t/secrets/token";
    let task = prepared(files, prepare, script).unwrap();
    let rig = host();
    let lines = rig.sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '");
    let lines = lines.unwrap();
    assert!(lines.contains("--load-credential=db.password:"), "nspawn's command line is not read");
    assert!(!lines.contains("canary") && !lines.contains("second line"));
    rig.run(&["touch", &format!("{}/t/local/go", task.made.dir())]).unwrap();
    let out = task.finish();
    assert!(out.contains(secret) && out.contains("\nto\0ken\n"), "{out}");
    assert!(out.contains("-r-------- 0 db.password") || out.contains("root db.password"), "{out}");
}

#[test]
fn odd_sources_are_refused() {
    for (below, prepare, word) in [
        ("secrets/none", "true", "secrets/none"),
        ("local/link", "ln -s /etc/shadow @dir@/t/local/link", "local/link"),
        ("local/up/shadow", "ln -s /etc @dir@/t/local/up", "local/up/shadow"),
        ("local/fifo", "mkfifo @dir@/t/local/fifo", "not a regular file"),
        ("local/dir", "mkdir @dir@/t/local/dir", "not a regular file"),
        ("local/big", "head -c 1048577 /dev/zero >@dir@/t/local/big", "longer than 1048576"),
    ] {
        let text = prepared(credentials([file("x", below)]), prepare, "exit 0").err().unwrap();
        assert!(text.contains(word), "{below}: {text}");
    }
    let prepare = "head -c 700000 /dev/zero >@dir@/t/local/a";
    let two = credentials([file("a", "local/a"), file("b", "local/a")]);
    let text = prepared(two, prepare, "exit 0").err().unwrap();
    assert!(text.contains("together") && text.contains("credential b"), "{text}");
}

#[test]
fn encrypted_ones_are_decrypted_with_the_hosts_key_and_their_own_name() {
    let rig = host();
    rig.run(&["systemd-creds", "setup"]).unwrap();
    let sealed = rig
        .sh("printf 'open sesame' | systemd-creds encrypt --with-key=host --name=nomad.door - -")
        .unwrap();
    let one =
        |name: &str, text: &str| credentials([Credential { encrypted: true, ..value(name, text) }]);
    let script = "cat /run/host/credentials/door";
    assert_eq!(Task::start(rig, one("door", &sealed), script).finish(), "open sesame");
    // What is sealed for a service of the host under the same name stays the host's.
    let hosts = rig
        .sh("printf 'open sesame' | systemd-creds encrypt --with-key=host --name=door - -")
        .unwrap();
    for (name, text) in
        [("window", sealed.as_str()), ("door", &hosts), ("door", "no such thing"), ("door", "")]
    {
        let refused = Task::try_start(rig, one(name, text), script).err().unwrap().to_string();
        assert!(refused.contains("cannot decrypt") && refused.contains(name), "{refused}");
        assert!(!refused.contains("sesame"), "{refused}");
    }
}

/// A service inside a booted container takes them over with LoadCredential= and ImportCredential=.
#[test]
fn services_of_a_booted_container_can_load_them() {
    let rig = host();
    let boot = |spec| TaskSpec {
        payload: Payload::Boot { arguments: Vec::new() },
        image: Image::Named(ImageName::new("debian").unwrap()),
        ..spec
    };
    let files = credentials([value("app.key", "for the service"), value("app.other", "second")]);
    let task = Task::try_with(rig, |_| files, "", boot).unwrap();
    let leader = |task: &Task<'_>| {
        let key = task.made.key.clone();
        let verb = proto::wire::Verb::Status(key);
        match task.client.ask(verb).unwrap() {
            Ok(proto::wire::Answer::Status(task)) => task.leader.unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    };
    let inside = |task: &Task<'_>, words: &[&str]| {
        let leader = leader(task);
        rig.exec(&[&["nsenter", "-t", &leader, "-a", "-r", "-w", "--"], words].concat()).unwrap()
    };
    nspawn_tests::wait::true_within("systemd inside", Duration::from_secs(20), || {
        Ok(inside(&task, &["systemctl", "is-system-running"]).text().trim() == "running")
    })
    .unwrap();
    let properties: &[&str] = match rig.suite() {
        nspawn_tests::Suite::Bookworm => &["-pLoadCredential=app.key"],
        nspawn_tests::Suite::Trixie => &["-pLoadCredential=app.key", "-pImportCredential=app.*"],
    };
    let words = [
        &["systemd-run", "--quiet", "--pipe", "--wait", "-pDynamicUser=yes"],
        properties,
        &["sh", "-c", "cd $CREDENTIALS_DIRECTORY && cat app.key && ls"],
    ]
    .concat();
    let out = inside(&task, &words);
    let text = out.text();
    assert!(out.success() && text.starts_with("for the serviceapp.key\n"), "{text} {out:?}");
    if properties.len() > 1 {
        assert!(text.contains("app.other"), "{text}");
    }
    task.remove();
}
