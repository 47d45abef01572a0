//! Whether a start uses filters of the cache, from the look at its options to systemd-nspawn.

use std::convert::Infallible;
use std::ffi::CString;

use nix::unistd::execve;
use proto::capability::Capabilities;
use proto::plan::{FilterSource, Plan};

use super::entry::{self, Entry};
use super::options::Options;
use super::{find, install};
use crate::step::{At, Problem};
use kernel::layout;

/// What a start uses.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) source: FilterSource,
    entry: Option<Entry>,
    /// Filters that this process is under: of a container that the host is.
    present: usize,
}

impl Chosen {
    /// Looks for the filters of a plan. `bounding`: the payload's, as the bundle has it.
    pub(crate) fn of(plan: &Plan, bounding: Capabilities) -> Result<Self, Problem> {
        let (present, no_new_privileges) = find::confinement()?;
        let own = |source| Self { source, entry: None, present };
        // systemd-nspawn would be under these rules itself, and need what they take away.
        let takes_away = plan.isolation.syscalls.iter().any(|rule| !rule.allow);
        if !plan.cached_filters || takes_away {
            return Ok(own(FilterSource::Nspawn));
        }
        if present != 0 || no_new_privileges {
            return Ok(own(FilterSource::Confined));
        }
        let options = Options { bounding, rules: plan.isolation.syscalls.clone() };
        Ok(match find::find(&options) {
            Some(entry) => Self { source: FilterSource::Cache, entry: Some(entry), present },
            None => own(FilterSource::Missing(options.words())),
        })
    }

    /// The same right before the end: systemd may have been upgraded since.
    pub(crate) fn still_current(self) -> Self {
        Self { entry: self.entry.filter(find::is_current), ..self }
    }

    /// What the mark of the start says: how many filters the payload must be under, and the entry.
    pub(crate) fn mark(&self) -> String {
        let name = self.entry.as_ref().map(|entry| entry::name(&entry.options));
        let count = self.present.saturating_add(entry::COUNT);
        format!("{count} {}", name.as_deref().unwrap_or(layout::OWN_FILTERS))
    }

    /// Executes systemd-nspawn.
    pub(crate) fn execute(
        &self,
        binary: &CString,
        arguments: &[CString],
        environment: Vec<CString>,
    ) -> Result<Infallible, Problem> {
        match &self.entry {
            Some(entry) => install::execute(&entry.filters, binary, arguments, environment),
            None => {
                let Err(error) = execve(binary, arguments, &environment);
                Err(error).at("systemd-nspawn")
            }
        }
    }
}
