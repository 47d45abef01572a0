//! What runs in the container, and its environment.

use bincode::{Decode, Encode};

use crate::name::VariableName;
use crate::secret::Secret;

/// What runs as the payload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// The image's init, with these further arguments.
    Boot {
        /// Arguments of init.
        arguments: Vec<Secret>,
    },
    /// A command as PID 1 of the container; empty: the image's shell.
    Command {
        /// The argument vector.
        words: Vec<Secret>,
    },
    /// A command as PID 2 below systemd-nspawn's stub init; empty: the image's shell.
    ProcessTwo {
        /// The argument vector.
        words: Vec<Secret>,
    },
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Variable {
    /// Its name.
    pub name: VariableName,
    /// Its value: any text without NUL.
    pub value: Secret,
}
