//! Settings of a transaction that only PostgreSQL has.

use sqlx::Postgres;

use crate::builder::Txn;

impl Txn<'_, Postgres> {
    /// Sets a setting of the session for this transaction: the tenant that policies of row-level security read, a
    /// role, a schema. It ends with the transaction, so the next borrower of the connection has nothing of it. It
    /// travels with BEGIN and costs no round trip; with a [token](Txn::once) it follows the token, with a round
    /// trip of its own.
    ///
    /// `value` is one value: a list (`search_path` with two schemas) is taken for one name.
    ///
    /// ```
    /// # async fn example(pool: &sqlx::PgPool, tenant: &str) -> Result<i64, probity_txn::Error<sqlx::Error>> {
    /// // CREATE POLICY own ON payments USING (tenant = current_setting('app.tenant'))
    /// probity_txn::on(pool, "count")
    ///     .set_local("app.tenant", tenant)
    ///     .run(async |tx| sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&mut *tx).await)
    ///     .await
    /// # }
    /// ```
    pub fn set_local(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.locals.values.push((name.into(), value.into()));
        self
    }
}
