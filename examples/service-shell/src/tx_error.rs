//! The reason for which the closure of a transaction stopped, and what the caller is told about the whole run.

use probity_txn::Error;

use crate::Problem;

/// A refusal for the caller, or what the driver said. `?` makes either.
///
/// The driver's error is kept as it is until the run is over: a conflict that the runner retries never
/// reaches the log or the caller.
#[derive(Debug, thiserror::Error)]
pub enum TxError {
    /// The request is refused; everything is rolled back.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl From<Error<TxError>> for Problem {
    fn from(error: Error<TxError>) -> Problem {
        match error {
            Error::App(TxError::Refused(problem)) => problem,
            Error::App(TxError::Sql(error)) => error.into(),
            Error::Pool(error) => Problem::unavailable("the database", &error),
            Error::Conflict { .. } | Error::Deadline { .. } | Error::Unsettled { .. } => {
                Problem::unavailable("the database", &error)
            }
            _ => Problem::internal(&error),
        }
    }
}
