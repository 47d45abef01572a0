//! The helper's policy against the oracle's: in process, by mutants, and through the real socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use nspawn_tests::hostile::Door;
use nspawn_tests::oracle::compare::next_policy;
use nspawn_tests::oracle::random::Random;
use nspawn_tests::oracle::{Verdict, generate, judge, wire};
use nspawn_tests::{Config, Rig, soak};
use proto::error::Code;
use proto::step::Step;
use proto::task_spec::network::Private;
use proto::task_spec::{Network, Ownership};

/// Specifications in CI; `cargo rig soak` tries a million.
const TRIES: u64 = 150_000;
/// The rarest of them is met once in some ten thousand; who is caught costs no more tries.
const TRIES_OF_A_MUTANT: u64 = 1_000_000;

#[test]
fn the_policy_says_what_the_oracle_says() {
    let seed = soak::seed();
    let tally = soak::policy::run(seed, TRIES).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    println!("{tally:?}");
    assert_eq!(tally.poor(), None);
}

/// Twenty of the seed's choice here, all of them in the soak.
#[test]
fn twenty_mutants_of_the_policy_are_caught() {
    let seed = soak::seed();
    let mutants = soak::mutants::run(seed, TRIES_OF_A_MUTANT, 20).unwrap();
    for mutant in &mutants {
        println!("{mutant:?}");
    }
    assert_eq!(mutants.len(), 20);
    let survivors: Vec<_> = mutants.iter().filter(|mutant| mutant.caught.is_none()).collect();
    assert!(survivors.is_empty(), "SOAK_SEED={seed}: survived: {survivors:#?}");
}

/// Policy files and specifications that go through the real socket.
const FILES: usize = 6;
const SPECS: usize = 50;

/// A driver without any check of its own sends what the oracle has judged; what the policy allows
/// may fail later, because there is no such allocation.
#[test]
fn p08_p17_p40_a_driver_that_checks_nothing_gets_the_oracles_verdict() {
    let seed = soak::seed();
    let mut random = Random::new(seed);
    let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..FILES {
        let (text, settings) = next_policy(&mut random);
        rig.set_policy(&text).unwrap();
        let mut client = Door::of(&rig).unwrap().enter().unwrap();
        for _ in 0..SPECS {
            let (spec, _) = generate::spec(&mut random, &settings);
            let (oracle, broken) = judge(&spec, &settings);
            let may_start = matches!(oracle, Verdict::Allowed(_));
            let Ok(whole) = wire::bytes(&spec) else { continue };
            // An image of the host's own must keep its owners.
            if may_start && spec.root.ownership == Ownership::Chown {
                continue;
            }
            // Whether an address is of the pool depends on the host.
            let has_address = |it: &Private| it.v4.is_some() || it.v6.is_some();
            if may_start && matches!(&spec.network, Network::Private(it) if has_address(it)) {
                continue;
            }
            let answer = client.start_bytes(&whole).unwrap();
            let told = format!("seed {seed}, {broken:?}, policy:\n{text}\n{answer:?}\n{spec:?}");
            match answer {
                // A mount point that no specification can hold.
                Err(refusal) if refusal.code == Code::Protocol => {
                    assert!(wire::received(&spec).is_none(), "{told}");
                    assert_eq!(oracle, Verdict::Invalid, "{told}");
                    refused += 1;
                    // The helper hangs up on whoever sends what cannot be decoded.
                    client = Door::of(&rig).unwrap().enter().unwrap();
                }
                Err(refusal) if refusal.step == Step::Decide.name() => {
                    let right = match oracle {
                        Verdict::Invalid => Code::Invalid,
                        Verdict::Policy => Code::Policy,
                        _ => panic!("refused: {told}"),
                    };
                    assert_eq!(refusal.code, right, "{told}");
                    refused += 1;
                }
                later => {
                    assert!(may_start, "not refused by the policy: {told}");
                    assert!(later.is_err(), "started without its allocation: {told}");
                    allowed += 1;
                }
            }
        }
    }
    println!("{allowed} allowed, {refused} refused as the oracle says");
    assert!(allowed >= 30 && refused >= 30, "{allowed} allowed, {refused} refused");
    rig.down().unwrap();
}

/// What a policy file may not hold: it is refused whole.
const BAD: [&str; 26] = [
    "prest = \"strict\"",
    "preset = \"lax\"",
    "preset = 1",
    "[image]\nstore = \"/x\"",
    "[images]\nstor = \"/x\"",
    "[images]\nstore = \"relative\"",
    "[images]\nstore = [\"/x\"]",
    "[images]\npaths = [7]",
    "[images]\npaths = [{ path = \"/x\", writable = \"yes\" }]",
    "[images]\npaths = [{ path = \"/x\", writable = true, more = 1 }]",
    "[images]\nmin_verify = \"no\"",
    "[nomad]\nalloc_dirs = [\"/a/../b\"]",
    "[nomad]\nagent_uid = -1",
    "[userns]\nrequire = \"no\"",
    "[userns]\nexcept = [\"image\"]",
    "[binds]\nread_only = \"/srv\"",
    "[binds]\nunprotected = \"maybe\"",
    "[devices]\nallow = [\"/dev/null\"]",
    "[devices]\nallow = [\"/dev/null:x\"]",
    "[devices]\nallow = [\"/etc/passwd:r\"]",
    "[caps]\nallow = [\"no_such\"]",
    "[network]\nallow = [\"everything\"]",
    "[network]\nports = [\"80-22\"]",
    "[limits]\nmemory = \"2q\"",
    "[limits]\ntasks = -1",
    "[audit]\ntarget = \"journal\"",
];

#[test]
fn a_policy_file_with_one_bad_line_is_refused_whole() {
    for bad in BAD {
        assert!(policy::parse(bad).is_err(), "{bad}");
        let both = format!("{bad}\n[lsm]\nprofiles = []\n");
        assert!(policy::parse(&both).is_err(), "{both}");
    }
}
