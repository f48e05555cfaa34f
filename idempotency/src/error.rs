//! Failures of a store, and what each leaves behind.
//!
//! Invariant: an error says whether the call may have been applied. Only [`Effect::NotApplied`] is proof.

use std::error::Error as StdError;
use std::fmt;
#[cfg(feature = "postgres")]
use std::sync::Arc;

use thiserror::Error;

/// What a failed call left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was written.
    NotApplied,
    /// It may have been written. Repeat the call with the same token to find out.
    Unknown,
}

/// What went wrong, coarsely enough to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store could not be reached, or the connection broke.
    Unavailable,
    /// The store did not answer in time.
    Timeout,
    /// The store answered, and refused (a constraint, a missing table, a read-only replica).
    Rejected,
    /// The store is full and nothing in it may be evicted.
    Full,
    /// What was read is not what was written.
    Corrupt,
    /// The operating system gave no randomness.
    Entropy,
    /// This attempt no longer holds the record, or never did: roll back.
    LeaseLost,
}

impl ErrorKind {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Unavailable => "the idempotency store is not reachable",
            Self::Timeout => "the idempotency store did not answer in time",
            Self::Rejected => "the idempotency store refused the call",
            Self::Full => "the idempotency store is full",
            Self::Corrupt => "an idempotency record cannot be read",
            Self::Entropy => "the operating system gave no randomness",
            Self::LeaseLost => "the lease is lost; roll back",
        }
    }
}

/// A call to a store failed. Everything a healthy store can answer is a value, not an error.
#[derive(Debug, Error)]
#[error("{}", self.kind.phrase())]
pub struct StoreError {
    kind: ErrorKind,
    effect: Effect,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// The call failed, and provably wrote nothing.
    pub fn not_applied(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, effect: Effect::NotApplied, source: Some(source.into()) }
    }

    /// The call failed, and may have written.
    pub fn unknown(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, effect: Effect::Unknown, source: Some(source.into()) }
    }

    /// The caller does not hold the record.
    #[must_use]
    pub fn lease_lost() -> Self {
        Self { kind: ErrorKind::LeaseLost, effect: Effect::NotApplied, source: None }
    }

    /// The same failure, after an earlier try of the call that may have written.
    pub(crate) fn doubted(self) -> Self {
        Self { effect: Effect::Unknown, ..self }
    }

    /// An error that can be given to many callers.
    #[cfg(feature = "postgres")]
    pub(crate) fn shared(self) -> SharedError {
        SharedError { kind: self.kind, effect: self.effect, source: Arc::new(self) }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the call may have been applied.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        self.effect
    }
}

/// A failure of a statement that many callers shared.
#[cfg(feature = "postgres")]
pub(crate) struct SharedError {
    kind: ErrorKind,
    effect: Effect,
    source: Arc<StoreError>,
}

#[cfg(feature = "postgres")]
impl SharedError {
    /// The error of one of them.
    pub(crate) fn again(&self) -> StoreError {
        let source: Box<dyn StdError + Send + Sync> = Box::new(Arc::clone(&self.source));
        StoreError { kind: self.kind, effect: self.effect, source: Some(source) }
    }
}

/// Bytes of a stored record that do not follow the format.
#[derive(Debug)]
pub(crate) struct Unreadable(pub(crate) &'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreadable {}", self.0)
    }
}

impl StdError for Unreadable {}

impl From<Unreadable> for StoreError {
    fn from(source: Unreadable) -> Self {
        Self::not_applied(ErrorKind::Corrupt, source)
    }
}
