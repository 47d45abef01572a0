//! Refusals that cross the socket: which step, which object, which rule, and what to do.

use std::fmt;

use bincode::{Decode, Encode};

use crate::limits;

/// What kind of refusal it is; decides whether Nomad should try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[non_exhaustive]
pub enum Code {
    /// The request is not well formed or out of order; the helper closes the connection after it.
    Protocol,
    /// The epoch is of an earlier helper process: greet again and repeat.
    Epoch,
    /// The policy file does not allow it. Final.
    Policy,
    /// The request contradicts itself or the host cannot do it. Final.
    Invalid,
    /// The object is held by another task, or a limit is reached. Worth another try.
    Busy,
    /// No such task.
    Unknown,
    /// A step failed on the host. Worth another try.
    Failed,
}

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// The step that refused or failed, in the names of [`crate::step::Step`], or what was being done: `decode`,
    /// `find`, `signal`, `status`, `start`, `ready`.
    pub step: String,
    /// The object it is about: a path, a name, a key.
    pub object: String,
    /// The rule that was broken, or the system's error text, and what to do.
    pub reason: String,
}

impl Refusal {
    /// Builds a refusal; each text is cut at [`limits::TEXT_MAX`] bytes and freed of control
    /// characters, because it will be shown in logs and task events.
    #[must_use]
    pub fn new(
        code: Code,
        step: &str,
        object: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            code,
            step: printable(step),
            object: printable(&object.to_string()),
            reason: printable(&reason.to_string()),
        }
    }

    /// A step failed on the host ([`Code::Failed`]).
    #[must_use]
    pub fn failed(step: &str, object: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self::new(Code::Failed, step, object, reason)
    }

    /// Whether another try may go better without anybody changing the job or the policy.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, Code::Busy | Code::Failed | Code::Epoch)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object.is_empty() {
            write!(f, "{}: {}", self.step, self.reason)
        } else {
            write!(f, "{}: {}: {}", self.step, self.object, self.reason)
        }
    }
}

impl std::error::Error for Refusal {}

/// The text without control characters and not longer than the bound, cut at a character.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(limits::TEXT_MAX));
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if out.len() + c.len_utf8() > limits::TEXT_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_printable_line() {
        let refusal = Refusal::new(Code::Policy, "policy", "a\nb\x1b[31m", "é".repeat(2000));
        assert_eq!(refusal.object, "a b [31m");
        assert!(refusal.reason.len() <= limits::TEXT_MAX);
        assert!(!refusal.is_retryable());
    }
}
