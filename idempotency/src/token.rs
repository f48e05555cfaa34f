//! The holder of a record, known by a random token that cannot be guessed.

use std::fmt;

use crate::core::identity::RecordId;
use crate::error::{ErrorKind, StoreError};

/// 128 random bits that identify one attempt. Made once, before the claim is sent, so that the claim and everything
/// after it can be repeated after a lost reply (I-7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerToken([u8; 16]);

impl OwnerToken {
    /// Draws a new token from the operating system.
    ///
    /// # Errors
    /// [`ErrorKind::Entropy`] if the operating system has no randomness to give; nothing was claimed then.
    pub fn generate() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(source) => Err(StoreError::not_applied(ErrorKind::Entropy, source)),
        }
    }

    /// Rebuilds a token that was read from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The stored form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerToken(..)")
    }
}

/// The proof that every write after the claim must show: the record, and the token of the attempt that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The record.
    pub record: RecordId,
    /// The token the record was claimed with.
    pub token: OwnerToken,
}
