//! What is executed: the words of the request, with the environment, directory and user that the
//! task itself was started with.
//!
//! These come from the task's handle, which Nomad keeps, and never from a process of the task: its
//! payload may have changed what it shows. What systemd-nspawn adds to a payload's environment is
//! added here where the job does not set it. Values never reach a log line or an error text.

use bincode::{Decode, Encode};
use proto::exec::{DEFAULT_PATH, ExecSpec, TerminalSize};
use proto::limits;
use proto::name::VariableName;
use proto::path::Absolute;
use proto::secret::Secret;
use proto::task_spec::process::{Account, User};
use proto::task_spec::{TaskSpec, Variable};

use crate::error::Failure;
use crate::lifecycle::Driver;

/// A terminal that about every terminfo database has.
const TERM: &str = "xterm-256color";
/// Where systemd-nspawn puts credentials.
const CREDENTIALS: &str = "/run/host/credentials";

/// What a command has in common with its task's payload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Context {
    environment: Vec<Variable>,
    directory: Option<Absolute>,
    user: Option<User>,
    has_credentials: bool,
}

impl Context {
    /// Of a task that is started.
    pub(crate) fn of(spec: &TaskSpec) -> Self {
        Self {
            environment: spec.environment.clone(),
            directory: spec.process.directory.clone(),
            user: spec.process.user.clone(),
            has_credentials: !spec.files.credentials.is_empty(),
        }
    }

    /// The job's variables, and below them those that a payload gets from systemd-nspawn.
    fn environment(&self, has_terminal: bool) -> Vec<Variable> {
        let mut environment = self.environment.clone();
        let mut add = |name: &str, value: &str| {
            let is_set = environment.iter().any(|variable| variable.name.as_str() == name);
            if let (false, Ok(name)) = (is_set, VariableName::new(name)) {
                environment.push(Variable { name, value: Secret::new(value) });
            }
        };
        add("PATH", DEFAULT_PATH);
        add("container", "systemd-nspawn");
        match &self.user {
            None | Some(User { user: Account::Id(0), .. }) => {
                add("HOME", "/root");
                add("USER", "root");
                add("LOGNAME", "root");
            }
            Some(User { user: Account::Name(name), .. }) => {
                add("USER", name.as_str());
                add("LOGNAME", name.as_str());
            }
            // Its name and home are the image's to know.
            Some(User { user: Account::Id(_), .. }) => {}
        }
        if self.has_credentials {
            add("CREDENTIALS_DIRECTORY", CREDENTIALS);
        }
        if has_terminal {
            add("TERM", TERM);
        }
        environment
    }
}

impl Driver {
    /// The specification of a command in the task `id`.
    ///
    /// # Errors
    /// No such task, it has ended, its handle has no details, or the words cannot be executed.
    pub(super) fn specify_command(
        &self,
        id: &str,
        words: &[String],
        terminal: Option<TerminalSize>,
    ) -> Result<ExecSpec, Failure> {
        let task = self.tasks.get(id).ok_or_else(|| Failure::unknown_task(id))?;
        if task.exit().is_some() {
            return Err(Failure::permanent(format!(
                "task {id} has ended: nothing can be executed"
            )));
        }
        let details = task.details.as_ref().ok_or_else(|| {
            Failure::permanent(
                "restart the task first: an earlier version of the nspawn driver kept \
                 no environment of it",
            )
        })?;
        let context = &details.context;
        check_words(words)?;
        Ok(ExecSpec {
            key: task.identity.key.clone(),
            words: words.iter().map(|word| Secret::new(word.as_str())).collect(),
            environment: context.environment(terminal.is_some()),
            directory: context.directory.clone(),
            user: context.user.clone(),
            terminal,
        })
    }
}

fn check_words(words: &[String]) -> Result<(), Failure> {
    if words.first().is_none_or(String::is_empty) {
        return Err(Failure::permanent("exec: no command; name a program of the image"));
    }
    if words.len() > limits::ARGUMENTS_MAX {
        let most = limits::ARGUMENTS_MAX;
        return Err(Failure::permanent(format!(
            "exec: {} words, but a command has at most {most}; put them into a script",
            words.len()
        )));
    }
    let bad = |word: &String| word.contains('\0') || word.len() > limits::ARGUMENT_MAX;
    match words.iter().position(bad) {
        Some(index) => Err(Failure::permanent(format!(
            "exec: word {index} of the command must be without NUL and at most {} bytes; send \
             long texts by standard input",
            limits::ARGUMENT_MAX
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(user: Option<&str>, environment: &[(&str, &str)]) -> Context {
        let variable = |(name, value): &(&str, &str)| Variable {
            name: VariableName::new(*name).unwrap(),
            value: Secret::new(*value),
        };
        Context {
            environment: environment.iter().map(variable).collect(),
            directory: None,
            user: user.map(|user| User::parse(user).unwrap()),
            has_credentials: true,
        }
    }

    fn value(variables: &[Variable], name: &str) -> Option<String> {
        let mut all = variables.iter().filter(|variable| variable.name.as_str() == name);
        let value = all.next()?.value.reveal().to_owned();
        assert!(all.next().is_none(), "{name} twice");
        Some(value)
    }

    #[test]
    fn a_command_has_the_tasks_environment_and_what_a_payload_gets_besides() {
        let plain = context(None, &[]).environment(false);
        assert_eq!(value(&plain, "PATH").unwrap(), DEFAULT_PATH);
        assert_eq!(value(&plain, "HOME").unwrap(), "/root");
        assert_eq!(value(&plain, "container").unwrap(), "systemd-nspawn");
        assert_eq!(value(&plain, "CREDENTIALS_DIRECTORY").unwrap(), CREDENTIALS);
        assert_eq!(value(&plain, "TERM"), None);
        let own = [("PATH", "/own"), ("TERM", "dumb"), ("HOME", "/srv"), ("A", "b")];
        let set = context(Some("app:media"), &own).environment(true);
        for (name, expected) in own {
            assert_eq!(value(&set, name).unwrap(), expected);
        }
        assert_eq!(value(&set, "USER").unwrap(), "app");
        assert_eq!(value(&context(None, &[]).environment(true), "TERM").unwrap(), TERM);
        assert_eq!(value(&context(Some("1000"), &[]).environment(true), "HOME"), None);
    }

    #[test]
    fn words_are_bounded() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(check_words(&words(&["sh", "-c", ""])), Ok(()));
        for bad in [words(&[]), words(&[""]), words(&["a", "b\0"]), vec!["x".to_owned(); 4097]] {
            let error = check_words(&bad).unwrap_err();
            assert!(error.text().starts_with("exec: "), "{error}");
        }
        assert!(check_words(&["x".repeat(limits::ARGUMENT_MAX + 1)]).is_err());
    }
}
