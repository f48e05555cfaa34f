//! Tests that the table of tokens is one table, for any search path and role of a session or a closure, and that a role
//! with few rights can use it.

use std::sync::atomic::{AtomicI64, Ordering};

use probity_txn::{Effect, Error, Misuse, TokenTable, TokenTableError, create_token_table, on, purge_tokens};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, PgPool};

use super::Bank;
use super::both::move_60;

/// A bank with a second schema, in which there is a table of tokens too.
async fn two_schemas(connections: u32) -> Bank {
    let bank = Bank::open(connections).await;
    create_token_table(&bank.pool).await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA other").execute(&bank.pool).await.unwrap();
    TokenTable::new().schema("other").create(&bank.pool).await.unwrap();
    bank
}

async fn tokens(pool: &PgPool, table: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_search_path_of_the_closure_does_not_divert_the_result_of_its_token() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let runs = AtomicI64::new(41);
    for way in ["SET LOCAL search_path = other", "SELECT set_config('search_path', 'other', true)"] {
        let run = || {
            on(&bank.pool, "pay").once(way).run(async |tx| {
                sqlx::query(way).execute(&mut *tx).await?;
                Ok::<_, sqlx::Error>(runs.fetch_add(1, Ordering::Relaxed) + 1)
            })
        };
        let first = run().await.unwrap();
        assert_eq!(run().await.unwrap(), first, "{way}: the stored result is read again");
    }
    assert_eq!(
        (
            tokens(&bank.pool, "probity_txn_tokens").await,
            tokens(&bank.pool, "other.probity_txn_tokens").await
        ),
        (2, 0)
    );
}

#[tokio::test]
async fn a_role_set_by_the_closure_needs_no_rights_on_the_token_table() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let clerk = format!("clerk_{}", std::process::id());
    let role = format!("CREATE ROLE {clerk}; GRANT SELECT, UPDATE ON accounts TO {clerk}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(role)).execute(&bank.pool).await.unwrap();
    let become_clerk =
        [format!("SET LOCAL ROLE {clerk}"), format!("SELECT set_config('role', '{clerk}', true)")];
    for (number, way) in become_clerk.into_iter().enumerate() {
        let run = || {
            on(&bank.pool, "pay").once(format!("T-{number}")).run(async |tx| {
                sqlx::query(sqlx::AssertSqlSafe(way.clone())).execute(&mut *tx).await?;
                sqlx::query("UPDATE accounts SET balance = balance + 1 WHERE id = 'b'")
                    .execute(&mut *tx)
                    .await?;
                sqlx::query_scalar::<_, String>("SELECT current_user::text").fetch_one(&mut *tx).await
            })
        };
        assert_eq!(run().await.unwrap(), clerk, "the closure's statements ran as the clerk");
        assert_eq!(run().await.unwrap(), clerk, "the result is stored");
    }
    assert_eq!(bank.balance("b").await, 2, "once per token");
    let gone = format!("DROP OWNED BY {clerk}; DROP ROLE {clerk}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(gone)).execute(&bank.pool).await.unwrap();
}

#[tokio::test]
async fn a_search_path_left_on_a_session_does_not_pay_a_token_twice() {
    // proves: T-6
    for (path, leftover) in
        [("other", "a schema with a table of tokens of its own"), ("pg_catalog", "a schema without one")]
    {
        let bank = two_schemas(2).await;
        let observer = PgPool::connect_with((*bank.pool.connect_options()).clone()).await.unwrap();
        let pay = || on(&bank.pool, "pay").once("PAY-1").run(async |tx| move_60(tx).await);
        pay().await.unwrap();
        // Another user of the pool.
        for mut connection in [bank.pool.acquire().await.unwrap(), bank.pool.acquire().await.unwrap()] {
            let leave = sqlx::AssertSqlSafe(format!("SET search_path = {path}"));
            sqlx::query(leave).execute(&mut *connection).await.unwrap();
        }
        pay().await.unwrap_or_else(|error| panic!("{leftover}: {error}"));
        // This does not use the pool, which may still have an idle session with the changed path.
        let paid: i64 = sqlx::query_scalar("SELECT balance FROM public.accounts WHERE id = 'b'")
            .fetch_one(&observer)
            .await
            .unwrap();
        assert_eq!(paid, 60, "{leftover}");
        assert_eq!(tokens(&observer, "other.probity_txn_tokens").await, 0, "{leftover}");
    }
}

#[tokio::test]
async fn a_search_path_left_on_a_session_does_not_pay_a_token_twice_after_a_password_change() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let pay = || on(&bank.pool, "pay").once("PAY-1").run(async |tx| move_60(tx).await);
    pay().await.unwrap();
    sqlx::query("SET search_path = other, public").execute(&bank.pool).await.unwrap();
    bank.pool.set_connect_options((*bank.pool.connect_options()).clone());
    pay().await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
    assert_eq!(tokens(&bank.pool, "other.probity_txn_tokens").await, 0);
}

#[tokio::test]
async fn a_purge_deletes_from_the_table_that_the_runs_of_its_pool_write_to() {
    // proves: T-6
    let bank = two_schemas(1).await;
    on(&bank.pool, "pay").once("PAY-1").run(async |tx| move_60(tx).await).await.unwrap();
    let old = "INSERT INTO public.probity_txn_tokens VALUES ('old', 'pay', '', '2020-01-01');
        INSERT INTO other.probity_txn_tokens VALUES ('theirs', 'pay', '', '2020-01-01')";
    sqlx::raw_sql(old).execute(&bank.pool).await.unwrap();
    // Another user of the pool: a path to another table, and one to none.
    for path in ["other", "pg_catalog"] {
        let leave = sqlx::AssertSqlSafe(format!("SET search_path = {path}"));
        sqlx::query(leave).execute(&bank.pool).await.unwrap();
        purge_tokens(&bank.pool, std::time::Duration::from_hours(24)).await.unwrap();
        assert_eq!(tokens(&bank.pool, "public.probity_txn_tokens").await, 1, "{path}");
        assert_eq!(tokens(&bank.pool, "other.probity_txn_tokens").await, 1, "{path}");
    }
}

#[tokio::test]
async fn sessions_that_switch_their_search_path_are_refused_unless_the_schema_is_named() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let turns = std::sync::Arc::new(AtomicI64::new(0));
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .before_acquire(move |connection, _| {
            // One tenant's turn, then the other's.
            let tenant = if turns.fetch_add(1, Ordering::Relaxed) == 0 { "public" } else { "other" };
            Box::pin(async move {
                let path = sqlx::AssertSqlSafe(format!("SET search_path = {tenant}, public"));
                sqlx::query(path).execute(connection).await.map(|_| true)
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::query("SET search_path = other, public").execute(connection).await.map(drop)
            })
        })
        .connect_with((*bank.pool.connect_options()).clone())
        .await
        .unwrap();
    let pay = || on(&pool, "pay").once("PAY-1");
    pay().run(async |_tx| Ok::<_, sqlx::Error>(1)).await.unwrap();
    let error = pay().run(async |_tx| Ok::<_, sqlx::Error>(2)).await.unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::TokenTableMoved { label: "pay" })), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown, "it was looked for in the wrong table");
    assert!(error.to_string().contains("TokenTable::schema"), "the remedy: {error}");
    let age = std::time::Duration::from_hours(24);
    let purged = purge_tokens(&pool, age).await;
    assert!(matches!(purged, Err(TokenTableError::Moved { .. })), "{purged:?}");
    let named = TokenTable::new().schema("public");
    assert_eq!(named.purge(&pool, age).await.unwrap(), 0);
    let stored = pay().in_table(&named).run(async |_tx| Ok::<_, sqlx::Error>(3)).await;
    assert_eq!(stored.unwrap(), 1);
}

#[tokio::test]
async fn a_deleted_token_row_prevents_the_commit() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let outcome = on(&bank.pool, "pay")
        .once("PAY-1")
        .run(async |tx| {
            sqlx::query("DELETE FROM probity_txn_tokens").execute(&mut *tx).await?;
            move_60(tx).await
        })
        .await;
    assert!(
        matches!(outcome, Err(Error::RolledBack(probity_txn::RollbackReason::ResultNotStored(_)))),
        "{outcome:?}"
    );
    assert_eq!(bank.balance("b").await, 0);
}

/// The pool of a service that may do what `grants.sql` says, and use its own tables.
async fn restricted(bank: &Bank, role: &testkit::TestRole) -> PgPool {
    let accounts = format!("GRANT SELECT, UPDATE ON accounts TO {}", role.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(accounts)).execute(&bank.pool).await.unwrap();
    PgPoolOptions::new().max_connections(2).connect(role.url()).await.unwrap()
}

#[tokio::test]
async fn a_role_that_may_only_read_and_write_rows_starts_runs_and_purges() {
    let bank = Bank::open(2).await;
    let role = bank.role();
    let pool = restricted(&bank, &role).await;
    let table = TokenTable::new();

    let missing = table.verify(&pool).await.unwrap_err();
    assert!(matches!(missing, TokenTableError::Missing { .. }), "{missing:?}");
    assert!(table.create(&pool).await.is_err(), "it may not create tables");

    sqlx::raw_sql(include_str!("../../sql/postgres/v1.sql")).execute(&bank.pool).await.unwrap();
    let forbidden = table.verify(&pool).await.unwrap_err();
    assert!(matches!(forbidden, TokenTableError::Forbidden { .. }), "{forbidden:?}");
    assert!(forbidden.to_string().contains("SELECT, INSERT, UPDATE and DELETE"), "the remedy: {forbidden}");

    let grants = include_str!("../../sql/postgres/grants.sql").replace("my_service", role.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&bank.pool).await.unwrap();
    table.verify(&pool).await.unwrap();
    table.create(&pool).await.expect("it looks first");

    let pay = || on(&pool, "pay").once("PAY-1").run(async |tx| move_60(tx).await);
    pay().await.unwrap();
    pay().await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
    assert_eq!(purge_tokens(&pool, std::time::Duration::from_hours(24)).await.unwrap(), 0);
    pool.close().await;
}

#[tokio::test]
async fn a_token_table_out_of_reach_leaves_open_whether_the_token_was_used() {
    // proves: T-6
    let bank = Bank::open(2).await;
    let role = bank.role();
    let pool = restricted(&bank, &role).await;
    let named = TokenTable::new().schema("public");
    named.create(&bank.pool).await.unwrap();
    let grants = include_str!("../../sql/postgres/grants.sql").replace("my_service", role.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&bank.pool).await.unwrap();
    let pay = |token: &str| on(&pool, "pay").once(token).in_table(&named);
    pay("PAY-1").run(async |tx| move_60(tx).await).await.unwrap();
    // The right of the role goes, then the table.
    for change in [
        format!("REVOKE INSERT ON probity_txn_tokens FROM {}", role.name()),
        "ALTER TABLE probity_txn_tokens RENAME TO old_tokens".to_owned(),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(change.as_str())).execute(&bank.pool).await.unwrap();
        let error = pay("PAY-1").run(async |tx| move_60(tx).await).await.unwrap_err();
        assert!(matches!(error, Error::Unsettled { .. }), "{change}: {error:?}");
        assert_eq!(error.effect(), Effect::Unknown, "{change}: the token was used");
    }
    assert_eq!(bank.balance("b").await, 60);
    pool.close().await;
}

#[tokio::test]
async fn a_setting_refused_after_the_token_was_granted_writes_nothing() {
    // proves: T-6
    let bank = two_schemas(1).await;
    let pay = on(&bank.pool, "pay").set_local("role", "nobody").once("PAY-1");
    let error = pay.run(async |tx| move_60(tx).await).await.unwrap_err();
    assert!(matches!(error, Error::Pool(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::NotApplied);
}

#[tokio::test]
async fn a_token_table_with_other_columns_or_keys_is_refused() {
    let bank = Bank::open(1).await;
    for wrong in [
        "CREATE TABLE probity_txn_tokens (token TEXT PRIMARY KEY, label TEXT, created_at TIMESTAMPTZ)",
        "CREATE TABLE probity_txn_tokens (token TEXT, label TEXT, result TEXT, created_at TIMESTAMPTZ)",
    ] {
        sqlx::raw_sql(wrong).execute(&bank.pool).await.unwrap();
        let error = TokenTable::new().create(&bank.pool).await.unwrap_err();
        assert!(matches!(error, TokenTableError::Differs { .. }), "{error:?}");
        sqlx::raw_sql("DROP TABLE probity_txn_tokens").execute(&bank.pool).await.unwrap();
    }
}

#[tokio::test]
async fn two_services_on_one_database_have_their_own_tokens() {
    let bank = Bank::open(2).await;
    sqlx::raw_sql("CREATE SCHEMA payments").execute(&bank.pool).await.unwrap();
    let tables = [
        TokenTable::new().schema("payments"),
        TokenTable::new().schema("payments").table_prefix("Payouts_"),
        TokenTable::new().table_prefix("orders_"),
    ];
    for (number, table) in tables.iter().enumerate() {
        table.create(&bank.pool).await.unwrap();
        let run = on(&bank.pool, "pay").once("7").in_table(table);
        assert_eq!(run.run(async |_tx| Ok::<_, sqlx::Error>(number)).await.unwrap(), number);
    }
    let mut connection = PgConnection::connect_with(&bank.pool.connect_options()).await.unwrap();
    for name in ["payments.probity_txn_tokens", "payments.\"Payouts_txn_tokens\"", "public.orders_txn_tokens"]
    {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(there, "{name}");
    }
    for wrong in ["", "a-b", "a\"b", "a.b"] {
        let table = TokenTable::new().schema(wrong);
        let outcome =
            on(&bank.pool, "pay").once("7").in_table(&table).run(async |_tx| Ok::<_, sqlx::Error>(0)).await;
        assert!(matches!(outcome, Err(Error::Misuse(Misuse::TokenTableName))), "{wrong}: {outcome:?}");
        assert!(matches!(table.create(&bank.pool).await, Err(TokenTableError::Name(_))), "{wrong}");
    }
}
