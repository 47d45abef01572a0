//! Runs the oracle and the product over the same random questions.

use super::file::Settings;
use super::random::Random;
use super::{Answer, Verdict, commands, generate, judge, wire};
use proto::exec::ExecSpec;
use proto::path::Absolute;
use proto::task_spec::TaskSpec;
use std::collections::BTreeMap;
use std::fmt;

/// Specifications for one policy file.
const PER_POLICY: u64 = 20;

/// Commands for one policy file.
const COMMANDS_PER_POLICY: usize = 4;

/// What the product says to a specification.
pub type Decide = Box<dyn Fn(&TaskSpec) -> Verdict>;
/// What it says to a command in a task.
pub type Permit = Box<dyn Fn(&ExecSpec) -> Answer>;
/// Both, with one policy file.
pub type Product = (Decide, Permit);

/// What has been tried.
#[derive(Debug, Default)]
pub struct Tally {
    /// Specifications.
    pub tried: u64,
    /// Allowed ones.
    pub allowed: u64,
    /// Refused ones.
    pub refused: u64,
    /// How often each rule was broken, and how often it alone.
    pub rules: BTreeMap<&'static str, (u64, u64)>,
}

/// Where the two differ.
#[derive(Debug)]
pub struct Disagreement {
    /// How many specifications had been tried.
    pub after: u64,
    /// The policy file.
    pub policy: String,
    /// What made the specification, and which rules the oracle sees broken.
    pub why: String,
    /// The oracle's verdict.
    pub oracle: String,
    /// The product's.
    pub product: String,
    /// The specification, or the command.
    pub spec: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "oracle {}, product {} ({})", self.oracle, self.product, self.why)?;
        write!(f, "policy:\n{}\nspecification: {}", self.policy, self.spec)
    }
}

/// The next policy file, with what holds.
#[must_use]
pub fn next_policy(random: &mut Random) -> (String, Settings) {
    let file = generate::policy(random);
    (file.text(), file.settings())
}

/// Compares both `tries` times from a seed.
///
/// # Errors
/// The first question on which they differ.
pub fn compare(
    seed: u64,
    tries: u64,
    product: impl Fn(&str) -> Result<Product, String>,
) -> Result<Tally, Box<Disagreement>> {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    while tally.tried < tries {
        let (text, settings) = next_policy(&mut random);
        let product = product(&text);
        for _ in 0..PER_POLICY.min(tries - tally.tried) {
            let (spec, twists) = generate::spec(&mut random, &settings);
            let (oracle, broken) = judge(&spec, &settings);
            tally.count(&oracle, broken.all().collect());
            let decided = match &product {
                Ok((decide, _)) => match wire::received(&spec) {
                    Some(spec) => decide(&spec),
                    // What cannot be decoded is refused before any policy.
                    None => Verdict::Invalid,
                },
                Err(error) => Verdict::Other(format!("the file is refused: {error}")),
            };
            if decided != oracle {
                return Err(Box::new(Disagreement {
                    after: tally.tried,
                    policy: text,
                    why: format!("twists {twists:?}, broken {broken:?}"),
                    oracle: format!("{oracle:?}"),
                    product: format!("{decided:?}"),
                    spec: format!("{spec:#?}"),
                }));
            }
        }
        let Ok((_, permit)) = &product else { continue };
        let (task, _) = generate::spec(&mut random, &settings);
        for _ in 0..COMMANDS_PER_POLICY {
            let command = commands::random(&mut random, &task);
            let (oracle, broken) = commands::judge(&command, &settings);
            tally.count_rules(broken.all().collect());
            let answer = permit(&command);
            if answer != oracle {
                return Err(Box::new(Disagreement {
                    after: tally.tried,
                    policy: text,
                    why: format!("broken {broken:?}"),
                    oracle: format!("{oracle:?}"),
                    product: format!("{answer:?}"),
                    spec: format!("{} words, {command:?}", command.words.len()),
                }));
            }
        }
    }
    Ok(tally)
}

/// Compares who holds a mount point with the oracle's rule `tries` times from a seed.
///
/// # Errors
/// After how many places the two differ.
pub fn compare_targets(
    seed: u64,
    tries: u64,
    holds: impl Fn(&Absolute) -> bool,
) -> Result<(), u64> {
    let mut random = Random::new(seed);
    (0..tries).try_for_each(|number| {
        let path = super::mounts::place(&mut random);
        let same = holds(&path) == super::sizes::is_free(&path.to_string());
        if same { Ok(()) } else { Err(number) }
    })
}

impl Tally {
    fn count(&mut self, verdict: &Verdict, broken: Vec<&'static str>) {
        self.tried += 1;
        if broken.is_empty() {
            self.allowed += 1;
        } else {
            self.refused += 1;
        }
        debug_assert!(broken.is_empty() == matches!(verdict, Verdict::Allowed(_)));
        self.count_rules(broken);
    }

    fn count_rules(&mut self, broken: Vec<&'static str>) {
        let alone = u64::from(broken.len() == 1);
        for rule in broken {
            let (all, only) = self.rules.entry(rule).or_default();
            *all += 1;
            *only += alone;
        }
    }

    /// The rule that was broken least often, and how often.
    #[must_use]
    pub fn rarest(&self) -> Option<(&'static str, u64)> {
        self.rules.iter().map(|(rule, (all, _))| (*rule, *all)).min_by_key(|(_, all)| *all)
    }

    /// Why the questions were not varied enough to mean anything, if they were not.
    #[must_use]
    pub fn poor(&self) -> Option<String> {
        if self.allowed * 5 < self.tried || self.refused * 10 < self.tried {
            return Some(format!("{} of {} allowed", self.allowed, self.tried));
        }
        let (rule, count) = self.rarest()?;
        (count < 100).then(|| format!("rule {rule} was broken {count} times only"))
    }
}
