//! The last step of a session: a confined process becomes the command.
//!
//! It is seen in the container from its first moment; everything that it does is what the payload
//! could do as well. Paths are those of the container, looked up with the rights of the command.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};

use kernel::syscalls;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};
use proto::exec::{DEFAULT_PATH, ExecSpec};
use proto::path::Absolute;
use rustix::process::ioctl_tiocsctty;

use super::streams::Streams;
use crate::nspawn::c_strings;
use crate::step::{At as _, Problem};

/// The object of refusals that hold a word of the command: they are the driver's alone.
pub(super) const OBJECT: &str = "command";
/// Directories of PATH that are searched.
const ENTRIES: usize = 256;

/// A command, ready to be executed.
pub(super) struct Command {
    /// The first word.
    name: String,
    /// Where it is looked up, as in PATH; `None`: it is a path.
    search: Option<String>,
    words: Vec<CString>,
    environment: Vec<CString>,
    directory: Absolute,
}

impl Command {
    pub(super) fn new(spec: &ExecSpec) -> Result<Self, Problem> {
        let words: Vec<String> = spec.words.iter().map(|word| word.reveal().to_owned()).collect();
        let name = words.first().cloned().unwrap_or_default();
        let path = spec.environment.iter().find(|variable| variable.name.as_str() == "PATH");
        let path = path.map_or(DEFAULT_PATH, |path| path.value.reveal());
        let search = (!name.contains('/')).then(|| path.to_owned());
        if search.as_ref().is_some_and(|path| path.split(':').count() > ENTRIES) {
            let reason = format!(
                "is looked up in PATH, which has more than {ENTRIES} directories: name its path"
            );
            return Err(Problem::refused(OBJECT, reason));
        }
        let environment = spec.environment.iter();
        let environment = environment
            .map(|variable| format!("{}={}", variable.name.as_str(), variable.value.reveal()));
        let root = || Absolute::parse("/").map_err(|rule| Problem::refused("/", rule));
        Ok(Self {
            environment: c_strings(environment.collect(), "environment")?,
            words: c_strings(words, OBJECT)?,
            directory: spec.directory.clone().map_or_else(root, Ok)?,
            name,
            search,
        })
    }

    /// Executes it; returns only why that failed. `setup`: ends with the worker.
    pub(super) fn execute(&self, streams: &Streams, setup: &OwnedFd) -> Problem {
        match self.prepare(streams, setup) {
            Ok(()) => self.problem(self.try_all()),
            Err(problem) => problem,
        }
    }

    fn prepare(&self, streams: &Streams, setup: &OwnedFd) -> Result<(), Problem> {
        // Changed credentials have cleared it, and so does a copy.
        set_pdeathsig(Signal::SIGKILL).at("own process")?;
        // The worker may have ended before that.
        let mut worker = [PollFd::new(setup.as_fd(), PollFlags::empty())];
        if poll(&mut worker, PollTimeout::ZERO) != Ok(0) {
            return Err(Problem::refused("worker", "has ended"));
        }
        setsid().at("session")?;
        if let Streams::Terminal(slave) = streams {
            ioctl_tiocsctty(slave).at("controlling terminal")?;
        }
        // PID 1 starts units, and Rust programs, with SIGPIPE ignored.
        syscalls::reset_signals();
        SigSet::empty().thread_set_mask().at("signal mask")?;
        umask(Mode::from_bits_truncate(0o022));
        let directory = self.directory.to_path();
        std::env::set_current_dir(&directory).at(format!("directory {}", directory.display()))?;
        let [input, output, error] = streams.standard();
        // dup2(2) clears close-on-exec: the command gets these three descriptors and no others.
        dup2_stdin(input).at("standard input")?;
        dup2_stdout(output).at("standard output")?;
        dup2_stderr(error).at("standard error")
    }

    /// What is tried, in this order: each is made in its turn, because together they may be long.
    fn programs(&self) -> impl Iterator<Item = String> {
        let directories = self.search.iter().flat_map(|path| path.split(':'));
        let found = directories.map(|at| match at {
            // The current directory (exec(3)).
            "" => self.name.clone(),
            at => format!("{at}/{}", self.name),
        });
        self.search.is_none().then(|| self.name.clone()).into_iter().chain(found)
    }

    /// As execvp(3) does: what is not there, or may not be executed, does not end the search.
    fn try_all(&self) -> Errno {
        let mut last = Errno::ENOENT;
        for program in self.programs() {
            // Words and variables have no NUL byte.
            let Ok(program) = CString::new(program) else { return Errno::EINVAL };
            match self.try_one(&program) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                denied @ (Errno::EACCES | Errno::ELOOP | Errno::ENAMETOOLONG) => last = denied,
                other => return other,
            }
        }
        last
    }

    fn try_one(&self, program: &CStr) -> Errno {
        let Err(error) = execve(program, &self.words, &self.environment);
        error
    }

    fn problem(&self, error: Errno) -> Problem {
        // PATH's value comes from the job, as secrets do.
        let place = self.search.as_ref().map_or("", |_| " in the command's PATH");
        let why = match error {
            Errno::ENOENT => format!("no such file{place}, or its interpreter is missing"),
            Errno::EACCES => format!("no file{place} that this user may execute"),
            Errno::ENOEXEC => "is not a program for this host, and does not begin with #!".into(),
            Errno::E2BIG => "words and environment are too long together (execve(2))".into(),
            other => other.desc().to_owned(),
        };
        Problem::refused(OBJECT, format!("{}: {why}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{AllocId, Instance, TaskKey, TaskName, VariableName};
    use proto::secret::Secret;
    use proto::task_spec::Variable;

    fn command(word: &str, path: Option<&str>) -> Command {
        Command::new(&spec(word, path)).unwrap()
    }

    fn spec(word: &str, path: Option<&str>) -> ExecSpec {
        let variable =
            |path| Variable { name: VariableName::new("PATH").unwrap(), value: Secret::new(path) };
        let task = TaskName::new("t").unwrap();
        ExecSpec {
            key: TaskKey { alloc: AllocId([1; 16]), task, instance: Instance(1) },
            words: vec![Secret::new(word), Secret::new("-x")],
            environment: path.map(variable).into_iter().collect(),
            directory: None,
            user: None,
            terminal: None,
        }
    }

    #[test]
    fn a_command_is_looked_up_in_its_own_path() {
        let programs = |word, path| -> Vec<String> { command(word, path).programs().collect() };
        assert_eq!(programs("ls", Some("/a::/b/")), ["/a/ls", "ls", "/b//ls"]);
        assert_eq!(programs("ls", None).len(), 6);
        assert_eq!(programs("./ls", Some("/a")), ["./ls"]);
        assert_eq!(programs("/bin/ls", None), ["/bin/ls"]);
    }

    #[test]
    fn what_cannot_be_executed_is_named_with_where_it_was_looked_for() {
        let missing = command("nspawn-no-such", Some("/usr/bin:/none"));
        let problem = missing.problem(missing.try_all()).to_string();
        assert!(problem.contains("nspawn-no-such") && problem.contains("PATH"), "{problem}");
        assert!(!problem.contains("/none"), "{problem}");
        // Found before what is missing, and not executable.
        let denied = command("passwd", Some("/etc:/none"));
        assert_eq!(denied.try_all(), Errno::EACCES);
        assert_eq!(command("/etc/passwd/x", None).try_all(), Errno::ENOENT);
    }

    #[test]
    fn a_path_has_a_bound() {
        let wide = |count| spec("ls", Some(&vec!["/none"; count].join(":")));
        assert_eq!(Command::new(&wide(ENTRIES)).unwrap().try_all(), Errno::ENOENT);
        let refused = Command::new(&wide(ENTRIES + 1)).err().unwrap();
        assert!(refused.to_string().contains("name its path"));
    }
}
