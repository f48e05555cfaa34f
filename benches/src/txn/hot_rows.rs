//! 64 tasks, transfers between 10 accounts: what order and admission are worth against retries.
//!
//! A transfer that was not committed does not count, and after each contest the money is counted: a lost update
//! would show there.

use probity_txn::{
    Isolation, Policy, Tx, Txn,
    lock::{LockError, Lockable},
    on,
};
use sqlx::postgres::PgPool;
use sqlx::{Connection as _, PgConnection, Postgres};

use super::connect;
use super::contest::{Contest, Turn, head};
use super::one_update::{GUARDED_BEGIN, GUARDED_COMMIT};
use crate::closed_loop::{Rounds, say};

const TASKS: u64 = 64;
const ACCOUNTS: i64 = 10;
const EACH: i64 = 1_000_000;
const MOVE: &str = "UPDATE hot SET balance = balance + $1 WHERE id = $2";

const BY_HAND: &str = "READ COMMITTED, by hand, ordered FOR UPDATE";
const SAME: &str = "READ COMMITTED, by hand, the statements of `lock_many`";
const LOCK_MANY: &str = "READ COMMITTED, `lock_many`";
const LOCK_MANY_8: &str = "READ COMMITTED, `lock_many`, `max_in_flight(8)`";
const NAIVE: &str = "SERIALIZABLE, unordered, retried at once";
const SSI: &str = "SERIALIZABLE, `lock_many`";
const SSI_8: &str = "SERIALIZABLE, `lock_many`, `max_in_flight(8)`";
const ONE: &str = "one statement";
/// Hand-written order is the bar at READ COMMITTED, the naive loop at SERIALIZABLE.
const LINES: [(&str, &str); 10] = [
    (BY_HAND, BY_HAND),
    (SAME, BY_HAND),
    (LOCK_MANY, SAME),
    (LOCK_MANY, BY_HAND),
    (LOCK_MANY_8, SAME),
    (LOCK_MANY_8, BY_HAND),
    (NAIVE, NAIVE),
    (SSI, NAIVE),
    (SSI_8, NAIVE),
    (ONE, BY_HAND),
];

struct Account;

impl Lockable for Account {
    type Key = i64;
    const TABLE: &'static str = "hot";
}

/// Two different accounts, the same for each side, and in any order.
fn pair(turn: Turn) -> (i64, i64) {
    let mut random = testkit::Rng::new(turn.task << 32 | turn.number);
    let mut ids: Vec<i64> = (0..ACCOUNTS).collect();
    random.shuffle(&mut ids);
    (ids[0], ids[1])
}

/// Both halves, in the order given.
async fn shift(connection: &mut PgConnection, from: i64, to: i64) -> Result<(), sqlx::Error> {
    sqlx::query(MOVE).bind(-1_i64).bind(from).execute(&mut *connection).await?;
    sqlx::query(MOVE).bind(1_i64).bind(to).execute(connection).await?;
    Ok(())
}

/// The usual code of a service: SERIALIZABLE, updates in any order, and another try at once on a conflict.
async fn naive(pool: &PgPool, turn: Turn) -> bool {
    let (from, to) = pair(turn);
    while !turn.is_over() {
        let attempt = async {
            let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
            shift(&mut tx, from, to).await?;
            tx.commit().await
        };
        match attempt.await {
            Ok(()) => return true,
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some("40001" | "40P01")) => {}
            Err(_) => return false,
        }
    }
    false
}

/// The careful code of an expert: both rows locked in order, at READ COMMITTED.
async fn by_hand(pool: &PgPool, from: i64, to: i64) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("SELECT id FROM hot WHERE id IN ($1, $2) ORDER BY id FOR UPDATE")
        .bind(from)
        .bind(to)
        .fetch_all(&mut *tx)
        .await?;
    shift(&mut tx, from, to).await?;
    tx.commit().await
}

/// By hand, letter by letter what a run with `lock_many` sends. No error leaves it: the connection would go back to
/// the pool inside its transaction.
#[expect(clippy::expect_used, reason = "with ordered locks nothing fails")]
async fn same(pool: &PgPool, from: i64, to: i64) -> bool {
    let mut session = pool.acquire().await.expect("acquire");
    sqlx::raw_sql(GUARDED_BEGIN).execute(&mut *session).await.expect("begin");
    let lock = "SELECT this.id FROM hot AS this WHERE this.id IN ($1, $2) ORDER BY this.id FOR NO KEY UPDATE";
    sqlx::query(lock).bind(from.min(to)).bind(from.max(to)).fetch_all(&mut *session).await.expect("lock");
    shift(&mut session, from, to).await.expect("update");
    sqlx::raw_sql(GUARDED_COMMIT).execute(&mut *session).await.is_ok()
}

/// The same by a run.
async fn ordered(txn: Txn<'_, Postgres>, from: i64, to: i64) -> bool {
    let patient = Policy { attempts: u32::MAX, ..Policy::payments() };
    let run = txn.policy(patient).run(async |tx: &mut Tx<'_, Postgres>| -> Result<(), LockError> {
        tx.lock_many::<Account>([from, to]).await?;
        sqlx::query(MOVE).bind(-1_i64).bind(from).execute(&mut *tx).await?;
        sqlx::query(MOVE).bind(1_i64).bind(to).execute(&mut *tx).await?;
        Ok(())
    });
    run.await.is_ok()
}

/// No transaction at all: both halves in one statement.
async fn one_statement(pool: &PgPool, from: i64, to: i64) -> bool {
    let both = "WITH locked AS MATERIALIZED (SELECT id FROM hot WHERE id IN ($1, $2) ORDER BY id FOR UPDATE)
        UPDATE hot SET balance = balance + CASE WHEN hot.id = $1 THEN -1 ELSE 1 END
        FROM locked WHERE hot.id = locked.id";
    sqlx::query(both).bind(from).bind(to).execute(pool).await.is_ok()
}

#[expect(clippy::expect_used, reason = "a bench that cannot reach its database has nothing to measure")]
pub(super) async fn measure(url: &str, rounds: Rounds) {
    let mut observer = PgConnection::connect(url).await.expect("connect");
    sqlx::raw_sql("CREATE TABLE hot (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)")
        .execute(&mut observer)
        .await
        .expect("create");
    sqlx::query("INSERT INTO hot SELECT i, $1 FROM generate_series(0, $2 - 1) AS i")
        .bind(EACH)
        .bind(ACCOUNTS)
        .execute(&mut observer)
        .await
        .expect("insert");
    let pool = connect(url).await;

    /// A side that moves money between a pair of accounts.
    macro_rules! moving {
        (|$own:ident, $from:ident, $to:ident| $body:expr) => {{
            let pool = pool.clone();
            move |turn| {
                let $own = pool.clone();
                async move {
                    let ($from, $to) = pair(turn);
                    $body
                }
            }
        }};
    }
    head("Hot rows: 64 tasks, transfers between 10 accounts, PostgreSQL");
    Contest::of(TASKS)
        .side(BY_HAND, moving!(|pool, from, to| by_hand(&pool, from, to).await.is_ok()))
        .side(SAME, moving!(|pool, from, to| same(&pool, from, to).await))
        .side(LOCK_MANY, moving!(|pool, from, to| ordered(on(&pool, "rc"), from, to).await))
        .side(
            LOCK_MANY_8,
            moving!(|pool, from, to| ordered(on(&pool, "rc").max_in_flight(8), from, to).await),
        )
        .side(NAIVE, {
            let pool = pool.clone();
            move |turn| {
                let pool = pool.clone();
                async move { naive(&pool, turn).await }
            }
        })
        .side(
            SSI,
            moving!(
                |pool, from, to| ordered(on(&pool, "ssi").isolation(Isolation::Serializable), from, to).await
            ),
        )
        .side(
            SSI_8,
            moving!(|pool, from, to| {
                let txn = on(&pool, "ssi").isolation(Isolation::Serializable).max_in_flight(8);
                ordered(txn, from, to).await
            }),
        )
        .side(ONE, moving!(|pool, from, to| one_statement(&pool, from, to).await))
        .hold(rounds, &LINES)
        .await;
    let sum: i64 = sqlx::query_scalar("SELECT sum(balance)::bigint FROM hot")
        .fetch_one(&mut observer)
        .await
        .expect("sum");
    assert_eq!(sum, ACCOUNTS * EACH, "an update was lost");
    say(format!("\nNo update was lost: the {ACCOUNTS} accounts still hold {sum} together."));
    pool.close().await;
}
