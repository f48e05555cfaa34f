//! Keeps what a run knows about commits with its token, and reports its failures accordingly.
//!
//! Invariant: while an earlier COMMIT is an open question, no other failure is reported than
//! [`Error::Unknown`]; and while the token was not granted, none that says that nothing happened, since
//! another run may hold the token and commit.

use crate::backend::Backend;
use crate::error::Error;
use crate::failure::Failure;
use crate::run::token::Token;
use crate::tx::hooks::Hooks;

/// A COMMIT without an answer, to be settled by the token in the next attempt.
pub(crate) struct LostCommit {
    pub(crate) cause: Failure,
    pub(crate) hooks: Hooks,
}

/// The knowledge of a run about its commits and its token.
pub(crate) struct CommitAmbiguity {
    /// A COMMIT of this run that got no answer.
    pub(crate) lost_commit: Option<LostCommit>,
    /// The latest attempt held the token; without a token there is nothing to be granted.
    pub(crate) granted: bool,
}

impl CommitAmbiguity {
    /// Makes the state of a run that has not asked for its token yet.
    pub(crate) fn new<T>(token: Option<&Token<T>>) -> Self {
        Self { lost_commit: None, granted: token.is_none() }
    }

    /// Turns a failure into one that says no more than is known.
    pub(crate) fn report<DB: Backend, E>(self, error: Error<E>, attempts: u32) -> Error<E> {
        if let Some(LostCommit { cause, .. }) = self.lost_commit {
            return Error::Unknown { cause };
        }
        if self.granted {
            return error;
        }
        match error {
            Error::Conflict { last: cause, .. } | Error::Deadline { cause, .. } => {
                Error::Unsettled { attempts, cause }
            }
            // Also where the table of tokens cannot be used: it may hold the token of an earlier run.
            Error::Pool(error) => Error::Unsettled { attempts, cause: error.failure::<DB>() },
            other => other,
        }
    }
}
