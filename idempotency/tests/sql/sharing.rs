//! PostgreSQL, calls that share statements: the calls of one statement, their failures, and their waits.
#![cfg(feature = "postgres")]
#![cfg_attr(
    feature = "postgres",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

mod faults;
mod silence;
mod waiting;

use std::time::Duration;

use futures_util::future::join_all;
use probity_idempotency::store::{Answer, Claim, Holder, OwnerToken, RecordId, Renewed, Terms, Written};
use probity_idempotency::*;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Row};
use testkit::TestDatabase;
use tokio::time::{Instant, timeout};

const KEPT: Duration = Duration::from_secs(3600);
/// A limit that nothing reaches: much longer than a statement may take, much shorter than a kernel waits.
const PATIENCE: Duration = Duration::from_secs(60);

struct Database {
    pool: PgPool,
    store: PostgresStore,
    database: TestDatabase,
}

async fn database() -> Database {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let (pool, store) = connect(&database).await;
    Database { pool, store, database }
}

/// A pool of its own, as another process would have.
async fn connect(database: &TestDatabase) -> (PgPool, PostgresStore) {
    // A plan made once and kept is the worst case: it was made while the table was empty.
    let options: PgConnectOptions = database.url().parse().unwrap();
    let options = options.options([("plan_cache_mode", "force_generic_plan")]);
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    (pool, store)
}

/// Sessions report what they did when they are idle or end: this one, once no other is left.
async fn reported(database: &TestDatabase, pools: impl IntoIterator<Item = PgPool>) -> PgPool {
    for pool in pools {
        pool.close().await;
    }
    let options = PgPoolOptions::new().max_connections(1);
    let pool = options.connect(database.url()).await.unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let alone = async {
        while sqlx::query_scalar::<_, i64>(others).fetch_one(&pool).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, alone).await.unwrap();
    pool
}

/// Waits until `number` sessions wait for a lock.
async fn locked_out(pool: &PgPool, number: i64) {
    let waiting = async {
        while locked_out_now(pool).await < number {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

/// Returns the number of sessions that wait for a lock.
async fn locked_out_now(pool: &PgPool) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap()
}

/// A claim on a record of its own.
fn a_claim(number: u32) -> Claim {
    let mut record = [7; 32];
    record[..4].copy_from_slice(&number.to_be_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Local,
        terms: Terms::default(),
    }
}

fn retried(claim: &Claim) -> Claim {
    Claim { token: OwnerToken::generate().unwrap(), ..*claim }
}

fn recording(number: u32) -> Recording {
    Recording::new(201).header("n", number.to_string()).body(number.to_string())
}

/// Counts statements that claim and statements that change, one row each.
async fn count_statements(pool: &PgPool) {
    for sql in [
        "CREATE TABLE statements (kind TEXT NOT NULL)",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO statements VALUES (TG_ARGV[0]); RETURN NULL; END $$",
        "CREATE TRIGGER claims AFTER INSERT ON idempotency_records \
         FOR EACH STATEMENT EXECUTE FUNCTION note('claim')",
        "CREATE TRIGGER changes AFTER UPDATE OF status ON idempotency_records \
         FOR EACH STATEMENT EXECUTE FUNCTION note('change')",
    ] {
        sqlx::query(sql).execute(pool).await.unwrap();
    }
}

async fn statements(pool: &PgPool, kind: &str) -> i64 {
    sqlx::query("SELECT count(*) FROM statements WHERE kind = $1")
        .bind(kind)
        .fetch_one(pool)
        .await
        .unwrap()
        .get(0)
}

// On one thread, all calls are queued before the first statement is sent.
#[tokio::test]
async fn concurrent_calls_share_a_statement_and_each_gets_its_own_answer() {
    let Database { pool, store, database: _database } = database().await;
    count_statements(&pool).await;
    let claims: Vec<Claim> = (0..64).map(a_claim).collect();
    let answers = join_all(claims.iter().map(|claim| store.claim(claim))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Answer::Acquired(_)))), "{answers:?}");
    assert_eq!(statements(&pool, "claim").await, 1);
    let recordings: Vec<Recording> = (0..64).map(recording).collect();
    let holders: Vec<Holder> = claims.iter().map(Claim::holder).collect();
    let completing = holders.iter().zip(&recordings).map(|(holder, kept)| store.complete(holder, kept, KEPT));
    for written in join_all(completing).await {
        assert_eq!(written.unwrap(), Written::Applied);
    }
    let duplicates: Vec<Claim> = claims.iter().map(retried).collect();
    for (answer, kept) in
        join_all(duplicates.iter().map(|claim| store.claim(claim))).await.into_iter().zip(recordings)
    {
        assert_eq!(answer.unwrap(), Answer::Replay(kept));
    }
    assert_eq!(statements(&pool, "claim").await, 2);
}

#[tokio::test]
async fn duplicates_in_one_statement_are_answered_from_its_one_look_at_the_record() {
    let Database { pool, store, database: _database } = database().await;
    count_statements(&pool).await;
    let first = a_claim(1);
    let mut duplicates: Vec<Claim> = (0..32).map(|_| retried(&first)).collect();
    duplicates
        .push(Claim { fingerprint: Fingerprint::of(&HashKey::default(), &[b"other"]), ..retried(&first) });
    let answers = join_all(duplicates.iter().map(|claim| store.claim(claim))).await;
    let acquired = answers.iter().filter(|answer| matches!(answer, Ok(Answer::Acquired(_)))).count();
    let in_flight = answers.iter().filter(|answer| matches!(answer, Ok(Answer::InFlight { .. }))).count();
    assert_eq!((acquired, in_flight), (1, 31), "{answers:?}");
    assert!(matches!(answers.last(), Some(Ok(Answer::Mismatch))));
    assert_eq!(statements(&pool, "claim").await, 1);
}

#[tokio::test]
async fn large_answers_are_not_all_in_one_reply_and_each_caller_gets_its_own() {
    let Database { pool, store, database: _database } = database().await;
    let body = |number: u8| Recording::new(201).body(vec![number; 300 * 1024]);
    let claims: Vec<Claim> = (0..24).map(a_claim).collect();
    for (claim, number) in claims.iter().zip(0..) {
        assert!(matches!(store.claim(claim).await.unwrap(), Answer::Acquired(_)));
        let written = store.complete(&claim.holder(), &body(number), KEPT).await.unwrap();
        assert_eq!(written, Written::Applied);
    }
    count_statements(&pool).await;
    let retries: Vec<Claim> = claims.iter().map(retried).collect();
    let answers = join_all(retries.iter().map(|claim| store.claim(claim))).await;
    for (answer, number) in answers.into_iter().zip(0..) {
        assert!(answer.unwrap() == Answer::Replay(body(number)), "of {number}");
    }
    // Four fit into the reply of the one that looked at all; the others have a statement each.
    assert!(statements(&pool, "claim").await > 16);
}

#[tokio::test]
async fn changes_of_one_record_at_once_are_all_applied_in_some_order() {
    let Database { store, database: _database, .. } = database().await;
    for number in 0..16 {
        let claim = a_claim(number);
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        let (holder, kept) = (claim.holder(), recording(number));
        let (marked, renewed, completed, again) = tokio::join!(
            store.mark_effect(&holder),
            store.renew(&holder, KEPT),
            store.complete(&holder, &kept, KEPT),
            store.complete(&holder, &kept, KEPT),
        );
        assert_eq!(marked.unwrap(), Written::Applied);
        assert!(matches!(renewed.unwrap(), Renewed::Held(left) if !left.is_zero()));
        assert_eq!((completed.unwrap(), again.unwrap()), (Written::Applied, Written::AlreadyApplied));
    }
}

#[tokio::test]
async fn one_refused_call_does_not_spoil_the_others() {
    let Database { pool, store, database: _database } = database().await;
    for sql in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'this one is refused'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON idempotency_records FOR EACH ROW \
         WHEN (substring(NEW.id FROM 1 FOR 4) = '\\x00000005') EXECUTE FUNCTION refuse()",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let claims: Vec<Claim> = (0..32).map(a_claim).collect();
    let answers = join_all(claims.iter().map(|claim| store.claim(claim))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(Answer::Acquired(_)) => assert_ne!(number, 5),
            Err(error) => {
                assert_eq!(number, 5);
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
            }
            Ok(other) => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn shared_statements_use_the_index_from_the_first_row_on() {
    let Database { pool, store, database } = database().await;
    for round in 0..12 {
        let claims: Vec<Claim> = (0..64).map(|number| a_claim(round * 64 + number)).collect();
        join_all(claims.iter().map(|claim| store.claim(claim))).await;
        join_all(
            claims
                .iter()
                .map(async |claim| store.complete(&claim.holder(), &recording(1), KEPT).await.unwrap()),
        )
        .await;
    }
    // Sessions report what they did when they are idle or end.
    pool.close().await;
    let (pool, _store) = connect(&database).await;
    let (mut inserted, mut updated, mut scans) = (0_i64, 0_i64, 0_i64);
    let give_up_at = Instant::now() + PATIENCE;
    while inserted < 768 || updated < 768 {
        assert!(Instant::now() < give_up_at, "{inserted} inserted, {updated} updated");
        let row = sqlx::query(
            "SELECT n_tup_ins, n_tup_upd, seq_scan FROM pg_stat_user_tables WHERE relname = 'idempotency_records'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        (inserted, updated, scans) = (row.get(0), row.get(1), row.get(2));
        tokio::task::yield_now().await;
    }
    assert!(scans <= 2, "{scans} sequential scans"); // those that created the two indexes
}
