//! Much at once: bytes and sessions.

use crate::{LIMIT, Service, busybox, finish, host, leaves_of, parts};
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

/// In each direction.
const BYTES: usize = 200_000_000;

/// Rounds of the same: more by hand.
fn rounds() -> usize {
    std::env::var("EXEC_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Bytes without a pattern that a lost block could hide in.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, block: &mut [u8]) {
        for chunk in block.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn hash_all(mut source: impl std::io::Read) -> (usize, String) {
    let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let length = source.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        total += length;
    }
    (total, format!("{:x}", hash.finalize()))
}

#[test]
fn every_byte_arrives_in_both_directions_at_once() {
    let _host = host();
    let service = Service::start("bulk", busybox());
    for round in 0..rounds() {
        let begun = Instant::now();
        let mut child =
            service.spawn(&["/bin/sh", "-c", "tee /tmp/copy; sha256sum < /tmp/copy >&2"]);
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let seed = 0x9e37_79b9_7f4a_7c15 + round as u64;
        let writer = std::thread::spawn(move || {
            let (mut noise, mut hash) = (Noise(seed), Sha256::new());
            let (mut block, mut left) = (vec![0; 1 << 16], BYTES);
            while left > 0 {
                let length = left.min(block.len());
                noise.fill(&mut block[..length]);
                hash.update(&block[..length]);
                stdin.write_all(&block[..length]).unwrap();
                left -= length;
            }
            format!("{:x}", hash.finalize())
        });
        let (length, received) = hash_all(stdout);
        let sent = writer.join().unwrap();
        let mut inside = String::new();
        child.stderr.take().unwrap().read_to_string(&mut inside).unwrap();
        assert!(child.wait().unwrap().success(), "{inside}");
        assert_eq!(length, BYTES);
        assert_eq!(received, sent, "what came back");
        assert_eq!(inside.split(' ').next().unwrap(), sent, "what arrived inside");
        println!("round {round}: {:?}", begun.elapsed());
    }
    service.purge();
}

#[test]
fn twenty_at_once_are_all_served() {
    let _host = host();
    let service = Service::start("twenty", busybox());
    let begun = Instant::now();
    let scripts: Vec<_> = (0..20).map(|n| format!("read line; echo $line {n}; exit {n}")).collect();
    let children: Vec<_> =
        scripts.iter().map(|script| service.spawn(&["/bin/sh", "-c", script])).collect();
    for (number, child) in children.into_iter().enumerate() {
        let (out, err, code) = parts(&finish(child, b"line\n"));
        let code_expected = i32::try_from(number).unwrap();
        assert_eq!((out, err.as_str(), code), (format!("line {number}\n"), "", code_expected));
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    // A cgroup goes with its session.
    let is_clean = || Ok(leaves_of(&service.alloc.id).is_empty());
    nspawn_tests::wait::true_within("no cgroup", Duration::from_secs(3), is_clean).unwrap();
    service.purge();
}
