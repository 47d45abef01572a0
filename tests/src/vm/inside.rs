//! Tests that run inside a virtual machine.
//!
//! A test hands its body to [`inside`]. In the machine it is executed. Outside, the first test of the
//! program boots a machine, hands in the program itself and runs there every test that this run
//! has selected; each test then passes or fails as its body did. So each is listed, selected and
//! counted like any other, and none can be lost: a test that did not run inside fails.

use super::{Config, Machine};
use crate::host::here;
use crate::outer;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// For all tests of a program together, on the outer machine's clock if by KVM; emulated, five
/// times as long.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs the body of a test in the machine; outside, reports how it ended there.
///
/// # Panics
/// When the body did, or did not run.
#[allow(clippy::panic, reason = "a test fails by it")]
pub fn inside<F: FnOnce()>(body: F) {
    if here::is_here() {
        return body();
    }
    // Of a closure in a test, `program::module::test::{{closure}}`.
    let name = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    static RUN: LazyLock<Result<BTreeMap<String, bool>, String>> =
        LazyLock::new(|| run().map_err(|error| format!("{error:#}")));
    match &*RUN {
        Err(error) => panic!("the virtual machine: {error}"),
        Ok(ended) => match ended.get(name) {
            Some(true) => {}
            Some(false) => panic!("{name} failed in the virtual machine, see above"),
            None => panic!("{name} did not run in the virtual machine, only {ended:?}"),
        },
    }
}

/// The arguments of this run that select tests.
fn selection() -> Vec<String> {
    let mut words = std::env::args().skip(1);
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--test-threads" | "--format" | "--color" | "--logfile" => drop(words.next()),
            "--nocapture" | "--no-capture" | "--show-output" | "-q" | "--quiet" => {}
            _ if word.starts_with("--test-threads=") || word.starts_with("--color=") => {}
            _ => kept.push(word),
        }
    }
    kept
}

/// The tests that `selection` names, as the program lists them.
fn list(program: &str, selection: &[String]) -> Result<Vec<String>> {
    let text = outer::run(Command::new(program).arg("--list").args(selection))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs the selected tests of this program inside; which passed.
fn run() -> Result<BTreeMap<String, bool>> {
    let program = std::env::current_exe()?;
    let name = program.file_name().and_then(|name| name.to_str()).context("no name")?.to_owned();
    let selection = selection();
    let listed = list(program.to_str().context("its path")?, &selection)?;
    let machine =
        Machine::boot(&Config { programs: vec![program.clone()], ..Config::from_env()? })?;
    let start = Instant::now();
    // Each stream has its lines: a test's name waits for its verdict while others are written.
    let (mut lines, mut ended) = ([Vec::new(), Vec::new()], BTreeMap::new());
    let inside = Machine::program(&name);
    let mut args = vec![inside.as_str(), "--test-threads", "1"];
    args.extend(selection.iter().map(String::as_str));
    let status = machine.stream(&args, LIMIT, |error, bytes| {
        let [stdout, stderr] = &mut lines;
        let line = if error { stderr } else { stdout };
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(line).into_owned();
            outer::tell(&format!("vm: {text}"));
            if let Some((name, passed)) = verdict(&text) {
                ended.insert(name, passed);
            }
            line.clear();
        }
    })?;
    outer::tell(&format!("vm: {} tests in {} s", ended.len(), start.elapsed().as_secs()));
    let journal = Duration::from_secs(60);
    if !status.success() {
        let words = ["journalctl", "--no-pager", "-o", "short-monotonic", "-n", "200"];
        outer::tell(&machine.exec(&words, journal)?.text());
    }
    machine.down()?;
    let ran: Vec<String> = ended.keys().cloned().collect();
    let mut listed = listed;
    listed.sort_unstable();
    if ran != listed {
        bail!("{status}: these were to run: {listed:?}, and these did: {ran:?}");
    }
    Ok(ended)
}

/// Reads `test NAME ... ok`; a test's name has no blank.
fn verdict(line: &str) -> Option<(String, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match verdict {
        "ok" => Some((name.to_owned(), true)),
        "FAILED" => Some((name.to_owned(), false)),
        _ => None,
    }
}
