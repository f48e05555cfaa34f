//! SQLite: the guarantees that only a store inside the business database can give.
#![cfg(feature = "sqlite")]
#![cfg_attr(
    feature = "sqlite",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::lease::{LeaseGuard, claim};
use probity_idempotency::store::{
    Answer, Claim, Fence, Holder, OwnerToken, RecordId, Resolution, State, Terms, Written,
};
use probity_idempotency::*;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Row, SqlitePool};

struct Database {
    pool: SqlitePool,
    _folder: tempfile::TempDir,
}

async fn database() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE payments (amount INTEGER NOT NULL)").execute(&pool).await.unwrap();
    Database { pool, _folder: folder }
}

async fn payments(pool: &SqlitePool) -> i64 {
    sqlx::query("SELECT count(*) FROM payments").fetch_one(pool).await.unwrap().get(0)
}

fn a_claim(effects: Effects, lease: Duration) -> Claim {
    Claim {
        record: RecordId::from_bytes([7; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease, ..Terms::default() },
    }
}

/// The arguments of [`execute`] for a job whose effects are all in the database.
struct Job {
    manager: Arc<dyn IdempotencyManager>,
    scope: Scope,
    key: IdempotencyKey,
    print: Fingerprint,
    policy: Policy,
}

async fn a_job(key: &str, database: &Database) -> Job {
    Job {
        manager: Arc::new(SqliteStore::new(database.pool.clone()).await.unwrap()),
        scope: Scope::new("jobs").unwrap(),
        key: IdempotencyKey::new(key).unwrap(),
        print: Fingerprint::of(&HashKey::default(), &[b"payout"]),
        policy: Policy::default().effects(Effects::Local),
    }
}

fn granted(answer: Answer<LeaseGuard>) -> LeaseGuard {
    match answer {
        Answer::Acquired(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

async fn pay(pool: &SqlitePool, lease: &Lease, commit: bool) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO payments (amount) VALUES (100)").execute(&mut *tx).await.unwrap();
    lease.complete_in(&mut *tx, &Recording::new(201).body("paid")).await?;
    if commit {
        tx.commit().await.unwrap();
    } else {
        tx.rollback().await.unwrap();
    }
    Ok(())
}

// proves: I-4
#[tokio::test]
async fn the_answer_commits_with_the_payment_and_rolls_back_with_it() {
    let database = database().await;
    let manager: Arc<dyn IdempotencyManager> =
        Arc::new(SqliteStore::new(database.pool.clone()).await.unwrap());
    let first = a_claim(Effects::Local, Duration::from_secs(30));
    let guard = granted(claim(&manager, &first).await.unwrap());
    pay(&database.pool, &guard.lease(), false).await.unwrap();
    assert_eq!(manager.get(first.record).await.unwrap().unwrap().state, State::InFlight);
    assert_eq!(payments(&database.pool).await, 0);
    pay(&database.pool, &guard.lease(), true).await.unwrap();
    assert_eq!(payments(&database.pool).await, 1);
    let retry = a_claim(Effects::Local, Duration::from_secs(30));
    assert_eq!(manager.claim(&retry).await.unwrap(), Answer::Replay(Recording::new(201).body("paid")));
}

// proves: I-4
#[tokio::test]
async fn a_zombie_can_commit_neither_its_answer_nor_its_payment() {
    let database = database().await;
    let manager: Arc<dyn IdempotencyManager> =
        Arc::new(SqliteStore::new(database.pool.clone()).await.unwrap());
    let zombie = granted(claim(&manager, &a_claim(Effects::Local, Duration::ZERO)).await.unwrap());
    let heir = granted(claim(&manager, &a_claim(Effects::Local, Duration::from_secs(30))).await.unwrap());
    assert_eq!((heir.lease().attempt(), heir.lease().fence() > zombie.lease().fence()), (2, true));
    let lost = pay(&database.pool, &zombie.lease(), true).await.unwrap_err();
    assert_eq!((lost.kind(), lost.effect()), (ErrorKind::LeaseLost, Effect::NotApplied));
    assert_eq!(payments(&database.pool).await, 0);
    pay(&database.pool, &heir.lease(), true).await.unwrap();
    assert_eq!(payments(&database.pool).await, 1);
}

#[tokio::test]
async fn many_starts_at_once_create_one_table() {
    let database = database().await;
    let starts: Vec<_> = (0..8).map(|_| tokio::spawn(SqliteStore::new(database.pool.clone()))).collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    let versions: i64 = sqlx::query("SELECT count(*) FROM idempotency_schema")
        .fetch_one(&database.pool)
        .await
        .unwrap()
        .get(0);
    assert_eq!(versions, 2, "one for each step");
}

/// The tables as the first version of this crate made them, with a record of its.
#[tokio::test]
async fn tables_of_version_1_are_upgraded_and_their_fences_go_on() {
    let database = database().await;
    sqlx::raw_sql(include_str!("../../sql/sqlite/0001_records.sql")).execute(&database.pool).await.unwrap();
    let old = "INSERT INTO idempotency_records (id, token, fingerprint, effects, state, fence, attempt, created_at, \
               lease_until, cap_until, expires_at) VALUES ($1, $2, $3, 'local', 'in_flight', $4, 1, 1, 1, 1, 1)";
    let (first, far) = (a_claim(Effects::Local, Duration::ZERO), i64::MAX / 2);
    let written = async |record: RecordId, fence: i64| {
        let query =
            sqlx::query(old).bind(record.as_bytes().as_slice()).bind(first.token.as_bytes().as_slice());
        let query = query.bind(first.fingerprint.as_bytes().as_slice()).bind(fence);
        query.execute(&database.pool).await.unwrap();
    };
    written(first.record, far).await;
    let store = SqliteStore::new(database.pool.clone()).await.unwrap();
    // A program of version 1 that still runs beside the new ones.
    written(RecordId::from_bytes([9; 32]), 1).await;
    assert_eq!(store.purge(10).await.unwrap(), 2);
    let Answer::Acquired(grant) = store.claim(&first).await.unwrap() else { panic!("not granted") };
    assert_eq!((grant.fence, grant.attempt), (Fence(far.unsigned_abs() + 1), 1));
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused_at_start() {
    let database = database().await;
    let _ = SqliteStore::new(database.pool.clone()).await.unwrap();
    sqlx::query("INSERT INTO idempotency_schema VALUES (99)").execute(&database.pool).await.unwrap();
    assert_eq!(SqliteStore::new(database.pool.clone()).await.unwrap_err().kind(), ErrorKind::Rejected);
}

// proves: I-9
#[tokio::test]
async fn a_dropped_table_is_an_error_and_never_a_grant() {
    let database = database().await;
    let store = SqliteStore::new(database.pool.clone()).await.unwrap();
    sqlx::query("DROP TABLE idempotency_records").execute(&database.pool).await.unwrap();
    let error = store.claim(&a_claim(Effects::Local, Duration::from_secs(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
}

// proves: I-5
// proves: I-9
#[tokio::test]
async fn a_claim_or_a_renewal_whose_commit_fails_is_an_error_and_never_a_grant() {
    let folder = tempfile::tempdir().unwrap();
    // In this mode a commit waits for readers, and here not at all.
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Delete)
        .busy_timeout(Duration::ZERO);
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    let claim = a_claim(Effects::Opaque, Duration::from_secs(30));
    let holder = Holder { record: claim.record, token: claim.token };
    let read = async || {
        let mut reader = pool.begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM idempotency_records").fetch_one(&mut *reader).await.unwrap();
        reader
    };

    let reader = read().await;
    let error = store.claim(&claim).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    reader.rollback().await.unwrap();
    assert!(store.get(claim.record).await.unwrap().is_none());

    assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    let reader = read().await;
    let error = store.renew(&holder, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    // A claim on a connection without a transaction, although the caller believes in one.
    let other = Claim { record: RecordId::from_bytes([8; 32]), ..claim };
    let error = store.claim_in(&pool, &other).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    reader.rollback().await.unwrap();
    assert!(store.get(other.record).await.unwrap().is_none());
}

#[tokio::test]
async fn the_query_of_the_operating_chapter_finds_indeterminate_records() {
    let database = database().await;
    let store = SqliteStore::new(database.pool.clone()).await.unwrap();
    let chapter = include_str!("../../docs/operating.md");
    let query = chapter.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    let waiting = async |pool: &SqlitePool| sqlx::query(query).fetch_all(pool).await.unwrap().len();
    let lost = a_claim(Effects::Opaque, Duration::ZERO);
    assert!(matches!(store.claim(&lost).await.unwrap(), Answer::Acquired(_)));
    assert_eq!(waiting(&database.pool).await, 1);
    let resolution = Resolution::Done(Recording::new(201));
    let fence = store.get(lost.record).await.unwrap().unwrap().fence;
    let written = store.resolve(lost.record, fence, &resolution, Duration::from_secs(60)).await.unwrap();
    assert_eq!((written, waiting(&database.pool).await), (Written::Applied, 0));
}

// proves: I-5
#[tokio::test]
async fn a_result_returned_after_its_transaction_rolled_back_is_still_recorded() {
    let database = database().await;
    let Job { manager, scope, key, print, policy } = a_job("payout-1", &database).await;
    let pool = database.pool.clone();
    let work = async |lease: Lease| {
        pay(&pool, &lease, false).await.unwrap();
        Ok::<_, std::io::Error>("declined".to_owned())
    };
    let first = execute(&manager, &scope, &key, print, &policy, work).await.unwrap();
    assert_eq!(first, Execution::Fresh("declined".to_owned()));
    let never = async |_lease: Lease| -> Result<String, std::io::Error> { panic!("ran twice") };
    let again = execute(&manager, &scope, &key, print, &policy, never).await.unwrap();
    assert_eq!(again, Execution::Replayed("declined".to_owned()));
    assert_eq!(payments(&database.pool).await, 0);
}

// proves: I-2
#[tokio::test]
async fn a_result_that_is_not_the_recorded_one_is_refused() {
    let database = database().await;
    for (key, recorded, is_refused) in
        [("differs", "1", true), ("is-no-json", "one", true), ("spaced", " 2 ", false)]
    {
        let Job { manager, scope, key, print, policy } = a_job(key, &database).await;
        let work = async |lease: Lease| {
            let mut tx = database.pool.begin().await.unwrap();
            lease.complete_in(&mut *tx, &Recording::payload(recorded)).await?;
            tx.commit().await.unwrap();
            Ok::<_, StoreError>(2)
        };
        let first = execute(&manager, &scope, &key, print, &policy, work).await;
        match first {
            Err(error) if is_refused => {
                assert_eq!(error.effect(), Effect::Unknown, "{error}");
                assert!(
                    matches!(error, ExecuteError::ResultDiffers { recording } if recording.bytes() == recorded)
                );
            }
            first => assert_eq!(first.unwrap(), Execution::Fresh(2)),
        }
    }
}

// proves: I-4
#[tokio::test]
async fn a_typed_completion_gives_back_the_result_that_is_replayed() {
    let database = database().await;
    let Job { manager, scope, key, print, policy } = a_job("payout-1", &database).await;
    for expected in [Execution::Fresh(vec![1, 2]), Execution::Replayed(vec![1, 2])] {
        let work = async |lease: Lease| {
            let mut tx = database.pool.begin().await.unwrap();
            let result = lease.complete_result_in(&mut *tx, vec![1, 2]).await?;
            tx.commit().await.unwrap();
            Ok::<_, StoreError>(result)
        };
        assert_eq!(execute(&manager, &scope, &key, print, &policy, work).await.unwrap(), expected);
    }
}
