//! `cargo rig soak`: the same checks as in CI with large numbers, and a table of what was done.

use super::{mutants, policy, seed};
use crate::{fuzz, outer, race};
use anyhow::{Result, anyhow};
use std::fmt;
use std::time::{Duration, Instant};

/// Specifications that the oracle judges.
const POLICY: u64 = 1_000_000;
/// Specifications until a mutant has survived.
const MUTANT: u64 = 1_000_000;
/// Tries at each place that is raced for.
const RACE: u64 = 5_000_000;
/// Messages for each decoder.
const DECODER: u64 = 100_000_000;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was tried.
    pub what: String,
    /// How often.
    pub tries: u64,
    /// How often it went wrong.
    pub wrong: u64,
    /// What shows that the check can fail: escapes of the naive arm, mutants caught, the spread.
    pub control: String,
}

/// All rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// In the order in which they ran.
    pub rows: Vec<Row>,
    seed: u64,
}

impl Table {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.wrong == 0)
    }
}

/// A number with commas.
fn commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Seed {}.\n", self.seed)?;
        writeln!(f, "| what | tries | wrong | control |\n|---|---|---|---|")?;
        for Row { what, tries, wrong, control } in &self.rows {
            writeln!(f, "| {what} | {} | {} | {control} |", commas(*tries), commas(*wrong))?;
        }
        Ok(())
    }
}

/// Repeats `step` until it has done `most` tries or its time is over; it gets the number of the
/// round and how many tries it shall make.
fn rounds(
    most: u64,
    chunk: u64,
    time: Duration,
    mut step: impl FnMut(u64, u64) -> Result<()>,
) -> Result<u64> {
    let begun = Instant::now();
    let (mut done, mut round) = (0, 0);
    while done < most && (round == 0 || begun.elapsed() < time) {
        let tries = chunk.min(most - done);
        step(round, tries)?;
        done += tries;
        round += 1;
    }
    Ok(done)
}

fn compare(seed: u64, time: Duration) -> Result<Row> {
    let (mut allowed, mut rarest) = (0, u64::MAX);
    let tries = rounds(POLICY, 50_000, time, |round, tries| {
        let tally = policy::run(seed + round, tries).map_err(|found| anyhow!("{found}"))?;
        allowed += tally.allowed;
        rarest = rarest.min(tally.rarest().map_or(0, |(_, count)| count));
        Ok(())
    })?;
    let share = allowed * 100 / tries.max(1);
    let control = format!("{share} % allowed; each rule at least {rarest} times in 50,000");
    Ok(Row { what: "policy against oracle".to_owned(), tries, wrong: 0, control })
}

fn mutate(seed: u64) -> Result<Row> {
    let all = mutants::run(seed, MUTANT, mutants::COUNT)?;
    let caught: Vec<u64> = all.iter().filter_map(|mutant| mutant.caught).collect();
    for mutant in all.iter().filter(|mutant| mutant.caught.is_none()) {
        outer::say(&format!("survived: {}", mutant.fault));
    }
    let last = commas(caught.iter().copied().max().unwrap_or(0));
    Ok(Row {
        what: "mutants of the policy".to_owned(),
        tries: u64::try_from(all.len())?,
        wrong: u64::try_from(all.len() - caught.len())?,
        control: format!("{} caught, the last after {last}", caught.len()),
    })
}

fn races(time: Duration) -> Result<Vec<Row>> {
    let mut all: Vec<race::Figures> = Vec::new();
    rounds(RACE, 100_000, time, |_, tries| {
        let figures = race::run(tries)?;
        if all.is_empty() {
            all = figures;
        } else {
            all.iter_mut().zip(figures).for_each(|(sum, more)| sum.add(&more));
        }
        Ok(())
    })?;
    let row = |it: &race::Figures| Row {
        what: format!("race: {}", it.site),
        tries: it.product.tries,
        wrong: it.product.escapes + u64::from(it.control() == 0),
        control: format!(
            "escaped: O_NOFOLLOW {} of {}, check first {}",
            commas(it.no_follow.escapes),
            commas(it.no_follow.tries),
            commas(it.check_first.escapes)
        ),
    };
    Ok(all.iter().map(row).collect())
}

fn decode(target: &fuzz::Target, seed: u64, time: Duration) -> Result<Row> {
    let (mut taken, mut peak) = (0, 0);
    let tries = rounds(DECODER, 500_000, time, |round, tries| {
        let figures = fuzz::run(target, seed + round, tries).map_err(|wrong| anyhow!(wrong))?;
        taken += figures.taken;
        peak = peak.max(figures.peak);
        Ok(())
    })?;
    let control = format!("{} taken, most memory {} KiB", commas(taken), peak.div_ceil(1024));
    Ok(Row { what: format!("bytes: {}", target.name), tries, wrong: 0, control })
}

/// Runs everything within about this time; rows that do not reach their number say what they reached.
///
/// # Errors
/// A disagreement, a panic, or too much memory, with what it takes to repeat it.
pub fn run(minutes: u64) -> Result<Table> {
    let seed = seed();
    let whole = Duration::from_secs(minutes * 60);
    let mut table = Table { rows: Vec::new(), seed };
    let mut add = |row: Row| {
        outer::say(&format!("{}: {} tries, {} wrong", row.what, commas(row.tries), row.wrong));
        table.rows.push(row);
    };
    add(compare(seed, whole / 10)?);
    add(mutate(seed)?);
    races(whole * 4 / 10)?.into_iter().for_each(&mut add);
    let targets = fuzz::all()?;
    let share = whole * 4 / 10 / u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
    for target in &targets {
        add(decode(target, seed, share)?);
    }
    Ok(table)
}
