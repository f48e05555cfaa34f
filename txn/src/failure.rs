//! Errors of the database, as the runner keeps them.

use std::error::Error as StdError;
use std::fmt;

use crate::backend::Backend;
use crate::classify::Class;

/// A database error as the runner saw it pass: its meaning, its code and its message.
///
/// A copy rather than the error itself, because the error belongs to the closure that received it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    class: Class,
    code: Option<Box<str>>,
    message: Box<str>,
}

impl Failure {
    /// Reads an error of the driver of `DB`.
    ///
    /// The runner does it by itself; call it for errors of your own pools.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # {
    /// use probity_txn::{Class, Failure};
    ///
    /// let error = sqlx::Error::WorkerCrashed;
    /// assert_eq!(Failure::of::<sqlx::Sqlite>(&error).class(), Class::ConnectionLost);
    /// # }
    /// ```
    #[must_use]
    pub fn of<DB: Backend>(error: &sqlx::Error) -> Self {
        let (class, code) = match error {
            sqlx::Error::Database(database) => {
                (DB::classify(&**database), database.code().map(|code| code.as_ref().into()))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => (Class::ConnectionLost, None),
            _ => (Class::Other, None),
        };
        Self { class, code, message: error.to_string().into() }
    }

    /// A failure that no database reported.
    pub(crate) fn local(class: Class, message: &str) -> Self {
        Self { class, code: None, message: message.into() }
    }

    /// The same failure, read with more knowledge.
    pub(crate) fn with_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// The same failure in other words.
    pub(crate) fn with_message(self, words: &impl fmt::Display) -> Self {
        Self { message: words.to_string().into(), ..self }
    }

    /// Gives the meaning of the error.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The database's own code: SQLSTATE on PostgreSQL, the extended result code on SQLite.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Leaves the message out: it may quote data.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("class", &self.class)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl StdError for Failure {}

/// Finds the first driver error in the chain of sources of `error`.
///
/// The runner does not need it, because it sees every statement error itself; it serves code that
/// classifies errors of its own pools.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # {
/// use probity_txn::{Class, Failure, driver_error};
///
/// let error: Box<dyn std::error::Error> = Box::new(sqlx::Error::WorkerCrashed);
/// let class = driver_error(&*error).map(|found| Failure::of::<sqlx::Sqlite>(found).class());
/// assert_eq!(class, Some(Class::ConnectionLost));
/// # }
/// ```
#[must_use]
pub fn driver_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e sqlx::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<sqlx::Error>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] sqlx::Error);

    #[test]
    fn a_driver_error_is_found_through_the_chain_of_sources() {
        let error = Outer(sqlx::Error::WorkerCrashed);
        assert!(matches!(driver_error(&error), Some(sqlx::Error::WorkerCrashed)));
        assert!(driver_error(&std::fmt::Error).is_none());
    }

    #[test]
    fn a_failure_does_not_print_its_message_in_debug() {
        let failure = Failure::local(Class::Other, "invalid input: 4242");
        assert!(!format!("{failure:?}").contains("4242"));
        assert!(failure.to_string().contains("4242"));
    }
}
