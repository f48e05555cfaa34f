use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

/// A database file with the accounts `a` (100) and `b` (0), removed with the value.
pub(super) struct Bank {
    pub(super) pool: SqlitePool,
    pub(super) folder: testkit::TempDir,
}

impl Bank {
    pub(super) async fn open(connections: u32) -> Self {
        super::both::metrics::subscribe();
        let folder = testkit::temp_dir();
        let options = probity_txn::sqlite::options(folder.path().join("bank.db"));
        let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.unwrap();
        sqlx::raw_sql(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0));
             CREATE TABLE entries (account TEXT NOT NULL
                 REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED, amount BIGINT NOT NULL);
             INSERT INTO accounts VALUES ('a', 100), ('b', 0);",
        )
        .execute(&pool)
        .await
        .unwrap();
        Self { pool, folder }
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
        sqlx::raw_sql("BEGIN; ROLLBACK")
            .execute(&mut *connection)
            .await
            .expect("a borrowed connection is not inside a transaction");
    }
}
