//! Named, timed steps, and the errors that name them.

use std::fmt::Display;
use std::io;
use std::time::Instant;

use proto::error::{Code, Refusal};
use proto::plan::Step;

use crate::hook;

/// What went wrong inside a step: the object and why.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    object: String,
    reason: String,
}

impl Problem {
    /// The host or the job must be changed before another try can go better.
    pub(super) fn refused(object: impl Display, reason: impl Into<String>) -> Self {
        Self { code: Code::Invalid, object: object.to_string(), reason: reason.into() }
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
            Problem { code: Code::Failed, object: object.to_string(), reason: error.to_string() }
        })
    }
}

/// Runs steps in order and keeps their times.
#[derive(Debug)]
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
        hook::before(step);
        let begun = Instant::now();
        let result = action();
        self.times.push((step, begun.elapsed().as_micros()));
        hook::after(step);
        result.map_err(|p| Refusal::new(p.code, step.name(), p.object, p.reason))
    }

    /// One line with all times, for the journal.
    pub(super) fn line(&self) -> String {
        let mut line = format!("prepared total_us={}", self.started.elapsed().as_micros());
        for (step, micros) in &self.times {
            line.push_str(&format!(" {}_us={micros}", step.name()));
        }
        line
    }
}
