//! The lock ends with the transaction, so its witness does too.

struct Payment;

impl probity_txn::lock::Lockable for Payment {
    type Key = i64;
    const TABLE: &'static str = "payments";
}

async fn keep(pool: &sqlx::SqlitePool) {
    let _kept = probity_txn::on(pool, "keep").run(async |tx| tx.lock_one::<Payment>(1).await).await;
}

fn main() {}
