//! A transaction that is never run is a mistake.
#![deny(unused_must_use)]

fn forget(pool: &sqlx::SqlitePool) {
    probity_txn::on(pool, "forget").once("token");
}

fn main() {}
