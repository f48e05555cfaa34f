//! One UPDATE in a transaction, each task its own row: the cost of a run without contention.
//!
//! | side | what it sends |
//! |---|---|
//! | raw | BEGIN, UPDATE, COMMIT through sqlx alone |
//! | raw, same statements | by hand, letter by letter what a run sends: isolation, timeouts, transaction id, check before COMMIT |
//! | run | the default policy |
//! | run, no look-up | without asking for the transaction id, as with a token |
//! | run, unguarded | without that and without the timeouts |
//! | run, untested pool | the default policy on a pool without `test_before_acquire`: BEGIN is the test |
//! | raw, same statements, untested pool | by hand, letter by letter what a run sends, on such a pool |
//! | raw, token | by hand, letter by letter what a run with a token sends |
//! | once | a run with a token of its own |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use probity_txn::{Policy, create_token_table, on};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::SqlitePoolOptions;

use super::CONNECTIONS;
use super::contest::{Contest, Turn, head};
use crate::closed_loop::Rounds;

const TABLES: &str = "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
    CREATE TABLE raw_tokens (token TEXT NOT NULL PRIMARY KEY, label TEXT NOT NULL, result TEXT NOT NULL DEFAULT '')";
const ROW: &str = "INSERT INTO accounts VALUES ($1, 0)";
const UPDATE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";
const TAKE: &str =
    "INSERT INTO raw_tokens (token, label) VALUES ($1, 'bench') ON CONFLICT (token) DO NOTHING";
const STORE: &str = "UPDATE raw_tokens SET result = $2 WHERE token = $1";

/// The text that a run with the default policy sends instead of BEGIN.
pub(super) const GUARDED_BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; \
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 2000; \
    SET LOCAL statement_timeout = 5000; SET LOCAL idle_in_transaction_session_timeout = 5000; \
    SELECT pg_backend_pid(), now() = statement_timestamp(), current_setting('transaction_read_only'), \
    extract(epoch FROM now()), pg_walfile_name(pg_current_wal_lsn()), \
    pg_current_xact_id(), extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())";
pub(super) const GUARDED_COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";
/// The text that a run with a token sends instead of BEGIN: it needs no transaction id.
const TOKEN_BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ; \
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 2000; \
    SET LOCAL statement_timeout = 5000; SET LOCAL idle_in_transaction_session_timeout = 5000; \
    SELECT pg_backend_pid(), now() = statement_timestamp(), current_setting('transaction_read_only'), \
    extract(epoch FROM now())";

/// The sides and the side each is compared with: as little as possible, the same statements, and with a token.
const POSTGRES_LINES: [(&str, &str); 11] = [
    ("raw", "raw"),
    ("raw, same statements", "raw"),
    ("run", "raw, same statements"),
    ("run", "raw"),
    ("run, no look-up", "raw"),
    ("run, unguarded", "raw"),
    ("raw, same statements, untested pool", "raw, same statements"),
    ("run, untested pool", "raw, same statements, untested pool"),
    ("run, untested pool", "raw, same statements"),
    ("once", "raw, token"),
    ("once", "run"),
];

/// SQLite has no timeouts and no look-up, so a run sends what raw sends.
const SQLITE_LINES: [(&str, &str); 4] =
    [("raw", "raw"), ("run", "raw"), ("once", "run"), ("once", "raw, token")];

/// Without the SELECT behind BEGIN.
const NO_LOOK_UP: Policy =
    Policy { look_up_lost_commits: false, cancel_abandoned: false, ..Policy::payments() };
const UNGUARDED: Policy =
    Policy { lock_timeout: None, statement_timeout: None, idle_timeout: None, ..NO_LOOK_UP };

/// A token that was not used before.
fn fresh() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{:016x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn row(task: u64) -> i64 {
    i64::try_from(task).unwrap_or(i64::MAX)
}

/// A side that needs a pool, which each call clones; nothing of it may fail. A macro, because a pool names its database.
macro_rules! with {
    ($pool:expr, |$own:ident, $task:ident| $body:expr) => {{
        let pool = $pool.clone();
        move |turn: Turn| {
            let $own = pool.clone();
            async move {
                let $task = row(turn.task);
                $body;
                true
            }
        }
    }};
}

/// The sides that are the same on each database.
macro_rules! sides {
    ($contest:expr, $pool:expr, $begin:expr, $token_begin:expr, $token_commit:expr) => {
        $contest
            .side(
                "raw",
                with!($pool, |pool, task| {
                    let mut tx = pool.begin_with($begin).await.expect("begin");
                    sqlx::query(UPDATE).bind(task).execute(&mut *tx).await.expect("update");
                    tx.commit().await.expect("commit");
                }),
            )
            .side(
                "run",
                with!($pool, |pool, task| {
                    on(&pool, "bench")
                        .run(async |tx| sqlx::query(UPDATE).bind(task).execute(&mut *tx).await)
                        .await
                        .expect("run");
                }),
            )
            .side(
                "raw, token",
                with!($pool, |pool, task| {
                    let token = fresh();
                    let mut session = pool.acquire().await.expect("acquire");
                    sqlx::raw_sql($token_begin).execute(&mut *session).await.expect("begin");
                    sqlx::query(TAKE).bind(&token).execute(&mut *session).await.expect("take");
                    sqlx::query(UPDATE).bind(task).execute(&mut *session).await.expect("update");
                    sqlx::query(STORE).bind(&token).bind("null").execute(&mut *session).await.expect("store");
                    sqlx::raw_sql($token_commit).execute(&mut *session).await.expect("commit");
                }),
            )
            .side(
                "once",
                with!($pool, |pool, task| {
                    let run = on(&pool, "bench").once(fresh()).run(async |tx| -> Result<(), sqlx::Error> {
                        sqlx::query(UPDATE).bind(task).execute(&mut *tx).await?;
                        Ok(())
                    });
                    run.await.expect("run");
                }),
            )
    };
}

/// By hand, letter by letter what a run sends.
#[expect(clippy::expect_used, reason = "nobody is in the way, so nothing fails")]
async fn same(pool: &PgPool, id: i64) {
    let mut session = pool.acquire().await.expect("acquire");
    sqlx::raw_sql(GUARDED_BEGIN).execute(&mut *session).await.expect("begin");
    sqlx::query(UPDATE).bind(id).execute(&mut *session).await.expect("update");
    sqlx::raw_sql(GUARDED_COMMIT).execute(&mut *session).await.expect("commit");
}

#[expect(clippy::expect_used, reason = "a bench that cannot reach its database has nothing to measure")]
pub(super) async fn on_postgres(pool: &PgPool, rounds: Rounds) {
    sqlx::raw_sql(TABLES).execute(pool).await.expect("create");
    create_token_table(pool).await.expect("create");
    for id in 0..64_i64 {
        sqlx::query(ROW).bind(id).execute(pool).await.expect("insert");
    }
    head("One UPDATE, PostgreSQL");
    let untested = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .test_before_acquire(false)
        .connect_with((*pool.connect_options()).clone())
        .await
        .expect("open PostgreSQL");
    for tasks in [1, 16, 64] {
        sides!(Contest::of(tasks), pool, "BEGIN", TOKEN_BEGIN, GUARDED_COMMIT)
            .side("raw, same statements", with!(pool, |pool, task| same(&pool, task).await))
            .side(
                "raw, same statements, untested pool",
                with!(untested, |pool, task| same(&pool, task).await),
            )
            .side(
                "run, no look-up",
                with!(pool, |pool, task| {
                    let run = on(&pool, "bench").policy(NO_LOOK_UP);
                    run.run(async |tx| sqlx::query(UPDATE).bind(task).execute(&mut *tx).await)
                        .await
                        .expect("run");
                }),
            )
            .side(
                "run, unguarded",
                with!(pool, |pool, task| {
                    let run = on(&pool, "bench").policy(UNGUARDED);
                    run.run(async |tx| sqlx::query(UPDATE).bind(task).execute(&mut *tx).await)
                        .await
                        .expect("run");
                }),
            )
            .side(
                "run, untested pool",
                with!(untested, |pool, task| {
                    let run = on(&pool, "bench");
                    run.run(async |tx| sqlx::query(UPDATE).bind(task).execute(&mut *tx).await)
                        .await
                        .expect("run");
                }),
            )
            .hold(rounds, &POSTGRES_LINES)
            .await;
    }
    untested.close().await;
}

#[expect(clippy::expect_used, reason = "as above")]
pub(super) async fn on_sqlite(rounds: Rounds) {
    let folder = testkit::temp_dir();
    // SQLite is not fair to who waits: with the default of 5 s one of 64 might give up, and nobody is to fail here.
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"))
        .busy_timeout(Duration::from_secs(30));
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect_with(options)
        .await
        .expect("open SQLite");
    sqlx::raw_sql(TABLES).execute(&pool).await.expect("create");
    create_token_table(&pool).await.expect("create");
    for id in 0..64_i64 {
        sqlx::query(ROW).bind(id).execute(&pool).await.expect("insert");
    }
    head("One UPDATE, SQLite (WAL, synchronous FULL)");
    for tasks in [1, 16, 64] {
        sides!(Contest::of(tasks), &pool, "BEGIN IMMEDIATE", "BEGIN IMMEDIATE", "COMMIT")
            .hold(rounds, &SQLITE_LINES)
            .await;
    }
    pool.close().await;
}
