//! Commands that are executed in tasks: what POLICY.md says of them, and random ones.

use super::file::Settings;
use super::random::Random;
use super::{Answer, Broken};
use proto::exec::ExecSpec;
use proto::limits;
use proto::name::VariableName;
use proto::secret::Secret;
use proto::task_spec::{TaskSpec, Variable};

/// Judges one command.
#[must_use]
pub fn judge(spec: &ExecSpec, policy: &Settings) -> (Answer, Broken) {
    let mut broken = Broken::default();
    let first = spec.words.first().map_or("", |word| word.reveal());
    broken.invalid("command-empty", first.is_empty());
    broken.invalid("command-many-words", spec.words.len() > limits::ARGUMENTS_MAX);
    for word in &spec.words {
        broken.invalid("command-word-long", word.reveal().len() > limits::ARGUMENT_MAX);
        broken.invalid("command-word-nul", word.reveal().contains('\0'));
    }
    broken.invalid("command-many-variables", spec.environment.len() > limits::VARIABLES_MAX);
    for variable in &spec.environment {
        let length = variable.name.as_str().len() + variable.value.reveal().len() + 1;
        broken.invalid("command-variable-long", length > limits::VARIABLE_MAX);
        broken.invalid("command-variable-nul", variable.value.reveal().contains('\0'));
    }
    // A set, because there may be thousands.
    let names: std::collections::BTreeSet<_> =
        spec.environment.iter().map(|variable| variable.name.as_str()).collect();
    broken.invalid("command-variable-twice", names.len() < spec.environment.len());
    broken.policy("exec.allow", !policy.exec_allow);
    let answer = match (broken.invalid.is_empty(), broken.policy.is_empty()) {
        (false, _) => Answer::Invalid,
        (true, false) => Answer::Policy,
        (true, true) => Answer::Allowed,
    };
    (answer, broken)
}

/// A command in the task of a specification: mostly a good one, else one with one fault.
#[allow(clippy::expect_used, reason = "letters and numbers")]
pub fn random(random: &mut Random, task: &TaskSpec) -> ExecSpec {
    let variable = |name: String, value: String| Variable {
        name: VariableName::new(name).expect("a name"),
        value: Secret::new(value),
    };
    let mut spec = ExecSpec {
        key: task.key.clone(),
        words: (0..=random.below(3)).map(|_| Secret::new("run")).collect(),
        environment: (0..random.below(3))
            .map(|number| variable(format!("N{number}"), "value".to_owned()))
            .collect(),
        directory: task.process.directory.clone(),
        user: task.process.user.clone(),
        terminal: None,
    };
    let longer = random.below(2);
    match random.below(20) {
        0 => spec.words = Vec::new(),
        1 => spec.words.insert(0, Secret::new("")),
        2 => spec.words.push(Secret::new("")),
        3 => spec.words = vec![Secret::new("x"); limits::ARGUMENTS_MAX + longer],
        4 => spec.words.push(Secret::new("x".repeat(limits::ARGUMENT_MAX + longer))),
        5 => spec.words.push(Secret::new("a\0b")),
        6 => {
            spec.environment = (0..limits::VARIABLES_MAX + longer)
                .map(|number| variable(format!("N{number}"), String::new()))
                .collect();
        }
        7 => {
            let value = "x".repeat(limits::VARIABLE_MAX - "LONG=".len() + longer);
            spec.environment.push(variable("LONG".to_owned(), value));
        }
        8 => spec.environment.push(variable("NUL".to_owned(), "a\0b".to_owned())),
        9 => {
            let again = variable("N0".to_owned(), "other".to_owned());
            spec.environment.extend([again.clone(), again]);
        }
        _ => {}
    }
    spec
}
