//! Mutants of the policy: its real text with one planted fault each, compiled together into one
//! program that compares every one with the oracle.
//!
//! A fault is a text that stands in the policy exactly once, and what takes its place. When the
//! policy is rewritten so that the text is gone, this fails and the fault must be planted anew.

use crate::oracle::random::Random;
use crate::product::workspace;
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// File below helper/policy/src, or proto/sockets/src/target.rs; text, and what takes its place.
type Fault = (&'static str, &'static str, &'static str);

/// All of them.
const FAULTS: [Fault; 72] = [
    ("exec.rs", "is_none_or(|word| word", "is_none_or(|word| false && word"),
    ("exec.rs", "bounds::check_words(&spec.words)?;", ""),
    ("exec.rs", "bounds::check_environment(&spec.environment)?;", ""),
    (
        "exec.rs",
        "if policy.exec.allow {",
        "if policy.exec.allow || policy.exec.max_sessions.0 > 64 {",
    ),
    ("bounds.rs", "if count > most {", "if count > most + 1 {"),
    ("bounds.rs", "word.reveal().contains('\\0')", "word.reveal().contains('\\u{1}')"),
    (
        "bounds.rs",
        "once(\"label\", spec.labels.iter()",
        "once(\"label\", spec.labels.iter().take(1)",
    ),
    ("bounds.rs", "len() > CREDENTIAL_MAX", "len() > CREDENTIAL_MAX + 1"),
    ("bounds.rs", ".sum::<usize>() + upper(&it.upper)", ".sum::<usize>()"),
    ("bounds.rs", "at_most(components(spec), PATHS_MAX,", "at_most(0, PATHS_MAX,"),
    (
        "contradictions.rs",
        "limit.soft.unwrap_or(u64::MAX) > limit.hard",
        "limit.soft.unwrap_or(0) > limit.hard",
    ),
    ("contradictions.rs", "*mode > 0o7777", "*mode > 0o17777"),
    (
        "contradictions.rs",
        "_ if !spec.users.isolates() =>",
        "_ if spec.users == proto::task_spec::Users::Host =>",
    ),
    (
        "contradictions.rs",
        "Ownership::Chown if spec.root.kind != ImageKind::Tree",
        "Ownership::Chown if false",
    ),
    ("contradictions.rs", "(1..=READY_TIMEOUT_MAX_S)", "(0..=READY_TIMEOUT_MAX_S)"),
    ("target.rs", "[\"proc\" | \"sys\", ..]", "[\"proc\", ..]"),
    ("target.rs", "| [\"run\", \"host\", ..]", "| [\"run\", \"host\", _, ..]"),
    ("target.rs", "&[\"local\"], &[\"secrets\"]]", "&[\"local\"], &[\"etc\"]]"),
    (
        "target.rs",
        "TAKEN.contains(&names.as_slice())",
        "!names.is_empty() && TAKEN.contains(&names.as_slice())",
    ),
    ("targets.rs", ".chain(devices).chain(&files.inaccessible)", ".chain(&files.inaccessible)"),
    ("targets.rs", ".chain(&files.inaccessible).chain(pivot)", ".chain(&files.inaccessible)"),
    ("users.rs", "Users::Fixed { base, .. } if base < FIRST_OTHER", "Users::Fixed { base: 0, .. }"),
    ("users.rs", "base.checked_add(width).is_none()", "base == u32::MAX"),
    ("users.rs", "it.to_path() == path", "path.starts_with(it.to_path())"),
    ("users.rs", "&& !(known && aligned)", "&& !known"),
    ("images.rs", "holding.max_by_key(", "holding.min_by_key("),
    ("images.rs", "path.components().is_empty() && !writes", "path.components().is_empty()"),
    ("images.rs", ".chain(&policy.derived.alloc_mounts)", ""),
    ("images.rs", "place.root.below(directory).is_none()", "true"),
    ("images.rs", "if writes && let Some(kept)", "if false && let Some(kept)"),
    ("images.rs", "if spec.root.mode.writes_image() {", "if false {"),
    ("images.rs", "entry.writable && depth > 1", "entry.writable && depth > 2"),
    ("parse.rs", "[never.as_slice(), &alloc_mounts].concat()", "[never.as_slice()].concat()"),
    (
        "binds.rs",
        "one.below(other).is_some() || other.below(one).is_some()",
        "one.below(other).is_some()",
    ),
    ("binds.rs", ".filter(|_| !writes)", ".filter(|_| true)"),
    ("binds.rs", "csi.as_str() == \"csi\"", "csi.as_str().starts_with(\"csi\")"),
    ("binds.rs", "host.place(to, true)", "host.place(to, false)"),
    ("binds.rs", "path.below(&self.spec.alloc_dir)", "path.below(&self.dirs.alloc_dir.root)"),
    ("allocation.rs", "..] if task == own => return", "..] => return"),
    ("allocation.rs", "| [_, \"local\", ..] => return", "| [_, \"local\" | \"etc\", ..] => return"),
    ("allocation.rs", "| [_, \"local\", ..] => return", "| [_, _, ..] => return"),
    (
        "allocation.rs",
        "[task, \"secrets\" | \"tmp\", ..]",
        "[task, \"secrets\" | \"tmp\" | \"private\", ..]",
    ),
    ("allocation.rs", "[\"alloc\"] | [\"alloc\", \"logs\", ..]", "[\"alloc\", \"logs\", ..]"),
    (
        "allocation.rs",
        "[\"alloc\"] | [\"alloc\", \"logs\", ..]",
        "[\"alloc\"] | [\"alloc\", \"logs\"]",
    ),
    ("allocation.rs", "Some(\"secrets\" | \"local\")", "Some(\"secrets\" | \"local\" | \"tmp\")"),
    ("devices.rs", "(!write || allowed.write) && ", ""),
    ("glob.rs", "Some(*byte) != stop", "Some(*byte) != stop.or(Some(0)).filter(|_| false)"),
    (
        "bounds.rs",
        "at_most(spec.network.ports().len(), PORTS_MAX,",
        "at_most(spec.network.ports().len(), PORTS_MAX + 1,",
    ),
    ("addresses.rs", "Ok(Self(low..=high))", "Ok(Self(low..=high.saturating_add(1)))"),
    ("network.rs", "insert((port.address, port.host))", "insert((port.address, port.task))"),
    ("network.rs", "&& !has(spec.isolation.drop)", ""),
    ("network.rs", "spec.users != Users::Host &&", ""),
    ("network.rs", "&& policy.network.container_admin", ""),
    ("network.rs", "address.to_ipv4_mapped().is_none()", "true"),
    ("network.rs", "form && !address.is_unspecified()", "form"),
    (
        "network.rs",
        "spec.network.ports().iter().find(",
        "spec.network.ports().iter().take(1).find(",
    ),
    ("network.rs", "matches(pattern, zone, None)", "pattern == zone"),
    ("network.rs", "check_zone(wanted.zone.as_ref().map(ZoneName::as_str), policy)?;", ""),
    (
        "network.rs",
        "vec![(\"zone\".into(), \"network in a zone\")]",
        "vec![(\"veth\".into(), \"network in a zone\")]",
    ),
    ("network.rs", "if !mac.is_of_one() =>", "if false =>"),
    ("isolation.rs", "\"kernel.sem\", \"fs", "\"kernel.sem*\", \"fs"),
    (
        "isolation.rs",
        "!spec.network.is_private()",
        "spec.network == proto::task_spec::Network::Host",
    ),
    ("isolation.rs", "(Some((_, most)), _) => *most,", "(Some((_, most)), _) => *most + 1,"),
    ("network.rs", "!nomads || name.as_str() == alloc", "true || nomads || name.as_str() == alloc"),
    (
        "resources.rs",
        "(\"no memory limit\".to_owned(), u64::MAX)",
        "(\"no memory limit\".to_owned(), 0)",
    ),
    ("resources.rs", ".unwrap_or(TASKS_DEFAULT).min(most)", ".unwrap_or(TASKS_DEFAULT)"),
    ("resources.rs", "swap, limits.swap.0)?;", "swap, limits.swap.0.max(1))?;"),
    ("resources.rs", "score < least.min(0)", "score < least.min(0) - 1"),
    ("resources.rs", "entry.holds(&prefix(range))", "prefix(range).holds(entry)"),
    ("resources.rs", "n.0 == it.name()", "n.0 != \"MemoryHigh\" || n.0 == it.name()"),
    ("resources.rs", "matches(pattern, slice.as_str(), None)", "!pattern.is_empty()"),
    ("resources.rs", "range.bits <= longest && ", ""),
];

/// The file of the protocol that holds the rule for mount points.
const TARGET: &str = "target.rs";

/// How many faults there are.
pub const COUNT: usize = FAULTS.len();

/// One mutant's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The planted fault, in words.
    pub fault: String,
    /// After how many specifications the oracle disagreed; `None`: it survived.
    pub caught: Option<u64>,
}

fn directory() -> PathBuf {
    workspace().join("target/mutants")
}

const MANIFEST: &str = r#"
[workspace]
[package]
name = "policy-mutants"
version = "0.0.0"
edition = "2024"
[dependencies]
bincode = { version = "=2.0.1", default-features = false, features = ["std", "derive"] }
libc = "0.2"
nspawn-proto = { path = "WORKSPACE/proto/sockets" }
serde = { version = "1", default-features = false, features = ["std", "derive"] }
toml = { version = "1", default-features = false, features = ["std", "parse", "serde"] }
[profile.dev]
opt-level = 1
debug = false
"#;

const MAIN: &str = r#"
#![allow(warnings)]
#[path = "WORKSPACE/tests/src/oracle/mod.rs"]
mod oracle;
use oracle::compare::{Product, compare};
use oracle::{Answer, Facts, TASKS_DEFAULT, Verdict};
use proto::error::Code;
use proto::plan::{NetworkOwner, Unprotected};
// For the copies of proto/sockets/src/target.rs.
use proto::{name, path};

macro_rules! run_target {
    ($number:literal, $module:ident, $seed:expr, $tries:expr) => {{
        let holds = |path: &path::Absolute| $module::Target::new(path.clone()).is_ok();
        match oracle::compare::compare_targets($seed, $tries, holds) {
            Ok(()) => println!("{} survived", $number),
            Err(after) => println!("{} {after}", $number),
        }
    }};
}

macro_rules! run {
    ($number:literal, $module:ident, $seed:expr, $tries:expr) => {{
        let product = |text: &str| -> Result<Product, String> {
            let policy = std::rc::Rc::new($module::parse(text)?);
            let same = policy.clone();
            Ok((Box::new(move |spec| match $module::decide(spec.clone(), &policy).map_err(|denial| denial.refusal) {
                Ok(decision) => Verdict::Allowed(Facts {
                    image: decision.plan().image.to_string(),
                    binds: decision.plan().files.binds.iter().map(|b| b.source.to_string()).collect(),
                    unmapped: decision.plan().files.unprotected != Unprotected::Refuse,
                    tasks: decision.unit().resources.tasks_max.unwrap_or(TASKS_DEFAULT),
                    network: decision.network().cloned(),
                    container_network: decision.network_owner() == Some(NetworkOwner::Container),
                }),
                Err(refusal) if refusal.code == Code::Invalid => Verdict::Invalid,
                Err(refusal) if refusal.code == Code::Policy => Verdict::Policy,
                Err(refusal) => Verdict::Other(refusal.to_string()),
            }), Box::new(move |spec| match $module::check_exec(spec, &same).map_err(|denial| denial.refusal) {
                Ok(()) => Answer::Allowed,
                Err(refusal) if refusal.code == Code::Invalid => Answer::Invalid,
                Err(refusal) if refusal.code == Code::Policy => Answer::Policy,
                Err(refusal) => Answer::Other(refusal.to_string()),
            })))
        };
        match compare($seed, $tries, product) {
            Ok(_) => println!("{} survived", $number),
            Err(found) => {
                println!("{} {}", $number, found.after);
                if $number == 0 {
                    eprintln!("{found}");
                }
            }
        }
    }};
}
"#;

fn copy(from: &Path, to: &Path, fault: Option<Fault>) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let mut text = fs::read_to_string(entry.path())?;
        if let Some((file, old, new)) = fault.filter(|(file, ..)| entry.file_name() == *file) {
            let count = text.matches(old).count();
            ensure!(count == 1, "{file} holds {old:?} {count} times, not once");
            text = text.replace(old, new);
        }
        let target = to.join(entry.file_name());
        // What has not changed is not compiled again.
        if fs::read_to_string(&target).ok().as_deref() != Some(&text) {
            fs::write(target, text)?;
        }
    }
    Ok(())
}

/// Specifications for the untouched policy, which is compared at length elsewhere.
const SANE: u64 = 2_000;

/// Writes the program: the untouched policy as number 0, then a module for each of these faults.
fn write(seed: u64, tries: u64, faults: &[Fault]) -> Result<()> {
    let (root, directory) = (workspace(), directory());
    let place = |text: &str| text.replace("WORKSPACE", &root.display().to_string());
    // The presets' defaults, which the policy takes in by their path.
    copy(&root.join("example"), &directory.join("example"), None)?;
    let policy = root.join("helper/policy/src");
    let mut main = place(MAIN);
    let mut body = String::new();
    for number in 0..=faults.len() {
        let fault = number.checked_sub(1).and_then(|n| faults.get(n)).copied();
        let tries = if fault.is_some() { tries } else { SANE };
        let to = directory.join(format!("src/all/m{number}"));
        // The rule for mount points is the protocol's own, a file that stands alone.
        let of_target = fault.is_some_and(|(file, ..)| file == TARGET);
        let (from, main_file, macro_name) = if of_target {
            (root.join("proto/sockets/src"), TARGET, "run_target")
        } else {
            (policy.clone(), "lib.rs", "run")
        };
        copy(&from, &to, fault)?;
        writeln!(main, "#[path = \"all/m{number}/{main_file}\"]\nmod m{number};")?;
        writeln!(body, "    {macro_name}!({number}, m{number}, {seed}, {tries});")?;
    }
    writeln!(main, "fn main() {{\n{body}}}")?;
    fs::write(directory.join("src/main.rs"), main)?;
    fs::write(directory.join("Cargo.toml"), place(MANIFEST))?;
    fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock"))?;
    Ok(())
}

/// Compiles `count` mutants, chosen by the seed, and compares each with the oracle.
///
/// # Errors
/// A fault that cannot be planted, a compiler's error, or an oracle that disagrees with the
/// untouched policy.
pub fn run(seed: u64, tries: u64, count: usize) -> Result<Vec<Mutant>> {
    let mut faults = FAULTS.to_vec();
    let mut random = Random::new(seed);
    while faults.len() > count {
        faults.swap_remove(random.below(faults.len()));
    }
    fs::create_dir_all(directory().join("src"))?;
    write(seed, tries, &faults)?;
    let output = Command::new("cargo")
        .args(["run", "--quiet", "--offline", "--manifest-path"])
        .arg(directory().join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", directory().join("target"))
        .output()
        .context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the mutants do not compile or run:\n{said}");
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    ensure!(first == "0 survived", "the untouched policy: {first}\n{said}");
    let mut all = Vec::new();
    for (line, (file, old, new)) in lines.zip(&faults) {
        let (_, end) = line.split_once(' ').context("number and end")?;
        let caught = if end == "survived" { None } else { Some(end.parse()?) };
        all.push(Mutant { fault: format!("{file}: {old} -> {new}"), caught });
    }
    if all.len() != faults.len() {
        bail!("{} of {} mutants ran", all.len(), faults.len());
    }
    Ok(all)
}
