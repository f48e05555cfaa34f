//! The promises on SQLite.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod commit;
mod conflict;
mod dropped;
mod misuse;

use std::ops::Deref;

use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

/// A database file with the accounts `a` (100) and `b` (0), removed with the value.
struct Bank {
    pool: SqlitePool,
    folder: std::path::PathBuf,
}

impl Bank {
    async fn open(connections: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("probity-txn-{}", unique()));
        std::fs::create_dir_all(&folder).unwrap();
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .connect_with(probity_txn::sqlite::options(folder.join("bank.db")))
            .await
            .unwrap();
        sqlx::raw_sql(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
             CREATE TABLE entries (account TEXT NOT NULL
                 REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED, amount INTEGER NOT NULL);
             INSERT INTO accounts VALUES ('a', 100), ('b', 0);",
        )
        .execute(&pool)
        .await
        .unwrap();
        Self { pool, folder }
    }

    async fn balance(&self, id: &str) -> i64 {
        sqlx::query_scalar("SELECT balance FROM accounts WHERE id = ?")
            .bind(id)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Fails if the next borrower of a connection of this pool meets an open transaction.
    async fn assert_clean(&self) {
        let mut connection = self.pool.acquire().await.unwrap();
        sqlx::raw_sql("BEGIN; ROLLBACK")
            .execute(&mut *connection)
            .await
            .expect("a borrowed connection is not inside a transaction");
    }
}

impl Deref for Bank {
    type Target = SqlitePool;

    fn deref(&self) -> &SqlitePool {
        &self.pool
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Different for every call in every process.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

/// Moves 60 from `a` to `b`.
async fn move_60(tx: &mut probity_txn::Tx<'_, sqlx::Sqlite>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance - 60 WHERE id = 'a'").execute(&mut *tx).await?;
    sqlx::query("UPDATE accounts SET balance = balance + 60 WHERE id = 'b'").execute(&mut *tx).await?;
    Ok(())
}
