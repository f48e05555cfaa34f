//! The fingerprint of the request that a key was used for: a versioned hash, so that a reused key with another request
//! is refused.

use std::fmt;

use crate::core::identity::HashKey;

/// The version of the algorithm below. It is stored with every record, so a later one can recognise this one's.
const VERSION: u8 = 1;

/// A versioned keyed BLAKE3 hash over the length-prefixed parts of a request or message.
///
/// ```
/// use probity_idempotency::{Fingerprint, HashKey};
/// let one = Fingerprint::of(&HashKey::default(), &[b"POST", b"/payments", br#"{"amount":100}"#]);
/// let two = Fingerprint::of(&HashKey::default(), &[b"POST", b"/payments", br#"{"amount":900}"#]);
/// assert_ne!(one, two);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; Fingerprint::LENGTH]);

impl Fingerprint {
    /// Bytes of the stored form: one of version, 32 of hash.
    pub const LENGTH: usize = 33;

    /// Hashes `parts`; their number and lengths count, so parts cannot be shifted into each other.
    #[must_use]
    pub fn of(hash: &HashKey, parts: &[&[u8]]) -> Self {
        let mut bytes = [VERSION; Self::LENGTH];
        bytes[1..].copy_from_slice(&hash.hash("fingerprint", parts));
        Self(bytes)
    }

    /// Rebuilds a fingerprint that was read from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// The stored form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint(v{})", self.0[0])
    }
}
