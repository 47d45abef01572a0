//! A second policy: slow, plain, and written from docs/POLICY.md alone.
//!
//! It imports nothing of the helper. It knows the protocol's types and bounds, reads every path as
//! text, and names every rule that a specification breaks, not only the first. The tests compare it
//! with the helper's decision over random specifications and policy files: one of the two read the
//! text wrongly when they differ. Kept free of other crates, because the mutants are compiled
//! against it too.
//!
//! | module | idea |
//! |---|---|
//! | [`mod@file`] | a policy file: keys, text, what holds |
//! | `sizes` | bounds and contradictions (`Invalid`) |
//! | [`places`] | paths, binds, devices, networks (`Policy`) |
//! | `grants` | users, capabilities, ceilings, settings (`Policy`) |
//! | [`commands`] | commands in tasks: the rules, and random ones |
//! | [`generate`], `twists`, `attached`, `mounts`, `units`, `zones`, `texts` | random policy files and specifications |
//! | [`wire`] | what a specification becomes on its way |
//! | [`compare`] | runs both, counts, and shows where they differ |

mod attached;
pub mod commands;
pub mod compare;
pub mod file;
pub mod generate;
mod grants;
mod mounts;
pub mod places;
pub mod random;
mod sizes;
mod texts;
mod twists;
mod units;
pub mod wire;
mod zones;

use file::Settings;
use proto::task_spec::network::Private;
use proto::task_spec::{Network, TaskSpec};

/// What a specification gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A start, with these facts.
    Allowed(Facts),
    /// Code `Invalid`.
    Invalid,
    /// Code `Policy`.
    Policy,
    /// Any other code, which no decision may have.
    Other(String),
}

/// What a command in a task gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A session.
    Allowed,
    /// Code `Invalid`.
    Invalid,
    /// Code `Policy`.
    Policy,
    /// Any other code, which no decision may have.
    Other(String),
}

/// What a decision must say beyond yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the image is.
    pub image: String,
    /// Where the binds begin.
    pub binds: Vec<String>,
    /// Whether unprotected sources are bound without mapping.
    pub unmapped: bool,
    /// The unit's TasksMax=.
    pub tasks: u64,
    /// Ports, zone and addresses of a task with a network of its own.
    pub network: Option<Private>,
    /// Whether that network belongs to the container's own user namespace.
    pub container_network: bool,
}

/// TasksMax= of a unit whose job asks for none.
pub const TASKS_DEFAULT: u64 = 16_384;

/// The rules that a specification breaks, by name.
#[derive(Debug, Default)]
pub struct Broken {
    /// Those with code `Invalid`.
    pub invalid: Vec<&'static str>,
    /// Those with code `Policy`.
    pub policy: Vec<&'static str>,
}

impl Broken {
    /// Notes a rule with code `Invalid` when it is broken.
    fn invalid(&mut self, rule: &'static str, broken: bool) {
        if broken && !self.invalid.contains(&rule) {
            self.invalid.push(rule);
        }
    }

    /// Notes a rule with code `Policy` when it is broken.
    fn policy(&mut self, rule: &'static str, broken: bool) {
        if broken && !self.policy.contains(&rule) {
            self.policy.push(rule);
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        self.invalid.iter().chain(&self.policy).copied()
    }
}

/// Judges one specification.
#[must_use]
pub fn judge(spec: &TaskSpec, policy: &Settings) -> (Verdict, Broken) {
    let mut broken = Broken::default();
    sizes::check(spec, policy, &mut broken);
    places::check(spec, policy, &mut broken);
    grants::check(spec, policy, &mut broken);
    let verdict = if !broken.invalid.is_empty() {
        Verdict::Invalid
    } else if !broken.policy.is_empty() {
        Verdict::Policy
    } else {
        Verdict::Allowed(Facts {
            image: places::image(spec, policy),
            binds: spec.files.binds.iter().map(|b| places::source(spec, &b.source)).collect(),
            unmapped: policy.binds_unmapped,
            tasks: grants::tasks(spec, policy),
            network: match &spec.network {
                Network::Private(wanted) => Some(wanted.clone()),
                // Others go into the plan as they are.
                _ => None,
            },
            container_network: grants::network_of_container(spec, policy),
        })
    };
    (verdict, broken)
}
