//! How a refusal is made: its code, the rule that is in the way, and the line of the policy file that
//! would allow it.

use std::fmt::Display;

use proto::error::{Code, Refusal};
use proto::path::Absolute;
use proto::plan::Place;
use proto::step::Step;

/// Why a specification is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule, for machines: the key of the policy file that is in the way, or a word for a
    /// bound or contradiction that no policy lifts.
    pub rule: &'static str,
    /// The same for people.
    pub refusal: Refusal,
}

/// A rule of the policy file is in the way.
pub(crate) fn refuse(rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    denial(Code::Policy, rule, object, reason)
}

/// An entry in a list of the policy file would allow it.
pub(crate) fn unlisted(rule: &'static str, object: impl Display, entry: impl Display) -> Denial {
    let (section, key) = rule.split_once('.').unwrap_or(("", rule));
    let reason =
        format!("the policy file would allow it with \"{entry}\" added to [{section}] {key}");
    refuse(rule, object, reason)
}

/// It contradicts itself or passes a bound.
pub(crate) fn invalid(rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    denial(Code::Invalid, rule, object, reason)
}

fn denial(code: Code, rule: &'static str, object: impl Display, reason: impl Display) -> Denial {
    Denial { rule, refusal: Refusal::new(code, Step::Decide.name(), object, reason) }
}

/// The first of `roots` that holds `path`, with the rest of the path.
pub(crate) fn place_below<'a>(
    path: &Absolute,
    roots: impl IntoIterator<Item = &'a Absolute>,
) -> Option<Place> {
    let mut roots = roots.into_iter();
    roots.find_map(|root| path.below(root).map(|below| Place { root: root.clone(), below }))
}
