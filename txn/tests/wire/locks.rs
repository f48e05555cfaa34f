//! The numbers of advisory locks. Two versions of a service that lock different numbers for one name do not exclude each
//! other.

use std::fmt::Write as _;

use probity_txn::on;
use sqlx::postgres::PgPoolOptions;

use super::v1;

#[tokio::test]
async fn the_number_of_an_advisory_lock_is_the_same_in_every_version() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let mut lines = String::from("# namespace, key = the two halves of the number, as pg_locks shows them\n");
    for (namespace, key) in [("customer", "42"), ("ab", "c"), ("a", "bc"), ("", ""), ("kunde", "Bär")] {
        let numbers: String = on(&pool, "lock")
            .run(async |tx| {
                let _lock = tx.advisory(namespace, key).await.map_err(|error| error.to_string()).unwrap();
                let held = "SELECT classid || ' ' || objid FROM pg_locks WHERE locktype = 'advisory' \
                            AND pid = pg_backend_pid()";
                sqlx::query_scalar(held).fetch_one(&mut *tx).await
            })
            .await
            .map_err(|error: probity_txn::Error<sqlx::Error>| error.to_string())
            .unwrap();
        writeln!(lines, "{namespace}, {key} = {numbers}").unwrap();
    }
    testkit::golden(v1!("advisory_locks.txt"), &lines);
}
