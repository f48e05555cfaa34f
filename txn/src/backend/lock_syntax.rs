//! The texts with which a database locks rows and names.

/// The choice where another transaction holds a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The statement waits, up to the lock timeout.
    UntilFree,
    /// The statement fails at once.
    Never,
    /// The statement leaves the row out.
    Skip,
}

/// The syntax of locks. The rows to lock are those of a table or an alias `this`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockSyntax {
    /// The end of a SELECT that locks its rows, and waits for those that are held.
    pub(crate) until_free: &'static str,
    /// The end of a SELECT that locks its rows, and fails if one is held.
    pub(crate) never: &'static str,
    /// The end of a SELECT that locks those of its rows that are free.
    pub(crate) skip: &'static str,
    /// The end of a SELECT from several tables that locks those rows of `this` that are free.
    pub(crate) skip_in_join: &'static str,
    /// The condition that a column is one of the keys in the array that is the first parameter.
    pub(crate) in_array: &'static str,
    /// The array that is the first parameter, as a table `wanted` with a column `column1`.
    pub(crate) array_as_table: &'static str,
    /// The statement that locks the number that is the first parameter, up to the end of the transaction.
    pub(crate) advisory: &'static str,
}

impl LockSyntax {
    /// Gives the end of a SELECT that locks its rows.
    pub(crate) fn suffix(&self, wait: Wait) -> &'static str {
        match wait {
            Wait::UntilFree => self.until_free,
            Wait::Never => self.never,
            Wait::Skip => self.skip,
        }
    }
}
