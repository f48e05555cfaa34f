//! Checks the number of rows that a guarded write touched.

/// A write touched another number of rows than it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} rows were affected instead of {expected}")]
pub struct UnexpectedRows {
    /// The number of rows that the caller expects.
    pub expected: Expected,
    /// The number of rows that were affected.
    pub found: u64,
}

/// The number of rows that a caller expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// One row and no other.
    One,
    /// One row or none.
    AtMostOne,
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One => "exactly one",
            Self::AtMostOne => "at most one",
        })
    }
}

/// Turns the count of no row into `RowNotFound`, so that `?` works in closures that return [`sqlx::Error`].
impl From<UnexpectedRows> for sqlx::Error {
    fn from(error: UnexpectedRows) -> Self {
        if error.found == 0 { Self::RowNotFound } else { Self::InvalidArgument(error.to_string()) }
    }
}

/// Checks on the answer to an `UPDATE .. WHERE status = ..`: the guard decides, so look at it.
///
/// ```
/// use probity_txn::Affected as _;
/// # #[cfg(feature = "sqlite")]
/// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
/// probity_txn::on(pool, "capture")
///     .run(async |tx| {
///         sqlx::query("UPDATE payments SET status = 'captured' WHERE id = 7 AND status = 'authorized'")
///             .execute(&mut *tx)
///             .await?
///             .expect_one()?;
///         Ok(())
///     })
///     .await
/// # }
/// ```
pub trait Affected: Sized {
    /// Gives the number of affected rows.
    fn rows(&self) -> u64;

    /// Fails unless exactly one row was affected.
    ///
    /// # Errors
    ///
    /// [`UnexpectedRows`] for none, and for two and more.
    fn expect_one(self) -> Result<(), UnexpectedRows> {
        match self.rows() {
            1 => Ok(()),
            found => Err(UnexpectedRows { expected: Expected::One, found }),
        }
    }

    /// Tells whether one row was affected; fails if there were more.
    ///
    /// # Errors
    ///
    /// [`UnexpectedRows`] for two and more.
    fn at_most_one(self) -> Result<bool, UnexpectedRows> {
        match self.rows() {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(UnexpectedRows { expected: Expected::AtMostOne, found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rows(u64);

    impl Affected for Rows {
        fn rows(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn expect_one_accepts_exactly_one_row() {
        assert_eq!(Rows(1).expect_one(), Ok(()));
        assert_eq!(Rows(0).expect_one().unwrap_err().found, 0);
        assert_eq!(
            Rows(2).expect_one().unwrap_err().to_string(),
            "2 rows were affected instead of exactly one"
        );
    }

    #[test]
    fn at_most_one_tells_whether_there_was_a_row() {
        assert_eq!(Rows(0).at_most_one(), Ok(false));
        assert_eq!(Rows(1).at_most_one(), Ok(true));
        assert!(Rows(2).at_most_one().is_err());
    }
}
