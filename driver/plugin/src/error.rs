//! Errors as Nomad sees them: a text for people, and whether another try may help.
//!
//! Nomad examines the `recoverable` detail of StartTask alone. UNAVAILABLE and CANCELLED are
//! never used: its client takes them for trouble of the transport.

use nomad_proto::structs::RecoverableError;
use prost::Message;
use proto::error::Refusal;
use tonic::{Code, Status};

use crate::text::cut;

/// Longest text of an error, in bytes: it travels in a header and is shown in a table.
const TEXT_MAX: usize = 4096;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Permanent,
    Recoverable,
    NotFound,
    Unsupported,
}

impl Failure {
    /// Nothing changes by trying again: the job, the policy or the host must.
    pub(crate) fn permanent(text: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, text)
    }

    /// Worth another try under the job's restart policy.
    pub(crate) fn recoverable(text: impl Into<String>) -> Self {
        Self::new(Kind::Recoverable, text)
    }

    /// Whether another try may help.
    pub(crate) fn is_recoverable(&self) -> bool {
        self.kind == Kind::Recoverable
    }

    /// The driver does not know this task.
    pub(crate) fn unknown_task(id: &str) -> Self {
        Self::new(Kind::NotFound, format!("task {id} is not known to the nspawn driver"))
    }

    /// This version of the driver cannot do it.
    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, text)
    }

    fn new(kind: Kind, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(cut(&text, TEXT_MAX).len());
        Self { kind, text }
    }

    /// The text.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A refusal is a rule's; everything else went wrong on the host.
pub(crate) fn describe(refusal: &Refusal) -> String {
    use proto::error::Code::{Invalid, Policy, Protocol};
    let verdict = match refusal.code {
        Policy | Invalid | Protocol => "refused",
        _ => "could not do it",
    };
    format!("the nspawn helper {verdict}: {refusal}")
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = describe(&refusal);
        if refusal.is_retryable() { Self::recoverable(text) } else { Self::permanent(text) }
    }
}

/// `google.rpc.Status`: what `grpc-status-details-bin` holds.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            // What a plain error of a Go driver arrives as.
            Kind::Permanent => Code::Unknown,
            Kind::NotFound => Code::NotFound,
            Kind::Unsupported => Code::Unimplemented,
            Kind::Recoverable => return recoverable_status(failure.text),
        };
        Self::new(code, failure.text)
    }
}

fn recoverable_status(text: String) -> Status {
    let code = Code::FailedPrecondition;
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/hashicorp.nomad.plugins.shared.structs.RecoverableError"
            .to_owned(),
        value: RecoverableError { recoverable: true }.encode_to_vec(),
    };
    // grpc-go replaces the error when code or message differ between header and details.
    let details = RpcStatus { code: code.into(), message: text.clone(), details: vec![detail] };
    Status::with_details(code, text, details.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recoverable_errors_carry_the_detail() {
        let status = Status::from(Failure::recoverable("try again"));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = RpcStatus::decode(status.details()).unwrap();
        assert_eq!(details.code, i32::from(status.code()));
        assert_eq!(details.message, status.message());
        assert!(details.details[0].type_url.ends_with("RecoverableError"));
        let detail = RecoverableError::decode(details.details[0].value.as_slice()).unwrap();
        assert!(detail.recoverable);
    }

    #[test]
    fn no_error_looks_like_a_broken_transport() {
        for failure in [
            Failure::permanent("x"),
            Failure::recoverable("x"),
            Failure::unknown_task("x"),
            Failure::unsupported("x"),
        ] {
            let code = Status::from(failure).code();
            assert!(!matches!(code, Code::Unavailable | Code::Cancelled));
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert!(Failure::permanent("é".repeat(9999)).text().len() <= TEXT_MAX);
    }
}
