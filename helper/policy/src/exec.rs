//! Commands that are executed in tasks that run.
//!
//! A command gets no right that its task's payload does not have, and none of the host's files: bounds
//! are all that there is to judge beside the switch. How many sessions there are only the daemon knows.

use proto::exec::ExecSpec;

use super::{Denial, Policy, bounds, invalid, refuse};

/// Judges one command.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_exec(spec: &ExecSpec, policy: &Policy) -> Result<(), Denial> {
    if spec.words.first().is_none_or(|word| word.reveal().is_empty()) {
        return Err(invalid("text", "command", "at least one word, which is not empty"));
    }
    bounds::check_words(&spec.words)?;
    bounds::check_environment(&spec.environment)?;
    if policy.exec.allow {
        return Ok(());
    }
    let reason = "the policy file would allow it with allow = true in [exec]";
    Err(refuse("exec.allow", format!("command in {}", spec.key), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use proto::error::Code;
    use proto::limits::{ARGUMENT_MAX, ARGUMENTS_MAX, VARIABLE_MAX};
    use proto::name::VariableName;
    use proto::secret::Secret;
    use proto::task_spec::Variable;

    fn command() -> ExecSpec {
        ExecSpec {
            key: crate::tests::spec().key,
            words: vec![Secret::new("true")],
            environment: Vec::new(),
            directory: None,
            user: None,
            terminal: None,
        }
    }

    #[test]
    fn commands_are_allowed_unless_the_file_forbids_them() {
        for allowed in ["", "preset = \"compat\"", "[exec]\nallow = true\nmax_sessions = 1"] {
            assert!(check_exec(&command(), &parse(allowed).unwrap()).is_ok(), "{allowed}");
        }
        let denial = check_exec(&command(), &parse("[exec]\nallow = false").unwrap()).unwrap_err();
        assert_eq!((denial.rule, denial.refusal.code), ("exec.allow", Code::Policy));
        assert!(denial.refusal.to_string().contains("allow = true in [exec]"));
    }

    #[test]
    fn words_and_environment_have_the_bounds_of_a_start() {
        let words = |words: Vec<String>| ExecSpec {
            words: words.into_iter().map(Secret::new).collect(),
            ..command()
        };
        let variables = |count: usize, length: usize| ExecSpec {
            environment: (0..count)
                .map(|number| Variable {
                    name: VariableName::new(format!("N{}", number % 2)).unwrap(),
                    value: Secret::new("x".repeat(length)),
                })
                .collect(),
            ..command()
        };
        let x = |count| vec!["x".to_owned(); count];
        for (good, bad) in [
            (words(x(1)), words(Vec::new())),
            (words(vec!["x".to_owned(), String::new()]), words(vec![String::new()])),
            (words(x(ARGUMENTS_MAX)), words(x(ARGUMENTS_MAX + 1))),
            (words(vec!["x".repeat(ARGUMENT_MAX)]), words(vec!["x".repeat(ARGUMENT_MAX + 1)])),
            (words(x(2)), words(vec!["x".to_owned(), "\0".to_owned()])),
            (variables(2, 1), variables(3, 1)),
            (variables(1, VARIABLE_MAX - 3), variables(1, VARIABLE_MAX - 2)),
        ] {
            let policy = parse("").unwrap();
            assert!(check_exec(&good, &policy).is_ok());
            assert_eq!(check_exec(&bad, &policy).unwrap_err().refusal.code, Code::Invalid);
        }
    }
}
