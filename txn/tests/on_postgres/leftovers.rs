//! Tests that a run leaves nothing in its session for the next borrower of the connection, and does not join a
//! transaction that was left open.

use probity_txn::{Error, Isolation, Misuse, Tx, create_token_table, on};

use super::Bank;
use super::both::move_60;

const LEFTOVERS: [&str; 14] = [
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
    "WITH p AS (SELECT 1 AS a) SELECT a INTO TEMP scratch FROM p",
    "SELECT 1 AS a INTO pg_temp.scratch",
    "PREPARE mine AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
];

#[tokio::test]
async fn statements_that_stay_in_the_session_are_refused_with_a_remedy() {
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
async fn a_session_that_an_opaque_statement_may_have_changed_is_not_lent_again() {
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
async fn statements_local_to_the_transaction_pass_and_the_session_is_kept() {
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
                // The earlier role runs this: the other one may not create temporary tables.
                sqlx::raw_sql("SET LOCAL ROLE NONE").execute(&mut *tx).await?;
                sqlx::raw_sql(local).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(state(&bank).await, before);
}

#[tokio::test]
async fn a_run_commits_nothing_of_a_transaction_left_open_on_its_connection() {
    // proves: T-1
    for (level, isolation) in [
        ("READ COMMITTED", Isolation::ReadCommitted),
        ("REPEATABLE READ", Isolation::ReadCommitted),
        ("SERIALIZABLE", Isolation::Serializable),
    ] {
        let bank = Bank::open(1).await;
        // The BEGIN is sent as text, so that sqlx does not know of it.
        let theirs = format!("BEGIN ISOLATION LEVEL {level}; UPDATE accounts SET balance = 1 WHERE id = 'a'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(theirs)).execute(&bank.pool).await.unwrap();
        let run = || on(&bank.pool, "transfer").isolation(isolation).run(async |tx| move_60(tx).await);
        let error = run().await.unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::OpenTransaction { label: "transfer" })), "{error:?}");
        assert_eq!((bank.balance("a").await, bank.balance("b").await), (100, 0), "{level}");
        run().await.expect("the next run works");
        assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60), "{level}");
    }
}

#[tokio::test]
async fn a_transaction_that_was_left_open_is_noticed_even_if_it_has_only_begun() {
    // proves: T-1
    for theirs in ["BEGIN; SET LOCAL app.tenant = '7'", "BEGIN READ ONLY", "BEGIN; LOCK TABLE accounts"] {
        for kind in ["a look-up", "a token", "read_only"] {
            let bank = Bank::open(1).await;
            create_token_table(&bank.pool).await.unwrap();
            let run = || {
                let run = on(&bank.pool, "tenant");
                match kind {
                    "read_only" => run.read_only(),
                    _ => run,
                }
            };
            let tenant = async |tx: &mut Tx<'_, sqlx::Postgres>| {
                let tenant = "SELECT coalesce(current_setting('app.tenant', true), '')";
                sqlx::query_scalar::<_, String>(tenant).fetch_one(&mut *tx).await
            };
            let tenant = async || match kind {
                "a token" => run().once("T").run(tenant).await,
                _ => run().run(tenant).await,
            };
            // The BEGIN is sent as text, so that sqlx does not know of it.
            sqlx::raw_sql(theirs).execute(&bank.pool).await.unwrap();
            let error = tenant().await.expect_err(theirs);
            let noticed = matches!(error, Error::Misuse(Misuse::OpenTransaction { label: "tenant" }));
            assert!(noticed, "{theirs}, {kind}: {error:?}");
            assert_eq!(tenant().await.expect("the next run works"), "", "{theirs}, {kind}");
        }
    }
}

#[tokio::test]
async fn a_failed_transaction_left_on_a_connection_is_noticed() {
    let bank = Bank::open(1).await;
    let _ = sqlx::raw_sql("BEGIN; SELECT 1 / 0").execute(&bank.pool).await;
    let outcome = on(&bank.pool, "transfer").run(async |tx| move_60(tx).await).await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::OpenTransaction { .. }))), "{outcome:?}");
    bank.assert_clean().await;
}

const TENANTS: &str =
    "CREATE TABLE secrets (tenant TEXT NOT NULL DEFAULT current_setting('app.tenant'), text TEXT);
    ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON secrets USING (tenant = current_setting('app.tenant'))";

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_leaves_no_setting_to_the_next_one() {
    let bank = Bank::open(1).await;
    sqlx::raw_sql(TENANTS).execute(&bank.pool).await.unwrap();
    create_token_table(&bank.pool).await.unwrap();
    let role = bank.role();
    let grants = format!("GRANT SELECT, INSERT ON secrets TO {}", role.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&bank.pool).await.unwrap();
    let hostile = "x'; SELECT set_config('app.tenant', 'b', false); -- \\' é\u{1F4B0}\n";
    for tenant in ["a", hostile] {
        let secret =
            || on(&bank.pool, "secret").set_local("role", role.name()).set_local("app.tenant", tenant);
        let write = async |tx: &mut Tx<'_, sqlx::Postgres>| {
            sqlx::query("INSERT INTO secrets (text) VALUES ('x')").execute(&mut *tx).await.map(drop)
        };
        secret().run(write).await.unwrap();
        for _ in 0..2 {
            secret().once(format!("T {tenant}")).run(write).await.unwrap();
        }
        let seen = secret().run(async |tx| {
            sqlx::query_scalar::<_, String>("SELECT tenant FROM secrets").fetch_all(&mut *tx).await
        });
        assert_eq!(seen.await.unwrap(), [tenant, tenant], "its own alone, and the token counted once");
    }
    let (_, role_after, _, tenant_after) = state(&bank).await;
    assert_eq!((role_after.as_str(), tenant_after), ("none", None));
    drop(role);
}

#[tokio::test]
async fn an_invalid_setting_is_refused_before_anything_runs() {
    let bank = Bank::open(1).await;
    for (name, value) in [("", "a"), ("app\"x", "a"), ("app.tenant", "a\0b")] {
        let outcome = on(&bank.pool, "a").set_local(name, value).run(async |tx| move_60(tx).await).await;
        assert!(matches!(outcome, Err(Error::Misuse(Misuse::Setting))), "{name}: {outcome:?}");
    }
}
