//! Failures of a store, and what each leaves behind.
//!
//! Invariant: an error says whether the call may have been applied. Only [`Effect::NotApplied`] is proof, so inside this
//! crate no code concludes it from what went wrong: a driver's error becomes a [`Failure`], what cannot be read an
//! [`Unreadable`], and both are doubt unless the store refused, or the caller says that nothing was written.

use std::error::Error as StdError;
use std::fmt;
#[cfg(feature = "postgres")]
use std::sync::Arc;

use thiserror::Error;

/// The effect that a failed call may have left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call wrote nothing.
    NotApplied,
    /// It may have been written. Repeat the call with the same token to find out.
    Unknown,
}

/// The kind of a failure, coarse enough to decide on.
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
    /// The bytes that were read are not those that were written.
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
///
/// It displays its kind. If the store cannot be reached or opened, it displays the cause as well. The message of a
/// refused statement can quote the row, so it is only in [`report`](Self::report) and in the sources.
#[derive(Debug, Error)]
#[error("{}", self.shown())]
pub struct StoreError {
    kind: ErrorKind,
    effect: Effect,
    /// The words are this crate's own, and quote nothing.
    own_words: bool,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// The call failed, and provably wrote nothing.
    pub fn not_applied(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, effect: Effect::NotApplied, own_words: false, source: Some(source.into()) }
    }

    /// The call failed, and may have written.
    pub fn unknown(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, effect: Effect::Unknown, own_words: false, source: Some(source.into()) }
    }

    /// The caller does not hold the record.
    #[must_use]
    pub fn lease_lost() -> Self {
        Self { kind: ErrorKind::LeaseLost, effect: Effect::NotApplied, own_words: false, source: None }
    }

    /// The same failure of a call that only read, or whose write has answered that it touched nothing.
    #[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres"))]
    pub(crate) fn nothing_written(self) -> Self {
        Self { effect: Effect::NotApplied, ..self }
    }

    /// The same failure of a call that says nothing about an earlier one, which may have written.
    pub(crate) fn doubted(self) -> Self {
        self.after_doubt(true)
    }

    /// The same failure; `doubted` if an earlier try of the call may have written, of which a later refusal says nothing.
    pub(crate) fn after_doubt(self, doubted: bool) -> Self {
        Self { effect: if doubted { Effect::Unknown } else { self.effect }, ..self }
    }

    /// An error that can be given to many callers.
    #[cfg(feature = "postgres")]
    pub(crate) fn shared(self) -> SharedError {
        SharedError { kind: self.kind, effect: self.effect, source: Arc::new(self) }
    }

    /// A store that cannot be opened as it is asked for; `why` says what to do about it.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn cannot_open(why: String) -> Self {
        Self { own_words: true, ..Self::not_applied(ErrorKind::Rejected, why) }
    }

    /// Says all of it in one line: what went wrong, every cause down to the first, and what it left behind. For an operator:
    /// a database may quote the row there.
    ///
    /// ```
    /// use probity_idempotency::{ErrorKind, StoreError};
    /// let refused = std::io::Error::other("connection refused");
    /// let error = StoreError::unknown(ErrorKind::Rejected, refused);
    /// assert_eq!(error.to_string(), "the idempotency store refused the call");
    /// assert_eq!(
    ///     error.report(),
    ///     "the idempotency store refused the call: connection refused (it may have been written)"
    /// );
    /// ```
    #[must_use]
    pub fn report(&self) -> String {
        let left = match self.effect {
            Effect::NotApplied => "nothing was written",
            Effect::Unknown => "it may have been written",
        };
        format!("{}{} ({left})", self.kind.phrase(), self.causes())
    }

    fn shown(&self) -> String {
        let quotes_nothing =
            self.own_words || matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout);
        format!("{}{}", self.kind.phrase(), if quotes_nothing { self.causes() } else { String::new() })
    }

    /// Every cause, each once: many errors include their cause in their own text.
    fn causes(&self) -> String {
        let mut said = String::new();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) && !text.starts_with(self.kind.phrase()) {
                said.push_str(": ");
                said.push_str(&text);
            }
            next = cause.source();
        }
        said
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Says whether the call may have been applied.
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
        StoreError { kind: self.kind, effect: self.effect, own_words: false, source: Some(source) }
    }
}

/// An error of a driver or a server, before it is judged how far the call had come.
///
/// It counts as the failure of a call that may have written: only a refusal proves that the call did not.
#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres"))]
#[derive(Debug)]
pub struct Failure {
    kind: ErrorKind,
    refused: bool,
    source: Box<dyn StdError + Send + Sync>,
}

#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres"))]
impl Failure {
    /// It is not known how far it came.
    pub(crate) fn in_doubt(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, refused: false, source: source.into() }
    }

    /// It was never sent, or the store answered that it did none of it.
    pub(crate) fn refused(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, refused: true, source: source.into() }
    }

    /// The failure of a call that may have been sent several times, of which this is the last.
    #[cfg(feature = "redis")]
    pub(crate) fn of_several(self) -> Self {
        Self { refused: false, ..self }
    }

    /// The failure of a call that only reads, or had not sent anything.
    pub(crate) fn nothing_written(self) -> StoreError {
        StoreError::from(self).nothing_written()
    }
}

#[cfg(any(feature = "redis", feature = "sqlite", feature = "postgres"))]
impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let effect = if failure.refused { Effect::NotApplied } else { Effect::Unknown };
        Self { kind: failure.kind, effect, own_words: false, source: Some(failure.source) }
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

/// An answer that cannot be read may be that of a write.
impl From<Unreadable> for StoreError {
    fn from(source: Unreadable) -> Self {
        Self::unknown(ErrorKind::Corrupt, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error that says its cause itself, as a driver's does.
    #[derive(Debug, Error)]
    #[error("error communicating with the database: {0}")]
    struct Driver(#[source] std::io::Error);

    fn driver() -> Driver {
        Driver(std::io::Error::other("connection refused"))
    }

    #[test]
    fn an_unreachable_store_shows_its_cause_and_a_refusal_only_in_its_report() {
        let away = StoreError::unknown(ErrorKind::Unavailable, driver());
        let why = "the idempotency store is not reachable: error communicating with the database: connection refused";
        assert_eq!(away.to_string(), why);
        let refused = StoreError::not_applied(ErrorKind::Rejected, "duplicate key (row-secret)");
        assert_eq!(refused.to_string(), "the idempotency store refused the call");
        assert!(refused.report().ends_with("the call: duplicate key (row-secret) (nothing was written)"));
        let root = StdError::source(&away).and_then(StdError::source).map(ToString::to_string);
        assert_eq!(root.as_deref(), Some("connection refused"));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn every_caller_of_a_failed_shared_statement_gets_the_cause() {
        let shared = StoreError::unknown(ErrorKind::Unavailable, driver()).shared();
        for _ in 0..2 {
            let again = shared.again().to_string();
            assert!(
                again.ends_with("not reachable: error communicating with the database: connection refused"),
                "{again}"
            );
        }
    }
}
