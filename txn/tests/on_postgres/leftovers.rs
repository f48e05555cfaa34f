//! What one run would leave in its session for the next borrower of the connection.

use probity_txn::{Error, Misuse, on};

use super::Bank;

const LEFTOVERS: [&str; 12] = [
    "SET search_path = other",
    "SET SESSION lock_timeout = 1",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET statement_timeout",
    "DISCARD TEMP",
    "SELECT set_config('app.tenant', '7', false)",
    "LISTEN payments",
    "SELECT pg_advisory_lock(7)",
    "CREATE TEMP TABLE scratch (a int)",
    "PREPARE mine AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
];

#[tokio::test]
async fn what_would_stay_in_the_session_is_refused_with_its_remedy() {
    let bank = Bank::open(1).await;
    for leftover in LEFTOVERS {
        let outcome = on(&bank.pool, "tenant").run(async |tx| {
            let _ = sqlx::raw_sql(leftover).execute(&mut *tx).await;
            Ok::<_, sqlx::Error>(())
        });
        let error = outcome.await.expect_err(leftover);
        assert!(matches!(error, Error::Misuse(Misuse::Statement { .. })), "{leftover}: {error:?}");
    }
}

/// Role, path and tenant of a session.
async fn state(bank: &Bank) -> (i32, String, String, Option<String>) {
    sqlx::query_as(
        "SELECT pg_backend_pid(), current_setting('role'), current_setting('search_path'),
             nullif(current_setting('app.tenant', true), '')",
    )
    .fetch_one(&bank.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_session_that_was_touched_out_of_sight_is_not_lent_again() {
    let bank = Bank::open(1).await;
    sqlx::raw_sql(
        "CREATE PROCEDURE leave() LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('app.tenant', '7', false); PERFORM pg_advisory_lock(7); END $$",
    )
    .execute(&bank.pool)
    .await
    .unwrap();
    for touch in [
        "DO $$ BEGIN SET ROLE pg_monitor; SET search_path = pg_catalog; END $$",
        "CALL leave()",
        "SELECT set_config('app.tenant', '7', 1 = 2)",
    ] {
        let before = state(&bank).await;
        on(&bank.pool, "touch").run(async |tx| sqlx::raw_sql(touch).execute(&mut *tx).await).await.unwrap();
        let after = state(&bank).await;
        assert_ne!(after.0, before.0, "{touch}: another session");
        assert_eq!((after.1, after.2, after.3), (before.1, before.2, before.3), "{touch}");
    }
}

#[tokio::test]
async fn what_is_local_to_the_transaction_passes_and_the_session_stays() {
    let bank = Bank::open(1).await;
    let before = state(&bank).await;
    on(&bank.pool, "local")
        .run(async |tx| {
            for local in [
                "SET LOCAL ROLE pg_monitor",
                "SELECT set_config('app.tenant', '7', true)",
                "SELECT pg_advisory_xact_lock(7)",
                "CREATE TEMP TABLE scratch (a int) ON COMMIT DROP",
                "SET LOCAL search_path = pg_catalog",
            ] {
                // As the role of before: this one may not create temporary tables.
                sqlx::raw_sql("SET LOCAL ROLE NONE").execute(&mut *tx).await?;
                sqlx::raw_sql(local).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(state(&bank).await, before);
}
