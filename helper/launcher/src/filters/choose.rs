//! Whether a start uses filters of the cache, from the look at its options to systemd-nspawn.

use std::convert::Infallible;
use std::ffi::CString;

use nix::unistd::execve;
use proto::capability::Capabilities;
use proto::plan::{FilterSource, Plan};

use super::entry::{self, Entry};
use super::options::Options;
use super::{find, install};
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::layout;

/// Versions of systemd-nspawn that have been tried under these filters: it leaves steps out without a
/// word when a call is refused (tests/tests/filters/calls.rs).
const TESTED: [u32; 2] = [252, 257];

/// Whether starts with filters of this systemd-nspawn have been tried.
pub(crate) fn is_tested(version: u32) -> bool {
    cfg!(target_arch = "x86_64") && TESTED.contains(&version)
}

/// What a start uses.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) source: FilterSource,
    /// Whether the cache lacks this set.
    pub(crate) is_missing: bool,
    entry: Option<Entry>,
    /// Filters that this process is under: of a container that the host is.
    present: usize,
}

impl Chosen {
    /// Looks for the filters of a plan. `bounding`: the payload's, as the bundle has it.
    pub(crate) fn of(plan: &Plan, bounding: Capabilities) -> Result<Self, Problem> {
        let (present, no_new_privileges) = find::confinement()?;
        if present != 0 || no_new_privileges {
            let source = FilterSource::Confined;
            return Ok(Self { source, is_missing: false, entry: None, present });
        }
        let options = Options { bounding, rules: plan.isolation.syscalls.clone() };
        let name = OwnPath::filter_options(plan.unit);
        name.write(&options.line()).at(&name)?;
        let found = find::find(&options);
        let is_missing = found.is_none();
        // systemd-nspawn would be under these rules itself, and need what they take away.
        let takes_away = options.rules.iter().any(|rule| !rule.allow);
        let source = match &found {
            _ if !plan.cached_filters => FilterSource::Off,
            _ if takes_away => FilterSource::Rules,
            Some(entry) if is_tested(entry.version) => FilterSource::Cache,
            Some(entry) => FilterSource::Untested { version: entry.version },
            None => FilterSource::Missing,
        };
        let entry = found.filter(|_| source == FilterSource::Cache);
        Ok(Self { source, is_missing, entry, present })
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
