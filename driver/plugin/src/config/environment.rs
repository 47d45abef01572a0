//! The task's environment: the job's `environment` key below what Nomad sends.
//!
//! systemd-nspawn drops variables whose names a shell would not take. Those that begin with NOMAD_
//! are left out: Nomad's own have a twin with a clean name, and one of the job's `env` block cannot
//! be distinguished from them. The job's others are refused by name, because a variable that is
//! silently missing is hard to find. Values never reach an error text.

use std::collections::{BTreeMap, HashMap};

use proto::limits;
use proto::name::VariableName;
use proto::secret::Secret;
use proto::task_spec::Variable;

use super::Problem;

/// Merges both sources, Nomad's winning, in the order of the names.
pub(crate) fn merge(
    job: &BTreeMap<String, String>,
    nomad: &HashMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Variable> {
    let mut merged = BTreeMap::new();
    for (name, value) in job {
        if !nomad.contains_key(name) {
            take(name, value, false, &mut merged, problems);
        }
    }
    for (name, value) in nomad {
        let own = name.starts_with("NOMAD_") && !job.contains_key(name);
        take(name, value, own, &mut merged, problems);
    }
    if merged.len() > limits::VARIABLES_MAX {
        problems.push(Problem::new(
            "environment",
            format!("{} variables; at most {} fit", merged.len(), limits::VARIABLES_MAX),
        ));
    }
    merged.into_values().map(|(name, value)| Variable { name, value }).collect()
}

fn take<'a>(
    name: &'a str,
    value: &str,
    nomads_own: bool,
    merged: &mut BTreeMap<&'a str, (VariableName, Secret)>,
    problems: &mut Vec<Problem>,
) {
    let key = || format!("environment variable {name:?}");
    let valid = match VariableName::new(name) {
        Ok(valid) => valid,
        Err(_) if nomads_own => return,
        Err(e) => {
            problems.push(Problem::new(key(), e.to_string()).remedy("rename it"));
            return;
        }
    };
    if value.contains('\0') {
        problems.push(Problem::new(key(), "its value holds a NUL byte"));
        return;
    }
    let bytes = name.len() + 1 + value.len();
    if bytes > limits::VARIABLE_MAX {
        problems.push(
            Problem::new(
                key(),
                format!(
                    "{bytes} bytes; the kernel takes at most {} with name and equals sign",
                    limits::VARIABLE_MAX
                ),
            )
            .remedy("put the value in a file with a template block"),
        );
        return;
    }
    merged.insert(name, (valid, Secret::new(value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(job: &[(&str, &str)], nomad: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut problems = Vec::new();
        let variables =
            merge(&job.iter().map(own).collect(), &nomad.iter().map(own).collect(), &mut problems);
        let variables =
            variables.iter().map(|v| format!("{}={}", v.name, v.value.reveal())).collect();
        (variables, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn nomad_wins_and_names_are_in_order() {
        let (variables, problems) =
            run(&[("B", "job"), ("A", "job")], &[("B", "nomad"), ("C", "line\nbreak ")]);
        assert_eq!(variables, ["A=job", "B=nomad", "C=line\nbreak "]);
        assert!(problems.is_empty());
    }

    #[test]
    fn only_nomads_own_bad_names_are_left_out() {
        let (variables, problems) = run(&[], &[("NOMAD_META_a-b", "1"), ("NOMAD_META_a_b", "1")]);
        assert_eq!((variables.len(), problems.len()), (1, 0));
        for (job, nomad) in [
            (&[("NOMAD_x-y", "secret")][..], &[][..]),
            (&[("NOMAD_x-y", "secret")], &[("NOMAD_x-y", "secret")]),
            (&[], &[("a-b", "secret")]),
            (&[("", "secret")], &[]),
            (&[("9A", "secret")], &[]),
            (&[("A=B", "secret")], &[]),
        ] {
            let (variables, problems) = run(job, nomad);
            assert!(variables.is_empty(), "{variables:?}");
            assert_eq!(problems.len(), 1);
            assert!(!problems[0].contains("secret"), "{problems:?}");
        }
    }

    #[test]
    fn values_are_bounded_and_without_nul() {
        let most = "x".repeat(limits::VARIABLE_MAX - 2);
        assert_eq!(run(&[("A", &most)], &[]).0.len(), 1);
        let over = format!("{most}x");
        assert!(run(&[("A", &over)], &[]).1[0].contains("131072 bytes"));
        assert!(run(&[], &[("A", "x\0y")]).1[0].contains("NUL"));
    }
}
