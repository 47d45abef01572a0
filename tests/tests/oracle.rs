//! The helper's policy against the oracle's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use nspawn_tests::oracle::{self, Verdict, compare, compare::Product};

#[test]
fn spread() {
    let (mut random, mut n) = (oracle::random::Random::new(1), 0);
    let t = std::time::Instant::now();
    let mut codes = [0; 3];
    let mut rules = std::collections::BTreeMap::<_, (u32, u32)>::new();
    while n < 100_000 {
        let (_text, settings) = compare::next_policy(&mut random);
        for _ in 0..20 {
            let (spec, _) = oracle::generate::spec(&mut random, &settings);
            let (verdict, broken) = oracle::judge(&spec, &settings);
            codes[match verdict {
                Verdict::Allowed(_) => 0,
                Verdict::Invalid => 1,
                _ => 2,
            }] += 1;
            let all: Vec<_> = broken.all().collect();
            for r in &all {
                let e = rules.entry(*r).or_default();
                e.0 += 1;
                e.1 += u32::from(all.len() == 1);
            }
            n += 1;
        }
    }
    println!("{codes:?} {rules:#?} {:?}", t.elapsed());
    let _: Option<Product> = None;
}
