//! Rows of the threat model that no other test is about: command words, mount options, mounts on
//! the way, the host's environment, numbers of signals.

use crate::{HELPER, bare, variable_free};
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Door, Handmade, LIMIT};
use nspawn_tests::wait;
use proto::error::Code;
use proto::path::{Absolute, Component, Relative};
use proto::target::Target;
use proto::task_spec::files::{Bind, Mapping, Source};
use proto::task_spec::{Image, TaskSpec};
use proto::wire::{Answer, Signal, Verb};

fn started(client: &Client, spec: &TaskSpec) {
    let answer = client.start(spec).unwrap();
    assert!(matches!(answer, Ok(Answer::Started(_))), "{answer:?}");
}

/// Runs a command to its end and gives what it has written.
fn output(rig: &Rig, client: &Client, change: impl FnOnce(&Handmade<'_>) -> TaskSpec) -> String {
    let task = Handmade::new(rig, "row").unwrap();
    started(client, &change(&task));
    let exit = task.wait_ended(client).unwrap();
    let [out, err] = [0, 1].map(|n| String::from_utf8(task.written(n).unwrap()).unwrap());
    assert_eq!(exit.code, 0, "{out}{err}");
    task.remove(client).unwrap();
    out
}

fn refused(rig: &Rig, client: &Client, change: impl FnOnce(&Handmade<'_>) -> TaskSpec) -> String {
    let task = Handmade::new(rig, "row").unwrap();
    let refusal = client.start(&change(&task)).unwrap().unwrap_err();
    task.remove(client).unwrap();
    refusal.to_string()
}

/// A directory of the task at a place inside.
fn bind(below: &[&str], target: &str) -> Bind {
    let below = below.iter().map(|part| Component::new(*part).unwrap()).collect();
    Bind {
        source: Source::Task(Relative::new(below).unwrap()),
        target: Target::parse(target).unwrap(),
        read_only: false,
        recursive: false,
        mapping: Mapping::Automatic,
        propagated: false,
    }
}

/// P4: a mount that somebody has put over a directory of the allocation is not taken for it.
#[test]
fn p04_a_mount_below_the_allocation_is_not_crossed() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    for directory in ["alloc", "alloc/logs", "row/local"] {
        let mut over = String::new();
        let text = refused(rig, &client, |task| {
            over = format!("{}/{directory}", task.dir());
            // Everything that is looked for below is there.
            let copy = "cp -a \"$1\" /tmp/over && mount --bind /tmp/over \"$1\"";
            rig.run(&["sh", "-c", copy, "sh", &over]).unwrap();
            let spec = task.spec(&["true"]).unwrap();
            let refusal = client.start(&spec).unwrap().unwrap_err();
            rig.run(&["umount", &over]).unwrap();
            rig.run(&["rm", "-r", "/tmp/over"]).unwrap();
            assert!(refusal.to_string().contains("cross-device"), "{directory}: {refusal}");
            // A second start, for the caller: nothing is there that could run.
            TaskSpec {
                image: Image::Path(Absolute::parse("/var/lib/machines/absent").unwrap()),
                ..spec
            }
        });
        assert!(text.contains("does not exist on this host"), "{directory}: {text}");
    }
}

/// P9, P10: targets that are separators and prefixes to systemd-nspawn are names to the task, and
/// mount points are made in the task's own layer, not in the image.
#[test]
fn p09_p10_odd_targets_are_names_and_leave_the_image_alone() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let sum = || {
        let all = "cd /var/lib/machines/busybox && \
                   (find . -printf '%p %y %m %u %g %s %l %T@\\n'; find . -type f -exec sha256sum {} \
                   +) | sort | sha256sum";
        rig.sh(all).unwrap()
    };
    let before = sum();
    let targets =
        ["/new/a:b", "/new/c\\d", "/new/+e", "/new/f:rbind", "/new/g,h", "/new/i j", "/new/\\:"];
    let out = output(rig, &client, |task| {
        rig.run(&["sh", "-c", "echo reached >\"$1/row/local/file\"", "sh", &task.dir()]).unwrap();
        let script = "for f in /new/*; do echo \"$f $(cat \"$f/file\")\"; done";
        let mut spec = task.spec(&["/bin/sh", "-c", script]).unwrap();
        spec.files.binds = targets.iter().map(|target| bind(&["local"], target)).collect();
        spec
    });
    let mut lines: Vec<_> = out.lines().map(str::to_owned).collect();
    let mut wanted: Vec<_> = targets.iter().map(|target| format!("{target} reached")).collect();
    lines.sort();
    wanted.sort();
    assert_eq!(lines, wanted);
    assert_eq!(sum(), before, "the image has changed");
}

/// P11: words that look like options, variables and specifiers arrive as they are.
#[test]
fn p11_no_word_of_a_command_is_an_option_or_is_expanded() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let words =
        ["--bind=/:/host", "-x", "--", "$HOME", "${PATH}", "$$", "%n %%", "a\nb", "", "é\\\"'"];
    let out = output(rig, &client, |task| {
        let show = ["/bin/sh", "-c", "for w; do printf '<%s>' \"$w\"; done; ls -d /host", "sh"];
        let mut all = show.to_vec();
        // The directory must not be there.
        all[2] = "for w; do printf '<%s>' \"$w\"; done; test ! -e /host";
        all.extend(words);
        task.spec(&all).unwrap()
    });
    assert_eq!(out, words.map(|word| format!("<{word}>")).concat());
}

/// P7, P35: nothing of PID 1's, the helper's or the launcher's environment reaches the payload.
#[test]
fn p35_the_hosts_environment_does_not_reach_the_payload() {
    let (_turn, rig) = bare();
    rig.run(&["systemctl", "set-environment", "CANARY=of-the-host", "LD_CANARY=x"]).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let out = output(rig, &client, |task| {
        task.spec(&["/bin/sh", "-c", "env; cat /proc/1/environ"]).unwrap()
    });
    rig.run(&["systemctl", "unset-environment", "CANARY", "LD_CANARY"]).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    assert!(out.contains("container=systemd-nspawn"), "{out}");
    assert!(!out.contains("CANARY"), "{out}");
    // systemd-nspawn's own, for the payload to say that it is ready.
    let out = out.replace("NOTIFY_SOCKET=/run/host/notify", "");
    assert!(!out.contains("NOTIFY_SOCKET"), "{out}");
    for word in ["SYSTEMD_", "LISTEN_", "INVOCATION_ID", "JOURNAL_STREAM"] {
        assert!(variable_free(&out, word), "{word} in {out}");
    }
}

/// P41: every number that is no signal is refused, every other reaches the payload alone.
#[test]
fn p41_every_number_is_a_signal_or_is_refused() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let task = Handmade::new(rig, "row").unwrap();
    let helper = rig.main_pid(HELPER).unwrap();
    // A payload that is killed or stopped cannot take the next one.
    let fatal_for_all = [9, 19];
    started(&client, &task.spec(&["/bin/sh", "-c", SHRUG]).unwrap());
    wait::true_within("the traps", LIMIT, || Ok(task.written(0)?.ends_with(b"ready\n"))).unwrap();
    for signal in 0..=u8::MAX {
        if fatal_for_all.contains(&signal) {
            continue;
        }
        let key = task.key.clone();
        let answer = client.ask(Verb::Signal(Signal { key, signal })).unwrap();
        let known = (1..=64).contains(&signal) && signal != 32 && signal != 33;
        match answer {
            Ok(Answer::Signaled) => assert!(known, "{signal} was sent"),
            Err(refusal) => {
                assert!(!known && refusal.code == Code::Invalid, "{signal}: {refusal}");
            }
            other => panic!("{signal}: {other:?}"),
        }
    }
    let key = task.key.clone();
    assert_eq!(client.ask(Verb::Signal(Signal { key, signal: 9 })).unwrap(), Ok(Answer::Signaled));
    let exit = task.wait_ended(&client).unwrap();
    assert_eq!(exit.signal, 9, "{exit:?}");
    assert_eq!(rig.main_pid(HELPER).unwrap(), helper, "a signal has hit the helper");
    task.remove(&client).unwrap();
}

/// Lives through every signal that can be caught or ignored.
const SHRUG: &str = "n=1; while [ $n -le 64 ]; do trap '' $n 2>/dev/null; n=$((n+1)); done; \
                     echo ready; while :; do sleep 1000; done";
