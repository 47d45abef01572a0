//! One finding: what was looked at, what was found, what mends it.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Good,
    /// Tasks run, but something is missing or weaker than it could be.
    Warning,
    /// Tasks cannot run, or not safely.
    Bad,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "FAIL",
        }
    }
}

/// One finding.
#[derive(Debug, Clone)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// What to do; empty when nothing is to be done.
    pub(super) mend: String,
}

impl Check {
    pub(super) fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), mend: String::new() }
    }

    pub(super) fn warning(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Warning, found: found.into(), mend: mend.into() }
    }

    pub(super) fn bad(
        name: &'static str,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Bad, found: found.into(), mend: mend.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8} {}: {}", self.state.name(), self.name, self.found)?;
        if !self.mend.is_empty() {
            write!(f, "\n           -> {}", self.mend)?;
        }
        Ok(())
    }
}
