//! Clients that begin something and do not go on: each is let go when its time is over.
//!
//! On the host with the agent, because these wait for half a minute while other tests count
//! connections.

use crate::host;
use nspawn_tests::hostile::{Client, Door, Heard};
use nspawn_tests::wait;
use proto::limits::ASSEMBLY_TIMEOUT_S;
use proto::parts::Part;
use proto::wire::{Answer, Verb};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// Connections that begin a specification: one falls silent, one sends a byte now and then.
struct Unfinished {
    begun: Instant,
    silent: Client,
    dripping: Client,
}

impl Unfinished {
    fn begin(door: &Door) -> Self {
        let [silent, dripping] = [(); 2].map(|()| door.enter().unwrap());
        let begun = Instant::now();
        for client in [&silent, &dripping] {
            let part = Part { offset: 0, bytes: vec![0; 1000] };
            assert_eq!(client.ask(Verb::Part(part)).unwrap(), Ok(Answer::Taken));
        }
        Self { begun, silent, dripping }
    }

    /// Both must end when the time is over, not before and not much later.
    fn end(self) {
        let limit = Duration::from_secs(ASSEMBLY_TIMEOUT_S);
        let mut offset = 1000;
        loop {
            let part = Part { offset, bytes: vec![0; 1] };
            let bytes = self.dripping.request(Verb::Part(part)).unwrap();
            // It may be closed between two bytes.
            if self.dripping.send(&bytes).is_err() {
                break;
            }
            match self.dripping.hear(Duration::from_secs(8)).unwrap() {
                Heard::Reply(_) => offset += 1,
                Heard::Closed => break,
                Heard::Silence => panic!("no answer to a part"),
            }
            if matches!(self.dripping.hear(Duration::from_secs(1)).unwrap(), Heard::Closed) {
                break;
            }
            assert!(self.begun.elapsed() < limit + SOON, "a drip kept the specification open");
        }
        assert!(matches!(self.silent.hear(SOON).unwrap(), Heard::Closed));
        let took = self.begun.elapsed();
        println!("unfinished specifications closed after {:.1} s", took.as_secs_f64());
        assert!(took >= limit && took < limit + SOON, "closed after {took:?}");
    }
}

/// Asks and never reads, until the helper waits for room; it must not wait forever.
fn never_reading(door: &Door) {
    let client = door.enter().unwrap();
    let (mut replies, mut unread) = (0, 0);
    loop {
        client.send(&client.request(Verb::List(None)).unwrap()).unwrap();
        let answered = wait::until("a reply", Duration::from_secs(3), || {
            Ok(Some(client.unread()?).filter(|now| *now > unread))
        });
        let Ok(now) = answered else { break };
        unread = now;
        replies += 1;
    }
    let stuck = Instant::now();
    assert!(client.hangs_up(SOON).unwrap(), "a client that does not read is kept");
    println!(
        "{replies} unread replies, then closed within {:.1} s",
        stuck.elapsed().as_secs_f64() + 3.0
    );
    assert!(replies > 10 && stuck.elapsed() > Duration::from_secs(1), "{replies} replies");
}

#[test]
fn p27_who_does_not_go_on_is_let_go() {
    let door = Door::of(host()).unwrap();
    let unfinished = Unfinished::begin(&door);
    never_reading(&door);
    unfinished.end();
    door.enter().unwrap();
}
