//! A hundred thousand requests of a hostile client, and a good client beside it.

use crate::{HELPER, Helper, bare};
use nspawn_tests::hostile::{Door, Handmade, Heard, as_uid};
use nspawn_tests::wait::{self, Stop};
use nspawn_tests::{Rig, soak};
use proto::name::{AllocId, Instance, TaskKey, TaskName};
use proto::parts::Part;
use proto::wire::{Answer, Signal, State, Verb};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const REQUESTS: usize = 100_000;
const CONNECTIONS: usize = 6;
const SOON: Duration = Duration::from_secs(10);
/// What the good client may wait, as a rule.
const P99: Duration = Duration::from_millis(100);
/// Floods at most until that holds: something else on the machine may spoil one. Whom the flood
/// itself starves is starved in all.
const FLOODS: u64 = 3;

/// xorshift64: the sequence follows from the printed seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn unknown(random: &mut Random) -> TaskKey {
    let id = [random.next().to_le_bytes(), random.next().to_le_bytes()].concat();
    TaskKey {
        alloc: AllocId(id.try_into().unwrap()),
        task: TaskName::new("nobody").unwrap(),
        instance: Instance(1),
    }
}

/// Sends `count` requests over one connection after another; most are well formed.
fn flood(door: &Door, known: &TaskKey, mut random: Random, count: usize, closed: &AtomicUsize) {
    let enter = || {
        let client = door.connect_here().unwrap();
        client.greet().map(|_| client)
    };
    let mut client = enter().unwrap();
    for _ in 0..count {
        let bytes = match random.next() % 100 {
            0..50 => client.request(Verb::Status(unknown(&mut random))),
            50..75 => client.request(Verb::List(Some(unknown(&mut random)))),
            75..88 => client.request(Verb::Signal(Signal { key: unknown(&mut random), signal: 9 })),
            88..92 => client.request(Verb::Status(known.clone())),
            92..94 => client.request(Verb::Part(Part { offset: 7, bytes: vec![0; 60_000] })),
            _ => {
                let length = usize::try_from(random.next() % 2_000).unwrap();
                Ok((0..length).map(|_| random.next().to_le_bytes()[0]).collect())
            }
        };
        client.send(&bytes.unwrap()).unwrap();
        let fatal = match client.hear(SOON).unwrap() {
            Heard::Reply(reply) => {
                reply.result.is_err_and(|refusal| refusal.code == proto::error::Code::Protocol)
            }
            Heard::Closed => true,
            Heard::Silence => panic!("no answer within {SOON:?}"),
        };
        if fatal {
            closed.fetch_add(1, Ordering::Relaxed);
            client = enter().unwrap();
        }
    }
}

fn flood_all(door: &Door, known: &TaskKey, seed: u64, count: usize) -> usize {
    let closed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            let random = Random(seed ^ (u64::try_from(n).unwrap() + 1).wrapping_mul(0x9e37_79b9));
            let closed = &closed;
            let share = count / CONNECTIONS + usize::from(n < count % CONNECTIONS);
            scope.spawn(move || {
                as_uid(door.owner(), || flood(door, known, random, share, closed)).unwrap();
            });
        }
    });
    closed.into_inner()
}

/// What the driver does all the time, and how long each took.
fn good_client(door: &Door, known: &TaskKey, until: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    let client = door.enter().unwrap();
    while !until.load(Ordering::Relaxed) {
        let start = Instant::now();
        let status = client.ask(Verb::Status(known.clone())).unwrap();
        times.push(start.elapsed());
        assert!(matches!(status, Ok(Answer::Status(task)) if task.state == State::Running));
        let start = Instant::now();
        let page = client.ask(Verb::List(None)).unwrap();
        times.push(start.elapsed());
        assert!(matches!(page, Ok(Answer::Page(page)) if page.keys.contains(known)));
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort_unstable();
    times
}

/// Starts tasks amid the flood; returns their keys.
fn start_some(rig: &Rig, door: &Door) -> Vec<String> {
    let client = door.enter().unwrap();
    let start = |_| {
        let task = Handmade::new(rig, "amid").unwrap();
        let started = client.start(&task.spec(&["/bin/true"]).unwrap()).unwrap();
        assert!(matches!(started, Ok(Answer::Started(_))), "{started:?}");
        let key = task.key.to_string();
        task.remove(&client).unwrap();
        key
    };
    (0..4).map(start).collect()
}

/// What a flood was like.
struct Flooded {
    took: Duration,
    /// Connections of hostile clients that were closed.
    closed: usize,
    /// What the good client waited, sorted.
    times: Vec<Duration>,
    /// Tasks that were started amid it.
    keys: Vec<String>,
}

/// A flood with a good client and starts beside it.
fn amid(rig: &Rig, door: &Door, known: &TaskKey, seed: u64) -> Flooded {
    let done = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let good = scope.spawn(|| good_client(door, known, &done));
        let starts = scope.spawn(|| start_some(rig, door));
        let end = Stop(&done);
        let closed = flood_all(door, known, seed, REQUESTS);
        drop(end);
        let (times, keys) = (good.join().unwrap(), starts.join().unwrap());
        Flooded { took: start.elapsed(), closed, times, keys }
    })
}

/// The time of this rank in percent.
fn rank(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// However many refusals there were: each start has its line.
fn starts_are_written(rig: &Rig, keys: &[String]) {
    for key in keys {
        let of_it = |line: &&str| line.contains("verb=\"start\"") && line.contains(key);
        let line = wait::until(&format!("the line of the start of {key}"), SOON, || {
            Ok(rig.journal(HELPER)?.lines().find(of_it).map(str::to_owned))
        });
        assert!(line.as_ref().is_ok_and(|line| line.contains("allowed")), "{key}: {line:?}");
    }
}

#[test]
fn p26_a_flood_costs_the_good_client_little_and_leaves_nothing() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let client = door.enter().unwrap();
    let task = Handmade::new(rig, "bystander").unwrap();
    let spec = task.spec(&["/bin/sleep", "600"]).unwrap();
    let Ok(Answer::Started(started)) = client.start(&spec).unwrap() else { panic!("no start") };
    let seed = soak::seed();
    flood_all(&door, &task.key, seed, REQUESTS / 10);
    let before = Helper::look(rig);

    let mut floods = 0;
    let Flooded { took, closed, times, keys } = loop {
        floods += 1;
        let flooded = amid(rig, &door, &task.key, seed ^ floods);
        if rank(&flooded.times, 99) < P99 || floods == FLOODS {
            break flooded;
        }
        println!("flood {floods}: p99 {:?}, once more", rank(&flooded.times, 99));
    };
    before.wait_same_descriptors(rig);
    let after = Helper::look(rig);

    println!(
        "{REQUESTS} hostile requests in {:.1} s, {closed} connections closed for it; good client: \
         {} requests, median {:.2} ms, p99 {:.2} ms, max {:.2} ms; helper: {} KiB before, {} KiB \
         after, {} descriptors before and after",
        took.as_secs_f64(),
        times.len(),
        rank(&times, 50).as_secs_f64() * 1e3,
        rank(&times, 99).as_secs_f64() * 1e3,
        rank(&times, 100).as_secs_f64() * 1e3,
        before.resident_kib,
        after.resident_kib,
        after.descriptors,
    );
    assert!(closed > REQUESTS / 20, "the flood was not hostile: {closed} connections closed");
    assert!(times.len() > 100, "the good client asked {} times only", times.len());
    assert!(rank(&times, 99) < P99, "p99 {:?}, {floods} floods", rank(&times, 99));
    assert!(after.resident_kib <= before.resident_kib + 1024, "{before:?}, {after:?}");
    assert_eq!(rig.run(&["systemctl", "show", "-P", "Result", HELPER]).unwrap(), "success");

    starts_are_written(rig, &keys);
    let status = client.ask(Verb::Status(task.key.clone())).unwrap();
    let Ok(Answer::Status(now)) = status else { panic!("{status:?}") };
    assert_eq!((now.state, now.leader), (State::Running, started.leader));
    task.remove(&client).unwrap();
}
