//! Job values that may not be printed: their `Debug` form shows the length alone.

use std::fmt;

use bincode::{Decode, Encode};

/// A text of the job whose content is nobody's business: environment values, command words.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
