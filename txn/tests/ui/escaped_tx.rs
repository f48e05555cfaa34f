//! The handle ends with the closure.

async fn keep(pool: &sqlx::SqlitePool) {
    let _kept = probity_txn::on(pool, "keep").run(async |tx| Ok::<_, sqlx::Error>(tx)).await;
}

fn main() {}
