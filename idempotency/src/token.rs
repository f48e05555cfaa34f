//! Who holds a record: a random token nobody else can guess, and a fence that only rises.

use std::fmt;

use crate::{ErrorKind, RecordId, StoreError};

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

/// A number that is higher for every later holder of a record. Systems that remember the highest fence they saw can
/// refuse a zombie.
///
/// It rises also if the record was forgotten in between, and whatever the store's clock shows. On Redis that holds unless
/// the server's clock steps back by more than the record was kept, or the server loses the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

/// What every write after the claim must show: which record, and the token of the attempt that claims to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The record.
    pub record: RecordId,
    /// The token the record was claimed with.
    pub token: OwnerToken,
}
