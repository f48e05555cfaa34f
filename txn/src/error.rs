//! The failures of a run, and their effects on the money.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use crate::failure::Failure;
use crate::isolation::Isolation;
use crate::pool_error::PoolError;

/// The failure of a run.
///
/// Ask [`effect`](Error::effect) before anything else: it says whether the writes may have happened.
///
/// # Examples
///
/// ```
/// use probity_txn::{Effect, Error};
///
/// fn status(error: &Error<sqlx::Error>) -> u16 {
///     match error.effect() {
///         // Ask for the payment, or run again with the same token.
///         Effect::Unknown => 504,
///         Effect::NotApplied => 503,
///     }
/// }
/// # let late = Error::App(sqlx::Error::RowNotFound);
/// # assert_eq!(status(&late), 503);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The closure returned this error; its transaction was rolled back.
    #[error("{0}")]
    App(#[source] E),
    /// The closure returned `Ok`, and the transaction could not be committed as it was.
    #[error("the transaction was rolled back: {0}")]
    RolledBack(#[source] RollbackReason),
    /// Each attempt met a conflict with other transactions, or lost its connection; nothing was written. Try again
    /// later.
    #[error("gave up after {attempts} attempts; the last one: {last}")]
    Conflict {
        /// The number of attempts that were made.
        attempts: u32,
        /// The conflict of the last one.
        #[source]
        last: Failure,
    },
    /// The deadline passed before COMMIT was sent; nothing was written.
    #[error("the deadline of {deadline:?} passed in attempt {attempts}, before the commit: {cause}")]
    Deadline {
        /// The attempt that was running or being waited for.
        attempts: u32,
        /// The deadline of the policy.
        deadline: Duration,
        /// The thing that took so long, with its own cause and the remedy where they are known: a connection that
        /// could not be made, a pool without a free one, the closure; or the conflict after which there was no time
        /// to try again.
        #[source]
        cause: Failure,
    },
    /// COMMIT got no answer that settles it, and the outcome could not be found out: the writes may or may not be
    /// there. Ask the database about the business key before doing anything again.
    #[error(
        "the commit got no answer that settles it and its outcome is unknown; look the business key up: {cause}"
    )]
    Unknown {
        /// The failure that came instead of an answer.
        #[source]
        cause: Failure,
    },
    /// A run with a token ended before the database told whether the token is free. Another run with
    /// this token may still be under way, and commit after this answer: ask again with the same token.
    #[error(
        "another run with this token may still be under way: ask again with the same token \
         (attempt {attempts}: {cause})"
    )]
    Unsettled {
        /// The number of attempts that were made; zero if there was no place among the runs in flight.
        attempts: u32,
        /// The failure that came instead of an answer about the token.
        #[source]
        cause: Failure,
    },
    /// There was no connection, or none on which a transaction could be opened; nothing was written.
    #[error("no transaction could be opened: {0}")]
    Pool(#[source] PoolError),
    /// An earlier run with this token was committed, and its stored result is not a result of this
    /// closure. Do not run the operation again: it happened.
    #[error("the operation happened, but its stored result cannot be read: {0}")]
    ResultUnreadable(#[source] serde_json::Error),
    /// The run was not possible as written; it wrote nothing.
    #[error("{0}")]
    Misuse(#[source] Misuse),
}

/// The reason why a closure's `Ok` was not committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RollbackReason {
    /// A statement failed and the closure went on as if it had not. Return the error, or put the
    /// statement in a scope of its own.
    #[error("a statement failed and its error was swallowed: {0}")]
    StatementFailed(#[source] Failure),
    /// A statement's future was dropped before it was answered, so its effect is unknown.
    #[error("a statement was dropped before its answer; await it, or put it in a scope")]
    StatementAbandoned,
    /// A scope's future was dropped half-way, so its writes are neither kept nor undone.
    #[error("a scope was dropped before it ended; await it")]
    ScopeAbandoned,
    /// The result of a run with a token could not be written as JSON.
    #[error("the result cannot be stored beside the token: {0}")]
    ResultNotStored(String),
    /// The database refused the commit, for instance because of a deferred constraint.
    #[error("the database refused the commit: {0}")]
    CommitRefused(#[source] Failure),
    /// Too much time passed between the statements: an external call inside the transaction?
    #[error(
        "{spent:?} passed between the statements, more than {limit:?}; call others outside the transaction"
    )]
    BetweenStatements {
        /// The time spent.
        spent: Duration,
        /// The limit of the policy.
        limit: Duration,
    },
    /// The closure asked for it with [`Tx::set_rollback_only`](crate::Tx::set_rollback_only).
    #[error("the closure asked for a rollback")]
    Requested,
    /// The closure did something that no transaction can do. The run then fails with [`Error::Misuse`], whatever the
    /// closure made of the refusal.
    #[error("{0}")]
    Misuse(#[source] Misuse),
}

/// A run that is wrong as written. The message carries the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The label cannot be a metrics label.
    #[error("the label {label:?} must have 1 to 64 characters out of letters, digits and _-.:/")]
    Label {
        /// The label.
        label: &'static str,
    },
    /// The policy allows no attempt at all.
    #[error("the policy allows zero attempts; allow at least one")]
    NoAttempts,
    /// The database does not have this isolation level.
    #[error("{database} has no isolation level {level:?}; leave it out or choose Serializable")]
    Isolation {
        /// The level asked for.
        level: Isolation,
        /// The database.
        database: &'static str,
    },
    /// A transaction keeps too many scopes: each is a subtransaction on the server.
    #[error(
        "more than {limit} scopes in one transaction; use scope_each for a list, or INSERT .. ON CONFLICT DO NOTHING"
    )]
    TooManyScopes {
        /// The number of scopes that are allowed.
        limit: u32,
    },
    /// A statement cannot run in a transaction of a runner. It was not sent.
    #[error("a statement was refused: {remedy}")]
    Statement {
        /// The thing to do instead.
        remedy: &'static str,
    },
    /// A statement has more parameters than the database takes. It was not sent.
    #[error(
        "a statement has {found} parameters, and {database} takes {limit} at most: send them in batches, or as one \
         array"
    )]
    Parameters {
        /// The number of parameters that the statement has.
        found: usize,
        /// The number of parameters that the database takes.
        limit: usize,
        /// The database.
        database: &'static str,
    },
    /// A lock was asked for where it would prove nothing, or for too many rows. It was not sent.
    #[error("a lock was refused: {remedy}")]
    Lock {
        /// The thing to do instead.
        remedy: &'static str,
    },
    /// A token is empty or too long.
    #[error("a token must have 1 to 200 bytes; hash longer ones")]
    Token,
    /// A run with this token was committed under another label: the token names another operation, or
    /// this one under an older name.
    #[error(
        "the token of {label:?} was used by a run with another label; make tokens per operation, and keep \
         the label of an operation whose tokens are stored"
    )]
    TokenReused {
        /// The label of the run that was refused.
        label: &'static str,
    },
    /// The schema or the prefix of the table of tokens cannot be part of a name.
    #[error("the schema and the prefix of the table of tokens may have up to 40 letters, digits and _")]
    TokenTableName,
    /// The sessions of the pool do not agree on which table of tokens they mean. It is unknown whether the token was
    /// used, because the run looked for it in another table.
    #[error(
        "the run {label:?} met another table of tokens, or none, where the pool had one before: something changed the \
         search path or the role of its sessions; find it, or name the schema with TokenTable::schema and in_table"
    )]
    TokenTableMoved {
        /// The label of the run that was refused.
        label: &'static str,
    },
    /// The name of a setting for the transaction, or its value, is not possible.
    #[error(
        "a setting must have a name of 1 to 63 letters, digits, _ and ., and a value without zero bytes; what begins with \
         transaction_ is set by isolation and read_only"
    )]
    Setting,
    /// The connection was inside a transaction that was left open. It was rolled back: committing it would
    /// have committed their writes too.
    #[error(
        "the run {label:?} met a connection inside a transaction that somebody left open in the pool; it was rolled \
         back: look for a BEGIN that is sent as text and not by `begin()` or a run"
    )]
    OpenTransaction {
        /// The label of the run that was refused.
        label: &'static str,
    },
    /// The limit of runs in flight is zero.
    #[error("max_in_flight(0) would wait for ever; allow at least one")]
    NothingInFlight,
    /// A run was started inside the closure of another one.
    #[error("the run {inner:?} was started inside the transaction {outer:?}; pass its `tx` on instead")]
    Nested {
        /// The label of the transaction that is open.
        outer: &'static str,
        /// The label of the run that was refused.
        inner: &'static str,
    },
}

/// An [`Error`] without its payload, for `match` and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::App`].
    App,
    /// [`Error::RolledBack`].
    RolledBack,
    /// [`Error::Conflict`].
    Conflict,
    /// [`Error::Deadline`].
    Deadline,
    /// [`Error::Unknown`].
    Unknown,
    /// [`Error::Unsettled`].
    Unsettled,
    /// [`Error::Pool`].
    Pool,
    /// [`Error::ResultUnreadable`].
    ResultUnreadable,
    /// [`Error::Misuse`].
    Misuse,
}

/// The effect of a failed run on the writes. The enum is exhaustive on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the effect decides whether the operation may be done again"]
pub enum Effect {
    /// The run wrote nothing, and will write nothing. With a token, no run had been committed with
    /// it when this one held it last.
    NotApplied,
    /// It may have been written. Never treat this as a failure.
    Unknown,
}

impl<E> Error<E> {
    /// Gives the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::App(_) => ErrorKind::App,
            Self::RolledBack(_) => ErrorKind::RolledBack,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Unknown { .. } => ErrorKind::Unknown,
            Self::Unsettled { .. } => ErrorKind::Unsettled,
            Self::Pool(_) => ErrorKind::Pool,
            Self::ResultUnreadable(_) => ErrorKind::ResultUnreadable,
            Self::Misuse(_) => ErrorKind::Misuse,
        }
    }

    /// Tells whether the writes of the closure may have happened; with a token, also those of another run
    /// with the same token.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Unknown { .. }
            | Self::Unsettled { .. }
            | Self::ResultUnreadable(_)
            // Committed under another label: another operation, or this one before it was renamed.
            | Self::Misuse(Misuse::TokenReused { .. } | Misuse::TokenTableMoved { .. })
            // The run failed before it could ask for its token.
            | Self::Misuse(Misuse::OpenTransaction { .. }) => Effect::Unknown,
            Self::App(_)
            | Self::RolledBack(_)
            | Self::Conflict { .. }
            | Self::Deadline { .. }
            | Self::Pool(_)
            | Self::Misuse(_) => Effect::NotApplied,
        }
    }

    /// The closure's own error, if that is what ended the run.
    pub fn app(&self) -> Option<&E> {
        match self {
            Self::App(error) => Some(error),
            _ => None,
        }
    }

    /// Converts the closure's own error and keeps everything else.
    pub fn map_app<F>(self, convert: impl FnOnce(E) -> F) -> Error<F> {
        self.without_app().unwrap_or_else(|error| Error::App(convert(error)))
    }

    /// Takes the closure's own error out; every other one fits every closure.
    fn without_app<F>(self) -> Result<Error<F>, E> {
        Ok(match self {
            Self::App(error) => return Err(error),
            Self::RolledBack(reason) => Error::RolledBack(reason),
            Self::Conflict { attempts, last } => Error::Conflict { attempts, last },
            Self::Deadline { attempts, deadline, cause } => Error::Deadline { attempts, deadline, cause },
            Self::Unknown { cause } => Error::Unknown { cause },
            Self::Unsettled { attempts, cause } => Error::Unsettled { attempts, cause },
            Self::Pool(error) => Error::Pool(error),
            Self::ResultUnreadable(error) => Error::ResultUnreadable(error),
            Self::Misuse(misuse) => Error::Misuse(misuse),
        })
    }
}

/// The type that `?` turns every error into.
type BoxError = Box<dyn StdError + Send + Sync>;

/// Serves closures whose errors are boxed.
impl Error<BoxError> {
    /// The closure's own error as it was, and everything else boxed: what `?` needs in a function that returns
    /// boxed errors too. [`effect`](Error::effect) is still there, behind `downcast_ref::<Error<Infallible>>()`.
    #[must_use]
    pub fn into_boxed(self) -> BoxError {
        match self.without_app::<Infallible>() {
            Ok(rest) => Box::new(rest),
            Err(error) => error,
        }
    }
}

impl ErrorKind {
    /// A short name for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::RolledBack => "rolled_back",
            Self::Conflict => "conflict",
            Self::Deadline => "deadline",
            Self::Unknown => "unknown",
            Self::Unsettled => "unsettled",
            Self::Pool => "pool",
            Self::ResultUnreadable => "result_unreadable",
            Self::Misuse => "misuse",
        }
    }
}
