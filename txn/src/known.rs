//! What a run knows about commits with its token, and what it may therefore report.
//!
//! Invariant: while an earlier COMMIT is an open question, no other failure is reported than
//! [`Error::Unknown`]; and while the token was not granted, none that says that nothing happened, since
//! another run may hold the token and commit.

use crate::attempt::Question;
use crate::backend::Backend;
use crate::error::Error;
use crate::token::Token;

pub(crate) struct Known {
    /// A COMMIT of this run that got no answer.
    pub(crate) question: Option<Question>,
    /// Whether the latest attempt held the token; without a token there is nothing to be granted.
    pub(crate) granted: bool,
}

impl Known {
    /// Before an attempt asked for the token.
    pub(crate) fn before<T>(token: Option<&Token<T>>) -> Self {
        Self { question: None, granted: token.is_none() }
    }

    /// The failure as far as it is known to be one.
    pub(crate) fn report<DB: Backend, E>(self, error: Error<E>, attempts: u32) -> Error<E> {
        if let Some(Question { cause, .. }) = self.question {
            return Error::Unknown { cause };
        }
        if self.granted {
            return error;
        }
        match error {
            Error::Conflict { last: cause, .. } | Error::Deadline { cause, .. } => {
                Error::Unsettled { attempts, cause }
            }
            // A table of tokens that is not there, or may not be used, holds no token: asking again is of no use.
            Error::Pool(error) => {
                let answer = error.driver().as_database_error();
                if answer.is_some_and(|answer| DB::lacks_table(answer) || DB::forbids(answer)) {
                    return Error::Pool(error);
                }
                Error::Unsettled { attempts, cause: error.failure::<DB>() }
            }
            other => other,
        }
    }
}
