//! Packets that break the protocol, and the answers that docs/PROTOCOL.md promises.

use crate::{HELPER, Helper, bare};
use nspawn_tests::hostile::{Client, Door, Heard};
use nspawn_tests::{Rig, wait};
use proto::codec;
use proto::error::Code;
use proto::limits::{CONNECTIONS_MAX, MESSAGE_MAX, PART_MAX, SPEC_MAX};
use proto::name::{AllocId, Instance, TaskKey, TaskName};
use proto::parts::Part;
use proto::wire::{Answer, Hello, Request, Signal, Start, Verb, Welcome};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// What must come back.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// No reply, the end of the connection, and this reason in the journal.
    Closed(&'static str),
    /// A refusal with these words, then the end of the connection.
    Last(&'static str),
    /// A refusal of this code; the connection goes on.
    Refused(Code),
    /// An answer; the connection goes on.
    Answered,
}

fn hello(oldest: u16, newest: u16) -> Verb {
    Verb::Hello(Hello { oldest, newest })
}

fn packet(epoch: u64, verb: Verb) -> Vec<u8> {
    codec::encode(&Request { epoch, id: 7, verb }).unwrap()
}

/// Bytes after the number of a verb.
fn verb_number(number: u32, rest: &[u8]) -> Vec<u8> {
    [&[0; 16], number.to_le_bytes().as_slice(), rest].concat()
}

fn key(task: &str) -> TaskKey {
    TaskKey {
        alloc: AllocId([0x5a; 16]),
        task: TaskName::new(task).unwrap(),
        instance: Instance(1),
    }
}

fn part(offset: u32, length: usize) -> Verb {
    Verb::Part(Part { offset, bytes: vec![0xff; length] })
}

/// First packets of a connection.
fn first_packets() -> Vec<(&'static str, Vec<u8>, Want)> {
    let good = packet(0, hello(1, 1));
    let huge = 1_u64 << 60;
    let claim = [&[0; 4], huge.to_le_bytes().as_slice()].concat();
    vec![
        ("garbage", vec![0xff; 64], Want::Closed("malformed message")),
        ("one byte", vec![0], Want::Closed("malformed message")),
        ("65,537 bytes", vec![0; MESSAGE_MAX + 1], Want::Closed("message too long")),
        ("100,000 bytes", vec![0; 100_000], Want::Closed("message too long")),
        ("a byte behind", [&good[..], &[0]].concat(), Want::Closed("bytes behind the end")),
        ("64 KiB of a hello", [&good[..], &vec![0; MESSAGE_MAX - good.len()]].concat(), {
            Want::Closed("bytes behind the end")
        }),
        ("a byte short", good[..good.len() - 1].to_vec(), Want::Closed("malformed message")),
        ("verb 9", verb_number(9, &codec::encode(&key("t")).unwrap()), {
            Want::Closed("malformed message")
        }),
        ("verb 2^32-1", verb_number(u32::MAX, &[0; 40]), Want::Closed("malformed message")),
        ("a claim of 2^60 bytes", verb_number(1, &claim), Want::Closed("malformed message")),
        ("a newer driver", packet(0, hello(2, 3)), Want::Last("speaks versions 1 to 1")),
        ("version 0", packet(0, hello(0, 0)), Want::Last("speaks versions 1 to 1")),
        ("versions backwards", packet(0, hello(9, 1)), Want::Last("speaks versions 1 to 1")),
        ("list before hello", packet(0, Verb::List(None)), {
            Want::Last("hello must come first, and once")
        }),
        ("part before hello", packet(0, part(0, 9)), Want::Last("hello must come first")),
        ("start before hello", packet(0, Verb::Start(Start { length: 0 })), {
            Want::Last("hello must come first")
        }),
        ("hello with an epoch", packet(7, hello(1, 1)), Want::Refused(Code::Epoch)),
        ("a good hello", good, Want::Answered),
    ]
}

/// Requests behind a greeting; the last one's answer counts, all before it are answered well.
fn later_requests() -> Vec<(&'static str, Vec<Verb>, Want)> {
    let signal = |signal| Verb::Signal(Signal { key: key("t"), signal });
    let too_large = || {
        let mut all: Vec<Verb> = (0..SPEC_MAX / PART_MAX)
            .map(|n| part(u32::try_from(n * PART_MAX).unwrap(), PART_MAX))
            .collect();
        let sent = SPEC_MAX / PART_MAX * PART_MAX;
        all.push(part(u32::try_from(sent).unwrap(), SPEC_MAX - sent + 1));
        all
    };
    let length = |length| Verb::Start(Start { length });
    let order = "a part's offset must be the number of bytes sent before";
    let size = "a part must hold 1 to 61,440 bytes";
    let whole = "the announced length is not the number of bytes sent";
    vec![
        ("hello twice", vec![hello(1, 1)], Want::Last("hello must come first, and once")),
        ("a part from the middle", vec![part(9, 9)], Want::Last(order)),
        ("parts out of order", vec![part(0, 9), part(18, 9)], Want::Last(order)),
        ("a part twice", vec![part(0, 9), part(0, 9)], Want::Last(order)),
        ("an empty part", vec![part(0, 0)], Want::Last(size)),
        ("an empty part behind", vec![part(0, 9), part(9, 0)], Want::Last(size)),
        ("a part too long", vec![part(0, PART_MAX + 1)], Want::Last(size)),
        ("more than 1.5 MiB", too_large(), Want::Last("1,572,864 bytes together")),
        ("start of nothing", vec![length(0)], Want::Last(whole)),
        ("start of less", vec![part(0, 9), length(8)], Want::Last(whole)),
        ("start of more", vec![part(0, 9), length(10)], Want::Last(whole)),
        ("start of garbage", vec![part(0, 99), length(99)], Want::Last("malformed message")),
        ("status amid parts", vec![part(0, 9), Verb::Status(key("t"))], {
            Want::Last("only parts and start may follow")
        }),
        ("remove amid parts", vec![part(0, 9), Verb::Remove(key("t"))], {
            Want::Last("only parts and start may follow")
        }),
        ("signal 0", vec![signal(0)], Want::Refused(Code::Invalid)),
        ("signal 32", vec![signal(32)], Want::Refused(Code::Invalid)),
        ("signal 33", vec![signal(33)], Want::Refused(Code::Invalid)),
        ("signal 65", vec![signal(65)], Want::Refused(Code::Invalid)),
        ("signal 255", vec![signal(255)], Want::Refused(Code::Invalid)),
        ("signal to nobody", vec![signal(15)], Want::Refused(Code::Unknown)),
        ("kill nobody", vec![Verb::Kill(key("t"))], Want::Refused(Code::Unknown)),
        ("status of nobody", vec![Verb::Status(key("t"))], { Want::Refused(Code::Unknown) }),
        ("remove nobody", vec![Verb::Remove(key("t"))], Want::Answered),
        ("list behind a key that is not there", vec![list_after("zz")], Want::Answered),
    ]
}

fn list_after(task: &str) -> Verb {
    Verb::List(Some(key(task)))
}

fn judge(name: &str, client: &Client, want: Want) {
    let heard = client.hear(SOON).unwrap();
    match (want, &heard) {
        (Want::Closed(_), Heard::Closed) => return,
        (Want::Last(words), Heard::Reply(reply)) => {
            let refusal = reply.result.as_ref().unwrap_err();
            assert_eq!(refusal.code, Code::Protocol, "{name}: {refusal}");
            assert!(refusal.reason.contains(words), "{name}: {refusal}");
            assert!(matches!(client.hear(SOON).unwrap(), Heard::Closed), "{name}: not closed");
            return;
        }
        (Want::Refused(code), Heard::Reply(reply)) => {
            assert_eq!(reply.result.as_ref().unwrap_err().code, code, "{name}");
        }
        (Want::Answered, Heard::Reply(reply)) => {
            assert!(reply.result.is_ok(), "{name}: {:?}", reply.result);
        }
        other => panic!("{name}: {other:?}"),
    }
    // It goes on: one that was refused at the greeting can still greet.
    if client.epoch() == 0 && matches!(want, Want::Refused(_)) {
        client.greet().unwrap();
    }
    client.send(&client.request(list_after("t")).unwrap()).unwrap();
    assert!(matches!(client.hear(SOON).unwrap(), Heard::Reply(_)), "{name}: closed");
}

#[test]
fn p22_p24_p28_broken_packets_are_answered_as_documented() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    door.enter().unwrap();
    let before = Helper::look(rig);
    for (name, bytes, want) in first_packets() {
        let provoke = || {
            let client = door.connect().unwrap();
            client.send(&bytes).unwrap();
            judge(name, &client, want);
        };
        match want {
            Want::Closed(reason) => until_in_journal(rig, reason, provoke),
            _ => provoke(),
        }
    }
    // Zero bytes are how the end of a connection looks: there is nothing to tell.
    let client = door.connect().unwrap();
    client.send(&[]).unwrap();
    assert!(matches!(client.hear(SOON).unwrap(), Heard::Closed));
    drop(client);
    for (name, mut verbs, want) in later_requests() {
        let client = door.enter().unwrap();
        let last = verbs.pop().unwrap();
        for verb in verbs {
            assert_eq!(client.ask(verb).unwrap(), Ok(Answer::Taken), "{name}");
        }
        client.send(&client.request(last).unwrap()).unwrap();
        judge(name, &client, want);
    }
    before.wait_same_descriptors(rig);
}

/// Does it again until the reason is written: only so many lines a second are.
fn until_in_journal(rig: &Rig, words: &str, provoke: impl Fn()) {
    wait::true_within(&format!("{words:?} in the journal"), SOON, || {
        provoke();
        Ok(rig.journal(HELPER)?.contains(words))
    })
    .unwrap();
}

#[test]
fn p29_an_old_epoch_is_told_and_the_connection_stays() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let epoch = client.epoch();
    for wrong in [0, epoch ^ 1, u64::MAX ^ epoch] {
        client.pretend_epoch(wrong);
        let refusal = client.ask(list_after("t")).unwrap().unwrap_err();
        assert_eq!(refusal.code, Code::Epoch, "{refusal}");
    }
    client.pretend_epoch(epoch);
    assert!(client.ask(list_after("t")).unwrap().is_ok());
    // Another process, another epoch; the socket stays the same.
    rig.run(&["systemctl", "kill", "--signal=KILL", HELPER]).unwrap();
    assert!(matches!(client.hear(SOON).unwrap(), Heard::Closed));
    let welcome: Welcome = Door::of(rig).unwrap().connect().unwrap().greet().unwrap();
    assert_ne!(welcome.epoch, epoch);
    wait::true_within("the helper to run", SOON, || {
        Ok(rig.run(&["systemctl", "is-active", HELPER])? == "active")
    })
    .unwrap();
}

#[test]
fn p23_p24_descriptors_end_the_connection_and_are_not_kept() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    door.enter().unwrap();
    let before = Helper::look(rig);
    let file = std::fs::File::open("/dev/null").unwrap();
    let attack = |count| {
        let fds = vec![file.as_raw_fd(); count];
        let first = door.connect().unwrap();
        first.send_with(&packet(0, hello(1, 1)), &fds).unwrap();
        assert!(matches!(first.hear(SOON).unwrap(), Heard::Closed));
        let later = door.enter().unwrap();
        later.send_with(&later.request(part(0, 100)).unwrap(), &fds).unwrap();
        assert!(matches!(later.hear(SOON).unwrap(), Heard::Closed));
    };
    (0..50).for_each(|round| attack(if round % 2 == 0 { 1 } else { 250 }));
    until_in_journal(rig, "it sent descriptors", || attack(3));
    before.wait_same_descriptors(rig);
}

#[test]
fn p31_only_the_plugins_account_is_heard() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let account = rig.run(&["id", "-u", "nomad-nspawn"]).unwrap();
    assert_eq!(door.owner().to_string(), account);
    assert_eq!(rig.run(&["stat", "-c", "%a", nspawn_tests::hostile::SOCKET]).unwrap(), "600");
    for uid in [1000, 65_534] {
        let error = door.connect_as(uid).unwrap_err();
        assert!(format!("{error:#}").contains("Permission denied"), "{uid}: {error:#}");
    }
    // The file's mode is one lock, the helper's own look at its peer the other.
    rig.run(&["chmod", "0666", nspawn_tests::hostile::SOCKET]).unwrap();
    for uid in [0, 1000, 65_534] {
        let reason = format!("uid={uid} pid=0 why=\"not the plugin's account\"");
        until_in_journal(rig, &reason, || {
            let client = door.connect_as(uid).unwrap();
            assert!(matches!(client.hear(SOON).unwrap(), Heard::Closed), "uid {uid} was heard");
        });
    }
    rig.run(&["chmod", "0600", nspawn_tests::hostile::SOCKET]).unwrap();
    door.enter().unwrap();
}

#[test]
fn two_requests_at_once_end_the_connection() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let pid = rig.main_pid(HELPER).unwrap();
    until_in_journal(rig, "a request before the reply to the last", || {
        let client = door.enter().unwrap();
        let requests = [list_after("a"), list_after("b")].map(|verb| client.request(verb).unwrap());
        rig.run(&["kill", "-STOP", &pid.to_string()]).unwrap();
        wait::true_within("the helper to stand still", SOON, || {
            let stat = rig.read_file(&format!("/proc/{pid}/stat"))?;
            Ok(String::from_utf8_lossy(&stat).contains(") T "))
        })
        .unwrap();
        for request in &requests {
            client.send(request).unwrap();
        }
        rig.run(&["kill", "-CONT", &pid.to_string()]).unwrap();
        let heard = client.hear(SOON).unwrap();
        assert!(matches!(heard, Heard::Closed), "{heard:?}");
    });
}

#[test]
fn p26_the_thirty_third_connection_is_closed() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let before = Helper::look(rig);
    let mut clients = Vec::new();
    // Connections of earlier tests may still be on their way out.
    wait::true_within("32 connections", SOON, || {
        clients.retain(|client: &Client| client.ask(list_after("t")).is_ok());
        while clients.len() < CONNECTIONS_MAX {
            match door.enter() {
                Ok(client) => clients.push(client),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    })
    .unwrap();
    until_in_journal(rig, "32 connections are open", || {
        let one_more = door.connect().unwrap();
        assert!(matches!(one_more.hear(SOON).unwrap(), Heard::Closed));
    });
    for client in &clients {
        assert!(client.ask(list_after("t")).unwrap().is_ok());
    }
    clients.pop();
    wait::true_within("room for another", SOON, || Ok(door.enter().is_ok())).unwrap();
    drop(clients);
    before.wait_same_descriptors(rig);
}
