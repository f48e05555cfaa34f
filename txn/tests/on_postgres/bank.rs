use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool, Row as _};

/// A database with the accounts `a` (100) and `b` (0), dropped with the value.
pub(super) struct Bank {
    pub(super) pool: PgPool,
    database: testkit::TestDatabase,
}

impl Bank {
    pub(super) async fn open(connections: u32) -> Self {
        super::both::metrics::subscribe();
        let database = testkit::Postgres::shared().database();
        let pool = PgPoolOptions::new().max_connections(connections).connect(database.url()).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0));
             CREATE TABLE entries (account TEXT NOT NULL
                 REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED, amount BIGINT NOT NULL);
             INSERT INTO accounts VALUES ('a', 100), ('b', 0);",
        )
        .execute(&pool)
        .await
        .unwrap();
        Self { pool, database }
    }

    /// A role that may connect and see the schema, and do nothing else. Drop it before the bank.
    pub(super) fn role(&self) -> testkit::TestRole {
        self.database.role()
    }

    pub(super) async fn balance(&self, id: &str) -> i64 {
        sqlx::query_scalar("SELECT balance FROM accounts WHERE id = $1")
            .bind(id)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Fails if the next borrower of a connection of this pool meets an open transaction.
    pub(super) async fn assert_clean(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        assert!(is_clean(&mut connection).await, "a borrowed connection is not inside a transaction");
    }
}

/// Tells whether no transaction is open, nor aborted.
pub(super) async fn is_clean(connection: &mut PgConnection) -> bool {
    // A simple query: in the extended protocol the timestamps differ by themselves.
    sqlx::raw_sql("SELECT statement_timestamp() = transaction_timestamp()")
        .fetch_one(connection)
        .await
        .is_ok_and(|row| row.get(0))
}
