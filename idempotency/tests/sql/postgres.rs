//! PostgreSQL: the zombie, the isolation levels, and the duplicate of an open transaction.
#![cfg(feature = "postgres")]
#![cfg_attr(
    feature = "postgres",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::lease::{LeaseGuard, claim};
use probity_idempotency::store::{Answer, Claim, Fence, OwnerToken, RecordId, State, Terms, Written};
use probity_idempotency::*;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Row};
use testkit::TestDatabase;

struct Database {
    pool: PgPool,
    manager: Arc<dyn IdempotencyManager>,
    store: PostgresStore,
    _database: TestDatabase,
}

async fn database() -> Database {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    sqlx::query("CREATE TABLE payments (amount BIGINT NOT NULL)").execute(&pool).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    Database { pool, manager: Arc::new(store.clone()), store, _database: database }
}

async fn payments(pool: &PgPool) -> i64 {
    sqlx::query("SELECT count(*) FROM payments").fetch_one(pool).await.unwrap().get(0)
}

fn a_claim(lease: Duration) -> Claim {
    Claim {
        record: RecordId::from_bytes([7; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Local,
        terms: Terms { lease, ..Terms::default() },
    }
}

fn granted(answer: Answer<LeaseGuard>) -> LeaseGuard {
    match answer {
        Answer::Acquired(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

async fn pay(pool: &PgPool, begin: &'static str, lease: &Lease) -> Result<(), StoreError> {
    let mut tx = pool.begin_with(begin).await.unwrap();
    sqlx::query("INSERT INTO payments (amount) VALUES (100)").execute(&mut *tx).await.unwrap();
    lease.complete_in(&mut *tx, &Recording::new(201).body("paid")).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// Waits until a statement is inside PostgreSQL, where it waits for a row that the test has locked.
async fn a_statement_waits_for_our_row(pool: &PgPool) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = async {
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

// proves: I-9
#[tokio::test]
async fn sessions_that_take_no_writes_are_replaced_after_one_failure_each() {
    let database = database().await;
    let single =
        || PgPoolOptions::new().max_connections(1).connect_with((*database.pool.connect_options()).clone());
    for behind_pooler in [false, true] {
        let pool = single().await.unwrap();
        let builder = PostgresStore::builder(pool.clone());
        let builder = if behind_pooler { builder.behind_pooler() } else { builder };
        let store = builder.build().await.unwrap();
        // As on a server that was demoted: behind a pooler, BEGIN asks for a transaction that writes.
        let demote = if behind_pooler {
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN RAISE EXCEPTION USING ERRCODE = ''25006''; END';
             CREATE TRIGGER demoted BEFORE INSERT ON idempotency_records EXECUTE FUNCTION refuse()"
        } else {
            "SET default_transaction_read_only = on"
        };
        sqlx::raw_sql(demote).execute(&pool).await.unwrap();
        let session = async || sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&pool).await;
        let before = session().await.unwrap();
        let claim =
            Claim { record: RecordId::from_bytes([u8::from(behind_pooler); 32]), ..a_claim(Duration::ZERO) };
        let error = store.clone().direct().claim(&claim).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        assert_ne!(session().await.unwrap(), before, "behind a pooler: {behind_pooler}");
        if !behind_pooler {
            assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_asked_once_for_calls_that_share_a_statement() {
    let database = database().await;
    let store = PostgresStore::new(database.pool.clone()).await.unwrap();
    // A sequence counts what is rolled back too.
    let demote = "CREATE SEQUENCE asked;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM nextval(''asked''); RAISE EXCEPTION USING ERRCODE = ''25006''; END';
         CREATE TRIGGER demoted BEFORE INSERT ON idempotency_records EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(demote).execute(&database.pool).await.unwrap();
    let claims = (0..100).map(|n| Claim { record: RecordId::from_bytes([n; 32]), ..a_claim(Duration::ZERO) });
    let claims: Vec<_> = claims.collect();
    let answers = futures_util::future::join_all(claims.iter().map(|claim| store.claim(claim))).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    }
    let asked = sqlx::query_scalar::<_, i64>("SELECT last_value FROM asked").fetch_one(&database.pool).await;
    let asked = asked.unwrap();
    assert!((1..10).contains(&asked), "{asked} statements");
}

// proves: I-5
#[tokio::test]
async fn a_commit_that_fails_behind_a_pooler_leaves_the_claim_in_doubt() {
    let database = database().await;
    let store = PostgresStore::builder(database.pool.clone()).behind_pooler().build().await.unwrap();
    let late = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE EXCEPTION USING ERRCODE = ''53300''; END';
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON idempotency_records
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(late).execute(&database.pool).await.unwrap();
    let error = store.direct().claim(&a_claim(Duration::ZERO)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
}

// proves: I-4
#[tokio::test]
async fn a_zombie_can_commit_neither_its_answer_nor_its_payment_at_any_isolation() {
    for begin in [
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
    ] {
        let database = database().await;
        let zombie = granted(claim(&database.manager, &a_claim(Duration::ZERO)).await.unwrap());
        let heir = granted(claim(&database.manager, &a_claim(Duration::from_secs(30))).await.unwrap());
        let lost = pay(&database.pool, begin, &zombie.lease()).await.unwrap_err();
        assert_eq!((lost.kind(), lost.effect()), (ErrorKind::LeaseLost, Effect::NotApplied));
        assert_eq!(payments(&database.pool).await, 0);
        pay(&database.pool, begin, &heir.lease()).await.unwrap();
        let retry = database.manager.claim(&a_claim(Duration::ZERO)).await.unwrap();
        assert_eq!(retry, Answer::Replay(Recording::new(201).body("paid")));
        assert_eq!(payments(&database.pool).await, 1);
    }
}

// proves: I-4
#[tokio::test]
async fn a_takeover_waits_for_a_completion_in_an_open_transaction_and_then_replays() {
    let database = database().await;
    let slow = granted(claim(&database.manager, &a_claim(Duration::ZERO)).await.unwrap());
    let mut tx = database.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO payments (amount) VALUES (100)").execute(&mut *tx).await.unwrap();
    slow.lease().complete_in(&mut *tx, &Recording::new(201)).await.unwrap();
    let manager = Arc::clone(&database.manager);
    let heir = tokio::spawn(async move { manager.claim(&a_claim(Duration::from_secs(30))).await });
    a_statement_waits_for_our_row(&database.pool).await;
    tx.commit().await.unwrap();
    assert_eq!(heir.await.unwrap().unwrap(), Answer::Replay(Recording::new(201)));
    assert_eq!(payments(&database.pool).await, 1);
}

#[tokio::test]
async fn a_claim_in_the_callers_transaction_is_real_only_when_it_commits() {
    let database = database().await;
    let claim = a_claim(Duration::from_secs(30));
    let mut tx = database.pool.begin().await.unwrap();
    assert!(matches!(database.store.claim_in(&mut *tx, &claim).await.unwrap(), Answer::Acquired(_)));
    tx.rollback().await.unwrap();
    assert_eq!(database.manager.get(claim.record).await.unwrap(), None);
    let mut tx = database.pool.begin().await.unwrap();
    assert!(matches!(database.store.claim_in(&mut *tx, &claim).await.unwrap(), Answer::Acquired(_)));
    let kept = Duration::from_secs(60);
    database.store.complete_in(&mut *tx, &claim.holder(), &Recording::new(200), kept).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.manager.claim(&claim).await.unwrap(), Answer::Replay(Recording::new(200)));
    let other = Claim { record: RecordId::from_bytes([8; 32]), ..claim };
    let mut tx = database.pool.begin().await.unwrap();
    assert!(matches!(database.store.claim_in(&mut *tx, &other).await.unwrap(), Answer::Acquired(_)));
    database.store.release_in(&mut *tx, &other.holder()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.manager.get(other.record).await.unwrap().unwrap().state, State::Released);
}

#[tokio::test]
async fn many_starts_at_once_create_one_table() {
    for isolation in [None, Some("serializable")] {
        let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
        let options: PgConnectOptions = database.url().parse().unwrap();
        let options = options.options(isolation.map(|level| ("default_transaction_isolation", level)));
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
        let starts: Vec<_> = (0..6).map(|_| tokio::spawn(PostgresStore::new(pool.clone()))).collect();
        for start in starts {
            start.await.unwrap().unwrap();
        }
        assert_eq!(database.query("SELECT count(*) FROM idempotency_schema"), "2", "one for each step");
    }
}

// A claim draws its fence before it waits for the row.
#[tokio::test]
async fn the_fence_of_a_claim_that_waited_is_above_earlier_ones_and_below_later_ones() {
    let database = database().await;
    let (pool, store) = (&database.pool, &database.store);
    let (lease, kept) = (Duration::from_secs(30), Duration::ZERO);
    let mut tx = pool.begin().await.unwrap();
    let first = a_claim(lease);
    assert!(matches!(store.claim_in(&mut *tx, &first).await.unwrap(), Answer::Acquired(_)));
    let (direct, waiting) = (store.clone().direct(), a_claim(lease));
    let waits = tokio::spawn(async move { direct.claim(&waiting).await });
    a_statement_waits_for_our_row(pool).await;
    store.release_in(&mut *tx, &first.holder()).await.unwrap();
    let second = a_claim(lease);
    let Answer::Acquired(earlier) = store.claim_in(&mut *tx, &second).await.unwrap() else { panic!("held") };
    store.release_in(&mut *tx, &second.holder()).await.unwrap();
    tx.commit().await.unwrap();
    let Answer::Acquired(waited) = waits.await.unwrap().unwrap() else { panic!("not granted") };
    assert!(waited.fence > earlier.fence, "{waited:?} after {earlier:?}");
    assert_eq!(
        store.complete(&waiting.holder(), &Recording::new(200), kept).await.unwrap(),
        Written::Applied
    );
    assert_eq!(store.purge(10).await.unwrap(), 1);
    let Answer::Acquired(later) = store.claim(&a_claim(lease)).await.unwrap() else { panic!("not granted") };
    assert!(later.fence > waited.fence, "{later:?} after {waited:?}");
}

/// The tables as the first version of this crate made them, with a record that has the clock's fence.
#[tokio::test]
async fn tables_of_version_1_are_upgraded_and_their_fences_go_on() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(4).connect(database.url()).await.unwrap();
    sqlx::raw_sql(include_str!("../../sql/postgres/0001_records.sql")).execute(&pool).await.unwrap();
    let old = "INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, \
               lease_until, cap_until, expires_at) SELECT $1, $2, $3, 'local', 'in_flight', \
               (extract(epoch FROM now()) * 1000000)::bigint, 1, 1, 1, 1, 1 RETURNING fence";
    let first = a_claim(Duration::ZERO);
    let (record, token) = (first.record.as_bytes().as_slice(), first.token.as_bytes().as_slice());
    let print = first.fingerprint.as_bytes().as_slice();
    let written = async || {
        let query = sqlx::query_scalar::<_, i64>(old).bind(record).bind(token).bind(print);
        query.fetch_one(&pool).await.unwrap()
    };
    let before = written().await;
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    assert_eq!(store.purge(10).await.unwrap(), 1);
    // A program of version 1 that still runs beside the new ones.
    let fence = written().await;
    assert!(fence > before);
    assert_eq!(store.purge(10).await.unwrap(), 1);
    let shared: Arc<dyn IdempotencyManager> = Arc::new(store.clone());
    for (store, attempt) in [(shared, 1), (Arc::new(store.direct()), 2)] {
        let Answer::Acquired(grant) = store.claim(&a_claim(Duration::ZERO)).await.unwrap() else {
            panic!("not granted")
        };
        assert!(grant.fence > Fence(fence.unsigned_abs()) && grant.attempt == attempt, "{grant:?}");
    }
}

// proves: I-9
#[tokio::test]
async fn a_stopped_server_is_an_error_and_never_a_grant() {
    let mut server = tokio::task::spawn_blocking(testkit::Postgres::start).await.unwrap();
    let url = server.url().to_owned();
    let options = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(2));
    let store = PostgresStore::new(options.connect(&url).await.unwrap()).await.unwrap();
    let done = a_claim(Duration::from_secs(30));
    assert!(matches!(store.claim(&done).await.unwrap(), Answer::Acquired(_)));
    let kept = Duration::from_secs(60);
    assert_eq!(store.complete(&done.holder(), &Recording::new(200), kept).await.unwrap(), Written::Applied);
    server = tokio::task::spawn_blocking(move || {
        server.kill9();
        server
    })
    .await
    .unwrap();
    assert!(store.claim(&a_claim(Duration::ZERO)).await.is_err());
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    assert_eq!(store.claim(&a_claim(Duration::ZERO)).await.unwrap(), Answer::Replay(Recording::new(200)));
}
