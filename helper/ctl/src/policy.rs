//! `policy check` and `policy explain`.

use std::path::{Path, PathBuf};

use proto::systemd;
use serde_json::{Value, json};

use super::denials;
use super::job::{self, Task};
use policy::{self, Denial, Policy};

/// Says whether a policy file is valid.
///
/// # Errors
/// It cannot be read.
pub(super) fn check(file: &str) -> Result<bool, String> {
    let path = Path::new(file);
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
    let policy = match policy::parse(&text) {
        Ok(policy) => policy,
        Err(reason) => {
            println!("{file}: not valid: {reason}");
            return Ok(false);
        }
    };
    let preset = if is_compat(&policy) { "compat: root-equivalent" } else { "strict" };
    println!("{file}: valid (preset {preset})");
    // A draft may lie anywhere; where the daemon reads it, its owners count.
    match crate::load_policy(path) {
        Ok(_) => Ok(true),
        Err(reason) if path == Path::new(super::POLICY) => {
            println!("{file}: the helper will not read it: {reason}");
            Ok(false)
        }
        Err(reason) => {
            println!("note: as it lies here the helper would not read it: {reason}");
            Ok(true)
        }
    }
}

/// Says of each nspawn task of a job what the policy makes of it; `false` when one is refused.
///
/// # Errors
/// Words that it does not take, policy or job cannot be read, or the job has no task for this
/// driver.
pub(super) fn explain(words: &[&str]) -> Result<bool, String> {
    let (mut file, mut as_json, mut job) = (super::POLICY, false, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--policy" => file = rest.next().ok_or("--policy needs a value")?,
            "--json" => as_json = true,
            option if option.starts_with('-') => {
                return Err(format!("explain has no option {option}"));
            }
            path if job.is_none() => job = Some(path),
            more => return Err(format!("one job at a time: {more}")),
        }
    }
    let job = job.ok_or("policy explain needs a job")?;
    let policy = read(file)?;
    let root = policy.nomad.alloc_dirs.first().map_or_else(|| "/".into(), |dir| dir.to_path());
    let tasks = job::read(job, &root)?;
    if tasks.is_empty() {
        return Err(format!("{job}: no task with driver = \"nspawn\""));
    }
    let verdicts: Vec<_> = tasks.iter().map(|task| Verdict::of(task, &policy)).collect();
    let all = verdicts.iter().all(Verdict::is_allowed);
    if as_json {
        let tasks: Vec<Value> = verdicts.iter().map(Verdict::to_json).collect();
        println!("{}", json!({ "allowed": all, "tasks": tasks }));
    } else {
        verdicts.iter().for_each(Verdict::print);
    }
    Ok(all)
}

fn read(file: &str) -> Result<Policy, String> {
    let path = Path::new(file);
    if path == Path::new(super::POLICY) {
        return crate::load_policy(path);
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
    policy::parse(&text).map_err(|e| format!("{file}: {e}"))
}

/// Whether the file has the compat preset: nothing is out of bounds for binds then.
pub(super) fn is_compat(policy: &Policy) -> bool {
    policy.derived.binds_never.is_empty()
}

/// What driver and policy make of one task.
struct Verdict<'a> {
    task: &'a Task,
    /// Its image's place, or why there is no such task.
    result: Result<String, Refused>,
}

enum Refused {
    /// The driver's: all problems of the job in one text. The policy was not asked.
    Job(String),
    /// The policy's, and whether these are all.
    Policy(Vec<Denial>, bool),
}

impl<'a> Verdict<'a> {
    fn of(task: &'a Task, policy: &Policy) -> Self {
        let directories = [PathBuf::from("/opt/nomad/plugins")];
        let version = super::systemd_version().unwrap_or_default();
        let spec =
            driver::explain::specification(&task.config, systemd::major(&version), &directories);
        let result = spec.map_err(Refused::Job).and_then(|spec| {
            policy::judge(&spec, policy).map(|judged| judged.image.to_string()).map_err(|_| {
                let (found, whole) = denials::all(&spec, policy);
                Refused::Policy(found, whole)
            })
        });
        Self { task, result }
    }

    fn is_allowed(&self) -> bool {
        self.result.is_ok()
    }

    fn print(&self) {
        println!("{}: {}", self.task.name, if self.is_allowed() { "allowed" } else { "refused" });
        match &self.result {
            Ok(image) => println!("  image {image}"),
            Err(Refused::Job(problems)) => println!("  {problems}"),
            Err(Refused::Policy(denials, whole)) => {
                for denial in denials {
                    println!("  {}", denial.refusal);
                }
                if !whole {
                    println!("  note: the last one hides what else may be refused");
                }
            }
        }
        for note in &self.task.notes {
            println!("  note: {note}");
        }
    }

    fn to_json(&self) -> Value {
        let (image, problems, (denials, whole)) = match &self.result {
            Ok(image) => (Some(image), None, (&[][..], true)),
            Err(Refused::Job(problems)) => (None, Some(problems), (&[][..], false)),
            Err(Refused::Policy(denials, whole)) => (None, None, (denials.as_slice(), *whole)),
        };
        let denials: Vec<Value> = denials
            .iter()
            .map(|Denial { rule, refusal }| {
                json!({ "rule": rule, "object": refusal.object, "reason": refusal.reason })
            })
            .collect();
        json!({
            "task": self.task.name,
            "allowed": self.is_allowed(),
            "image": image,
            "problems": problems,
            "denials": denials,
            "complete": whole,
            "notes": self.task.notes,
        })
    }
}
