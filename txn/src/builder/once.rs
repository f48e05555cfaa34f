//! Runs that take effect once per token, also when the network fails.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Pool;

use crate::backend::Backend;
use crate::callback::TxFnOnce;
use crate::error::Error;
use crate::run::run;
use crate::run::token::Token;
use crate::settings::Settings;
use crate::token_table::TokenTable;
use crate::tx::handle::Tx;

/// A transaction with a token. Made by [`Txn::once`](crate::Txn::once).
#[must_use = "nothing happens before `run`"]
pub struct Once<'p, DB: Backend> {
    pub(crate) pool: &'p Pool<DB>,
    pub(crate) settings: Settings,
    pub(crate) token: String,
    pub(crate) table: TokenTable,
}

impl<'p, DB: Backend> Once<'p, DB> {
    /// Keeps the token in another table than `probity_txn_tokens`.
    pub fn in_table(mut self, table: &TokenTable) -> Self {
        self.table = table.clone();
        self
    }

    /// Runs `body` once per token, as [`Txn::run`](crate::Txn::run) does: the first run stores its result in the same
    /// transaction, and each later one gets that result without running the closure.
    ///
    /// This also settles a COMMIT whose answer was lost. The run tries again; inserting the token
    /// waits until the server has done with the lost transaction, and then either meets the token
    /// (it was committed: its result is returned) or takes it (it never was: the closure runs).
    ///
    /// A result that is an error of the closure is not stored: nothing was committed. A result that would not
    /// come back from JSON as it is (`Some(None)`, a number that is not finite) is refused, and rolled back.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop at any point, as [`Txn::run`](crate::Txn::run) is. Run again with the same token to get the result.
    ///
    /// # Errors
    ///
    /// The errors of [`Txn::run`](crate::Txn::run), except that a conflict, a deadline or a lack of connections
    /// before the token was granted is [`Error::Unsettled`]: another run with this token may still be
    /// under way, and commit. [`Error::Unknown`] only if the database could not be asked again in time.
    /// After both run again with the same token. [`Error::ResultUnreadable`] if the stored result is of
    /// another type.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(pool: &sqlx::SqlitePool, payment: &str) -> Result<i64, probity_txn::Error<sqlx::Error>> {
    /// probity_txn::on(pool, "capture")
    ///     .once(format!("capture:{payment}"))
    ///     .run(async |tx| {
    ///         let capture = "INSERT INTO captures (payment) VALUES (?) RETURNING id";
    ///         sqlx::query_scalar(capture).bind(payment).fetch_one(&mut *tx).await
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn run<'a, F, T, E>(self, body: F) -> impl Future<Output = Result<T, Error<E>>> + Send + 'a
    where
        'p: 'a,
        for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
            + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        T: Serialize + DeserializeOwned + Send + 'a,
        E: Send + 'a,
    {
        run(self.pool, self.settings, Some(Token::new(self.token, self.table)), body)
    }
}

/// Leaves the token out: it may be a key of the caller.
impl<DB: Backend> fmt::Debug for Once<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("settings", &self.settings).finish_non_exhaustive()
    }
}
