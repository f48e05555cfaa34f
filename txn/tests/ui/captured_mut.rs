//! A retry would meet what the last attempt left in the captured variable.

async fn count(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
    let mut calls = 0;
    probity_txn::on(pool, "count")
        .run(async |tx| {
            calls += 1;
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            Ok(())
        })
        .await
}

fn main() {}
