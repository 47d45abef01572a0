//! `cargo rig soak`: the same checks as in CI with large numbers, and a table of what was done.

use super::{exec, mutants, policy, seed};
use crate::hostile::Door;
use crate::{Config, Rig, filters, fuzz, outer, race};
use anyhow::{Context as _, Error, Result, anyhow, bail};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Specifications that the oracle judges.
const POLICY: u64 = 1_000_000;
/// Specifications until a mutant has survived.
const MUTANT: u64 = 1_000_000;
/// Tries at each place that is raced for.
const RACE: u64 = 5_000_000;
/// Starts with a damaged cache of system call filters.
const STARTS: u64 = 10_000;
/// Commands in a task whose payload looks for their processes.
const SESSIONS: u64 = 3_000;
/// Messages for each decoder.
const DECODER: u64 = 100_000_000;
/// Seeds that one core may use up.
const SEEDS: u64 = 1 << 32;

/// What can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The policy against the oracle.
    Oracle,
    /// The policy's mutants against the oracle.
    Mutants,
    /// Races for what the launcher opens.
    Races,
    /// Starts on a test host while the cache of system call filters is damaged.
    Filters,
    /// Commands in a task whose payload tries to reach each process that enters.
    Exec,
    /// Broken messages for every reader.
    Bytes,
    /// Broken messages for one reader, by its number.
    Reader(usize),
}

impl Part {
    /// In the order in which they run.
    pub const ALL: [Self; 6] =
        [Self::Oracle, Self::Mutants, Self::Races, Self::Filters, Self::Exec, Self::Bytes];

    /// Its share of the time; mutants take what they take.
    fn share(self) -> u32 {
        match self {
            Self::Oracle => 1,
            Self::Mutants => 0,
            Self::Races | Self::Filters => 4,
            Self::Bytes => 5,
            Self::Reader(_) | Self::Exec => 1,
        }
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "oracle" => Ok(Self::Oracle),
            "mutants" => Ok(Self::Mutants),
            "races" => Ok(Self::Races),
            "filters" => Ok(Self::Filters),
            "exec" => Ok(Self::Exec),
            "bytes" => Ok(Self::Bytes),
            name => {
                let readers = fuzz::all()?;
                if let Some(number) = readers.iter().position(|reader| reader.name == name) {
                    return Ok(Self::Reader(number));
                }
                let names: Vec<_> = readers.iter().map(|reader| reader.name).collect();
                let names = names.join(", ");
                bail!(
                    "{name:?} is none of oracle, mutants, races, filters, exec, bytes, nor a reader: \
                     {names}"
                )
            }
        }
    }
}

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

/// Runs `part` on every core at once, each with seeds of its own; its number counts them from 0.
fn on_every_core<T: Send>(
    seed: u64,
    part: impl Fn(u64, u64) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let cores = u64::try_from(std::thread::available_parallelism()?.get())?;
    std::thread::scope(|scope| {
        let part = &part;
        let run = |core: u64| scope.spawn(move || part(seed + core * SEEDS, cores));
        let threads: Vec<_> = (0..cores).map(run).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<T>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

fn compare(seed: u64, time: Duration) -> Result<Row> {
    let all = on_every_core(seed, |seed, cores| {
        let (mut allowed, mut rarest) = (0, u64::MAX);
        let tries = rounds(POLICY.div_ceil(cores), 50_000, time, |round, tries| {
            let tally = policy::run(seed + round, tries).map_err(|found| anyhow!("{found}"))?;
            allowed += tally.allowed;
            rarest = rarest.min(tally.rarest().map_or(0, |(_, count)| count));
            Ok(())
        })?;
        Ok((tries, allowed, rarest))
    })?;
    let tries: u64 = all.iter().map(|(tries, ..)| tries).sum();
    let allowed: u64 = all.iter().map(|(_, allowed, _)| allowed).sum();
    let rarest = all.iter().map(|(.., rarest)| *rarest).min().unwrap_or(0);
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

fn scan(seed: u64, time: Duration) -> Result<Row> {
    let scanner = filters::scan::Scanner::new()?;
    let mut all = filters::scan::Figures::default();
    rounds(STARTS, 250, time, |round, starts| {
        all.add(scanner.run(seed + round, starts)?);
        Ok(())
    })?;
    all.wrong.iter().for_each(|wrong| outer::say(wrong));
    Ok(Row {
        what: "starts with a damaged cache of filters".to_owned(),
        tries: all.starts,
        wrong: u64::try_from(all.wrong.len())?,
        control: all.to_string(),
    })
}

fn enter(time: Duration) -> Result<Row> {
    let rig = Rig::up(&Config { agent: false, ..Config::from_env()? })?;
    let client = Door::of(&rig)?.enter()?;
    let mut all = exec::Figures::default();
    let (mut looks, mut wrong) = (0, 0);
    // Three values of a setting each time.
    rounds(SESSIONS, 300, time, |_, sessions| {
        let figures = exec::run(&rig, &client, sessions / 3)?;
        all.sessions += figures.sessions;
        for (value, seen, reached) in figures.values {
            // Whoever sees nothing has tried nothing.
            wrong += reached + u64::from(seen == 0);
            looks += seen;
            if reached > 0 {
                outer::say(&format!("fs.suid_dumpable {value}: {reached} times reached"));
            }
        }
        Ok(())
    })?;
    rig.down()?;
    let control = format!("the payload saw a process that entered {} times", commas(looks));
    Ok(Row {
        what: "commands beside a hostile payload".to_owned(),
        tries: all.sessions,
        wrong,
        control,
    })
}

fn decode(number: usize, seed: u64, time: Duration) -> Result<Row> {
    let all = on_every_core(seed, |seed, cores| {
        let targets = fuzz::all()?;
        let target = targets.get(number).context("no such reader")?;
        let (mut taken, mut peak) = (0, 0);
        let tries = rounds(DECODER.div_ceil(cores), 250_000, time, |round, tries| {
            let figures = fuzz::run(target, seed + round, tries).map_err(|wrong| anyhow!(wrong))?;
            taken += figures.taken;
            peak = peak.max(figures.peak);
            Ok(())
        })?;
        Ok((target.name, tries, taken, peak))
    })?;
    let what = format!("bytes: {}", all.first().map_or("", |(name, ..)| name));
    let tries = all.iter().map(|(_, tries, ..)| tries).sum();
    let taken = all.iter().map(|(_, _, taken, _)| taken).sum();
    let peak = all.iter().map(|(.., peak)| *peak).max().unwrap_or(0);
    let control = format!("{} taken, most memory {} KiB", commas(taken), peak.div_ceil(1024));
    Ok(Row { what, tries, wrong: 0, control })
}

/// Runs these parts within about this time; rows that do not reach their number say what they
/// reached.
///
/// # Errors
/// A disagreement, a panic, or too much memory, with what it takes to repeat it.
pub fn run(minutes: u64, parts: &[Part]) -> Result<Table> {
    let seed = seed();
    let whole = Duration::from_secs(minutes * 60);
    let begun = Instant::now();
    let mut shares: u32 = parts.iter().map(|part| part.share()).sum();
    let mut table = Table { rows: Vec::new(), seed };
    let mut add = |row: Row| {
        outer::say(&format!("{}: {} tries, {} wrong", row.what, commas(row.tries), row.wrong));
        table.rows.push(row);
    };
    for part in parts {
        // What the parts before it have left of their time is shared out as well.
        let left = whole.saturating_sub(begun.elapsed());
        let time = left * part.share() / shares.max(1);
        shares -= part.share();
        match part {
            Part::Oracle => add(compare(seed, time)?),
            Part::Mutants => add(mutate(seed)?),
            Part::Races => races(time)?.into_iter().for_each(&mut add),
            Part::Filters => add(scan(seed, time)?),
            Part::Exec => add(enter(time)?),
            Part::Bytes => {
                let end = Instant::now() + time;
                let readers = fuzz::all()?.len();
                for number in 0..readers {
                    let left = end.saturating_duration_since(Instant::now());
                    add(decode(number, seed, left / u32::try_from(readers - number)?)?);
                }
            }
            Part::Reader(number) => add(decode(*number, seed, time)?),
        }
    }
    Ok(table)
}
