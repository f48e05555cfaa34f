//! The report of a clause that a store breaks.

use std::fmt;

use crate::error::StoreError;

/// The deed of a store that a clause forbids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub(super) String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self(format!("the store failed: {error} ({:?})", std::error::Error::source(&error)))
    }
}
