//! The plans of the engine's statements: by the keys, on empty tables and on full ones.
#![cfg(all(feature = "postgres", feature = "testing"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use probity_saga::PostgresStore;
use probity_saga::store::plans::{SETTINGS, STATEMENTS};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection, Row as _};

/// With twice as many step rows. A plan made on empty tables is wrong long before this size.
const SAGAS: &str = "1000000";

/// Unlogged tables are quicker to load, and have the same plans.
const FILL: &str = "
    ALTER TABLE saga_heads SET UNLOGGED;
    ALTER TABLE saga_step_rows SET UNLOGGED;
    INSERT INTO saga_heads (id, business_id, business_type, status, definition, input, input_hash, owner_id)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'PAY-' || n, 'payment',
        CASE WHEN n % 100 = 0 THEN 'in_progress' ELSE 'completed' END, 'v1', '{}', 'hash',
        CASE WHEN n % 100 = 0 THEN '00000000-0000-7000-8000-000000000001'::uuid END
    FROM generate_series(1, :sagas) n;
    INSERT INTO saga_step_rows (saga_id, step_order, write_no, lease_epoch, max_retry_count, step_name, status)
    SELECT id, s, s, 1, 3, 'Step', 'succeeded' FROM saga_heads, generate_series(1, 2) s;";

async fn no_statement_scans_a_table(connection: &mut PgConnection, when: &str) {
    for (name, _, parameters) in STATEMENTS {
        let nothing = vec!["NULL"; parameters].join(", ");
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE {name} ({nothing})"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let of_a_table = |line: &String| {
            line.contains("Scan") && (line.contains(" saga_heads") || line.contains(" saga_step_rows"))
        };
        // A scan by a key says in its next line by which.
        let by_key = |at: usize| {
            let next = plan.get(at + 1);
            next.is_some_and(|line| line.contains("Index Cond: ") || line.contains("Recheck Cond: "))
        };
        // The count reads two indexes in full, which hold only open sagas.
        let open = ["saga_heads_active", "saga_heads_waiting_for_people"];
        let by_key =
            |at: usize| by_key(at) || (name == "census" && open.iter().any(|index| plan[at].contains(index)));
        let scans = (0..plan.len()).any(|at| of_a_table(&plan[at]) && !by_key(at));
        assert!(!scans, "{name}, {when}:\n{}", plan.join("\n"));
    }
}

#[tokio::test]
async fn the_writer_finds_rows_by_key_on_sessions_older_and_newer_than_the_rows() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    PostgresStore::new(pool.clone()).await.unwrap();
    let options = pool.connect_options().as_ref().clone().options(SETTINGS);
    let mut early = PgConnection::connect_with(&options).await.unwrap();
    for (name, statement, _) in STATEMENTS {
        let prepare = sqlx::AssertSqlSafe(format!("PREPARE {name} AS {statement}"));
        sqlx::raw_sql(prepare).execute(&mut early).await.unwrap();
    }
    no_statement_scans_a_table(&mut early, "on empty tables").await;
    let fill = sqlx::AssertSqlSafe(FILL.replace(":sagas", SAGAS));
    sqlx::raw_sql(fill).execute(&pool).await.unwrap();
    no_statement_scans_a_table(&mut early, "on tables that grew").await;
    sqlx::raw_sql("ANALYZE saga_heads, saga_step_rows").execute(&pool).await.unwrap();
    no_statement_scans_a_table(&mut early, "on tables that were analyzed").await;
}
