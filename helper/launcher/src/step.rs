//! Named, timed steps, and the errors that name them.
//!
//! Never hides a failure: each ends the launcher with the step's name, the object and the reason.

use std::fmt::Display;
use std::io;
use std::time::Instant;

use libc::{
    EAGAIN, EBUSY, EDQUOT, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENOBUFS, ENODEV, ENOENT,
    ENOMEM, ENOSPC, ENOTDIR, ENXIO, EUSERS, EXDEV,
};
use proto::error::{Code, Refusal};
use proto::step::Step;

use kernel::hook;

/// What went wrong inside a step: the object and why.
#[derive(Debug)]
pub(super) struct Problem {
    cause: Cause,
    object: String,
    reason: String,
}

/// Where a problem comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The host or the job must be changed.
    Rule,
    /// A system call failed, with its number where it has one.
    System(Option<i32>),
}

impl Problem {
    /// The host or the job must be changed before another try can go better.
    pub(super) fn refused(object: impl Display, reason: impl Display) -> Self {
        Self { cause: Cause::Rule, object: object.to_string(), reason: reason.to_string() }
    }

    /// Somebody else has it, and may give it back before another try.
    pub(super) fn held(object: impl Display, reason: impl Display) -> Self {
        Self { cause: Cause::System(Some(EBUSY)), ..Self::refused(object, reason) }
    }

    /// The same with another object.
    pub(super) fn about(self, object: impl Display) -> Self {
        Self { object: object.to_string(), ..self }
    }

    /// One that another process of ours has had.
    pub(super) fn repeated(refusal: Refusal) -> Self {
        let cause = match refusal.code {
            Code::Busy => Cause::System(Some(EBUSY)),
            Code::Failed => Cause::System(None),
            _ => Cause::Rule,
        };
        Self { cause, object: refusal.object, reason: refusal.reason }
    }

    /// For the other side of a socket.
    pub(super) fn into_refusal(self, step: &str) -> Refusal {
        let code = match self.cause {
            Cause::Rule => Code::Invalid,
            Cause::System(number) if is_shortage(number) => Code::Busy,
            Cause::System(_) => Code::Failed,
        };
        Refusal::new(code, step, self.object, self.reason)
    }

    /// Why, for a problem that is told in other words.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

/// Gives a system error its object.
pub(super) trait At<T> {
    /// The object that the call was about.
    fn at(self, object: impl Display) -> Result<T, Problem>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, object: impl Display) -> Result<T, Problem> {
        self.map_err(|e| {
            let error: io::Error = e.into();
            Problem {
                cause: Cause::System(error.raw_os_error()),
                object: object.to_string(),
                reason: error.to_string(),
            }
        })
    }
}

/// Whether the host was short of something.
fn is_shortage(number: Option<i32>) -> bool {
    let all = [EAGAIN, EBUSY, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EUSERS];
    number.is_some_and(|number| all.contains(&number))
}

/// What a failure means for another try: final where the job names something that is not there,
/// worth one where the host was short of something, and in every other case.
fn code(step: Step, cause: Cause) -> Code {
    let Cause::System(number) = cause else {
        return Code::Invalid;
    };
    // These steps open what the job names; elsewhere it is what Nomad or we have made.
    let of_the_job = matches!(step, Step::Image | Step::RootFs | Step::Files | Step::Names);
    match number {
        _ if is_shortage(number) => Code::Busy,
        Some(ENOENT | ENOTDIR | EISDIR | ELOOP | EXDEV | ENAMETOOLONG | ENXIO | ENODEV)
            if of_the_job =>
        {
            Code::Invalid
        }
        _ => Code::Failed,
    }
}

/// Runs steps in order and keeps their times.
pub(super) struct Steps {
    started: Instant,
    times: Vec<(Step, u128)>,
}

impl Steps {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), times: Vec::new() }
    }

    /// Runs one step.
    pub(super) fn run<T>(
        &mut self,
        step: Step,
        action: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Refusal> {
        let result = hook::run(step, || {
            let begun = Instant::now();
            let result = action();
            self.times.push((step, begun.elapsed().as_micros()));
            result
        });
        result.map_err(|p| Refusal::new(code(step, p.cause), step.name(), p.object, p.reason))
    }

    /// One line with all times, for the journal; `done`: what they have come to.
    pub(super) fn line(&self, done: &str) -> String {
        let mut line = format!("{done} total_us={}", self.started.elapsed().as_micros());
        for (step, micros) in &self.times {
            line.push_str(&format!(" {}_us={micros}", step.name()));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: the step, the system's error, what Nomad is told.
    #[test]
    fn an_error_says_whether_another_try_may_go_better() {
        use libc::{EACCES, EIO};
        for (step, number, expected) in [
            (Step::Image, ENOENT, Code::Invalid),
            (Step::Image, ENOTDIR, Code::Invalid),
            (Step::Image, ELOOP, Code::Invalid),
            (Step::Image, EIO, Code::Failed),
            (Step::Image, EMFILE, Code::Busy),
            (Step::RootFs, ENOSPC, Code::Busy),
            (Step::RootFs, EBUSY, Code::Busy),
            (Step::Files, ENOENT, Code::Invalid),
            (Step::Files, EACCES, Code::Failed),
            (Step::Names, ENOENT, Code::Invalid),
            // Nomad made it, and may be about to make it anew.
            (Step::TaskDirs, ENOENT, Code::Failed),
            (Step::Logs, ENOENT, Code::Failed),
            (Step::UserNamespace, EAGAIN, Code::Busy),
            (Step::Exec, ENOMEM, Code::Busy),
            (Step::Exec, ENOENT, Code::Failed),
        ] {
            let error: Result<(), io::Error> = Err(io::Error::from_raw_os_error(number));
            let refusal = Steps::new().run(step, || error.at("object")).unwrap_err();
            assert_eq!(refusal.code, expected, "{} {number}", step.name());
            assert_eq!(refusal.is_retryable(), expected != Code::Invalid);
        }
        let told = Steps::new().run(Step::Exec, || Err::<(), _>(Problem::refused("a", "b")));
        assert_eq!(told.unwrap_err().code, Code::Invalid);
        let other: Result<(), io::Error> = Err(io::Error::other("no number"));
        let told = Steps::new().run(Step::Files, || other.at("object")).unwrap_err();
        assert_eq!(told.code, Code::Failed);
    }
}
