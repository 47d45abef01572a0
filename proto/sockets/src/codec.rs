//! One bounded codec for both sockets: bincode 2.0.1 with a limit in the configuration type.
//!
//! Three rules make it safe on hostile bytes: the limit bounds what a length field can make the
//! decoder allocate, no message type is recursive, and a message must be used up exactly
//! (bincode by itself accepts trailing bytes). Should bincode ever have to go (RUSTSEC-2025-0141:
//! unmaintained), this file is what changes.

use std::fmt;

use bincode::config::{self, Configuration, Fixint, LittleEndian};
/// What can be received and sent.
pub use bincode::{Decode, Encode};

use crate::limits;

/// Why a message could not be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecError {
    /// Longer than the bound that applies.
    TooLong,
    /// Not a message of the expected type.
    Malformed(String),
    /// A message with bytes behind it.
    Trailing,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("message too long"),
            Self::Malformed(why) => write!(f, "malformed message: {why}"),
            Self::Trailing => f.write_str("bytes behind the end of the message"),
        }
    }
}

impl std::error::Error for CodecError {}

/// How every message is encoded. Each reader adds its limit.
const FORM: Configuration<LittleEndian, Fixint> = config::standard().with_fixed_int_encoding();

/// Encodes one packet.
///
/// # Errors
/// [`CodecError::TooLong`] above [`limits::MESSAGE_MAX`] bytes.
pub fn encode<T: Encode>(message: &T) -> Result<Vec<u8>, CodecError> {
    encode_within(message, limits::MESSAGE_MAX)
}

/// Encodes a specification or plan, to be sent in parts.
///
/// # Errors
/// [`CodecError::TooLong`] above [`limits::SPEC_MAX`] bytes.
pub fn encode_whole<T: Encode>(message: &T) -> Result<Vec<u8>, CodecError> {
    encode_within(message, limits::SPEC_MAX)
}

fn encode_within<T: Encode>(message: &T, most: usize) -> Result<Vec<u8>, CodecError> {
    let bytes =
        bincode::encode_to_vec(message, FORM).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if bytes.len() > most { Err(CodecError::TooLong) } else { Ok(bytes) }
}

/// Decodes one packet.
///
/// # Errors
/// Too long, not of this type, or not used up.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, { limits::MESSAGE_MAX }>(bytes, limits::MESSAGE_MAX)
}

/// Decodes a specification or plan that came in parts.
///
/// # Errors
/// Too long, not of this type, or not used up.
pub fn decode_whole<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    // A specification holds many small texts; each costs more in memory than on the wire, so the
    // limit counts twice the bytes that may be sent.
    decode_within::<T, { limits::SPEC_MAX * 2 }>(bytes, limits::SPEC_MAX)
}

/// `LIMIT` is bincode's: of the bytes that are read and of those that a list announces.
fn decode_within<T: Decode<()>, const LIMIT: usize>(
    bytes: &[u8],
    most: usize,
) -> Result<T, CodecError> {
    if bytes.len() > most {
        return Err(CodecError::TooLong);
    }
    match bincode::decode_from_slice(bytes, FORM.with_limit::<LIMIT>()) {
        Ok((message, used)) if used == bytes.len() => Ok(message),
        Ok(_) => Err(CodecError::Trailing),
        Err(e) => Err(CodecError::Malformed(crate::error::printable(&e.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::Part;
    use crate::task_spec::TaskSpec;
    use crate::wire::{Hello, Reply, Request, Verb};
    use proptest::prelude::*;

    fn hello() -> Request {
        Request { epoch: 0, id: 1, verb: Verb::Hello(Hello { oldest: 1, newest: 1 }) }
    }

    #[test]
    fn exact_length_is_demanded() {
        let mut bytes = encode(&hello()).unwrap();
        assert_eq!(decode::<Request>(&bytes).unwrap(), hello());
        bytes.push(0);
        assert_eq!(decode::<Request>(&bytes), Err(CodecError::Trailing));
        bytes.truncate(bytes.len() - 2);
        assert!(matches!(decode::<Request>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn the_largest_part_fits_a_packet() {
        let part = Part { offset: 0, bytes: vec![1; limits::PART_MAX] };
        let request = Request { epoch: u64::MAX, id: u64::MAX, verb: Verb::Part(part) };
        assert!(encode(&request).unwrap().len() <= limits::MESSAGE_MAX);
    }

    #[test]
    fn a_length_field_allocates_nothing_above_the_limit() {
        // Verb::Part with a claimed length of 2^60 bytes.
        let mut bytes = vec![0; 16];
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert!(matches!(decode::<Request>(&bytes), Err(CodecError::Malformed(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode::<Request>(&bytes));
            drop(decode::<Reply>(&bytes));
            drop(decode_whole::<TaskSpec>(&bytes));
        }

        #[test]
        fn flipped_bytes_never_panic(at in 0_usize..40, value in any::<u8>()) {
            let mut bytes = encode(&hello()).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            drop(decode::<Request>(&bytes));
        }
    }
}
