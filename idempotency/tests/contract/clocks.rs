//! Clocks that jump by an hour. A worker's clock only decides when that worker gives up by itself. When the store's own
//! clock jumps, leases end sooner or later, and still no caller runs an effect that may have happened.
#![cfg(all(feature = "postgres", feature = "sqlite", feature = "redis"))]
#![cfg_attr(
    all(feature = "postgres", feature = "sqlite", feature = "redis"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Renewed, Terms, Written};
use probity_idempotency::*;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

/// In microseconds.
const AN_HOUR: i64 = 3_600_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const KEPT: Duration = Duration::from_secs(24 * 3600);

type Manager = Arc<dyn IdempotencyManager>;

fn a_claim(effects: Effects) -> Claim {
    let mut record = [0; 32];
    record[..16].copy_from_slice(OwnerToken::generate().unwrap().as_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease: HOUR / 2, lease_cap: HOUR, retention: KEPT },
    }
}

fn retried(claim: &Claim) -> Claim {
    Claim { token: OwnerToken::generate().unwrap(), ..*claim }
}

/// The worker's clock jumps; the store's does not.
async fn the_workers_hour_is_not_the_stores(manager: &Manager) {
    for effects in [Effects::Local, Effects::Opaque] {
        let first = a_claim(effects);
        assert!(matches!(manager.claim(&first).await.unwrap(), Answer::Acquired(_)));
        tokio::time::pause();
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
        assert!(matches!(manager.claim(&retried(&first)).await.unwrap(), Answer::InFlight { .. }));
        let completed = manager.complete(&first.holder(), &Recording::new(201), KEPT).await.unwrap();
        assert_eq!(completed, Written::Applied);
        tokio::time::pause();
        tokio::time::advance(KEPT + HOUR).await;
        tokio::time::resume();
        assert_eq!(manager.claim(&retried(&first)).await.unwrap(), Answer::Replay(Recording::new(201)));
    }
}

/// The store's clock jumps past the lease: `jump` makes that true of a record, by so many microseconds.
async fn a_jump_of_the_store_lets_nobody_run_what_another_may_have_done(
    manager: &Manager,
    jump: impl AsyncFn(RecordId, i64),
) {
    let opaque = a_claim(Effects::Opaque);
    assert!(matches!(manager.claim(&opaque).await.unwrap(), Answer::Acquired(_)));
    jump(opaque.record, AN_HOUR).await;
    assert!(matches!(manager.claim(&retried(&opaque)).await.unwrap(), Answer::Indeterminate(_)));
    let late = manager.complete(&opaque.holder(), &Recording::new(201), KEPT).await.unwrap();
    assert_eq!(late, Written::Applied);

    let local = a_claim(Effects::Local);
    assert!(matches!(manager.claim(&local).await.unwrap(), Answer::Acquired(_)));
    jump(local.record, AN_HOUR).await;
    let heir = retried(&local);
    assert!(matches!(manager.claim(&heir).await.unwrap(), Answer::Acquired(grant) if grant.attempt == 2));
    let zombie = manager.complete(&local.holder(), &Recording::new(500), KEPT).await.unwrap();
    assert!(matches!(zombie, Written::LostTo(_)));
    let completed = manager.complete(&heir.holder(), &Recording::new(201), KEPT).await.unwrap();
    assert_eq!(completed, Written::Applied);
}

/// The store's clock jumps back: leases last longer, no attempt is taken over or run again, and fences still rise.
async fn a_jump_back_lets_nobody_run_what_is_running_or_done(
    manager: &Manager,
    jump: impl AsyncFn(RecordId, i64),
) {
    for effects in [Effects::Local, Effects::Opaque] {
        let first = a_claim(effects);
        assert!(matches!(manager.claim(&first).await.unwrap(), Answer::Acquired(_)));
        jump(first.record, -AN_HOUR).await;
        assert!(matches!(manager.claim(&retried(&first)).await.unwrap(), Answer::InFlight { .. }));
        // Less than the jump: the lease now ends before the claim was sent, by what the record says of that.
        assert!(matches!(manager.renew(&first.holder(), HOUR / 4).await.unwrap(), Renewed::Held(_)));
        assert!(matches!(manager.claim(&retried(&first)).await.unwrap(), Answer::InFlight { .. }));
        let completed = manager.complete(&first.holder(), &Recording::new(201), KEPT).await.unwrap();
        assert_eq!(completed, Written::Applied);
        assert_eq!(manager.claim(&retried(&first)).await.unwrap(), Answer::Replay(Recording::new(201)));
    }
    let given_back = a_claim(Effects::Local);
    let Answer::Acquired(before) = manager.claim(&given_back).await.unwrap() else { panic!("it was free") };
    assert_eq!(manager.release(&given_back.holder()).await.unwrap(), Written::Applied);
    assert_eq!(manager.get(given_back.record).await.unwrap().unwrap().fence, before.fence);
    jump(given_back.record, -AN_HOUR).await;
    let shifted = manager.get(given_back.record).await.unwrap().unwrap().fence;
    assert!(
        shifted > before.fence,
        "the fence was given by a clock that was an hour ahead: {before:?} {shifted:?}"
    );
    let Answer::Acquired(after) = manager.claim(&retried(&given_back)).await.unwrap() else {
        panic!("it was given back")
    };
    assert!(after.fence > shifted, "{before:?} {shifted:?} {after:?}");
}

// proves: I-1
// proves: I-5
#[tokio::test]
async fn memory_counts_by_its_own_clock() {
    let manager: Manager = Arc::new(MemoryStore::new());
    a_jump_of_the_store_lets_nobody_run_what_another_may_have_done(&manager, async |_, _| {
        tokio::time::pause();
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
    })
    .await;
}

/// Moves a record as a jump of the clock by so many microseconds does: as if it had been written that much earlier.
const EARLIER: &str = "UPDATE idempotency_records SET created_at = created_at - $2, fence = fence - $2, \
    lease_until = lease_until - $2, cap_until = cap_until - $2, expires_at = expires_at - $2 WHERE id = $1";

// proves: I-1
// proves: I-5
#[tokio::test]
async fn sqlite_counts_by_its_own_clock() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("test.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let manager: Manager = Arc::new(SqliteStore::new(pool.clone()).await.unwrap());
    let jump = async |record: RecordId, by: i64| {
        let id = record.as_bytes().to_vec();
        sqlx::query(EARLIER).bind(id).bind(by).execute(&pool).await.unwrap();
    };
    the_workers_hour_is_not_the_stores(&manager).await;
    a_jump_of_the_store_lets_nobody_run_what_another_may_have_done(&manager, &jump).await;
    a_jump_back_lets_nobody_run_what_is_running_or_done(&manager, &jump).await;
}

// proves: I-1
// proves: I-5
#[tokio::test]
async fn postgres_counts_by_its_own_clock() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let jump = async |record: RecordId, by: i64| {
        let id = record.as_bytes().to_vec();
        sqlx::query(EARLIER).bind(id).bind(by).execute(&pool).await.unwrap();
    };
    for manager in [Arc::new(store.clone()) as Manager, Arc::new(store.direct())] {
        the_workers_hour_is_not_the_stores(&manager).await;
        a_jump_of_the_store_lets_nobody_run_what_another_may_have_done(&manager, &jump).await;
        a_jump_back_lets_nobody_run_what_is_running_or_done(&manager, &jump).await;
    }
}

// proves: I-1
// proves: I-5
#[tokio::test]
async fn redis_counts_by_its_own_clock() {
    let server = tokio::task::spawn_blocking(testkit::Redis::shared).await.unwrap();
    let prefix = server.key_prefix();
    let store = RedisStore::connect(server.url()).await.unwrap().prefix(prefix.clone());
    let manager: Manager = Arc::new(store);
    let client = redis::Client::open(server.url()).unwrap();
    let other = client.get_multiplexed_async_connection().await.unwrap();
    // Everything that was read from the server's clock, as if it had been written that much earlier: the end of the key;
    // and in the record, unless they are zeros, the end it had when it was claimed, and the fence.
    let jump = async |record: RecordId, by: i64| {
        let (mut other, key) = (other.clone(), format!("{prefix}{}", record.to_hex()));
        let end: i64 = redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut other).await.unwrap();
        let end = end - by / 1000;
        let _: bool = redis::cmd("PEXPIREAT").arg(&key).arg(end).query_async(&mut other).await.unwrap();
        for (place, digits, by) in [(80, 14, by / 1000), (63, 17, by)] {
            let mut read = redis::cmd("GETRANGE");
            let read = read.arg(&key).arg(place).arg(place + digits - 1);
            let number: i64 = read.query_async(&mut other).await.unwrap();
            if number != 0 {
                let earlier = format!("{:0digits$}", number - by);
                let mut write = redis::cmd("SETRANGE");
                let () = write.arg(&key).arg(place).arg(earlier).query_async(&mut other).await.unwrap();
            }
        }
    };
    the_workers_hour_is_not_the_stores(&manager).await;
    a_jump_of_the_store_lets_nobody_run_what_another_may_have_done(&manager, &jump).await;
    a_jump_back_lets_nobody_run_what_is_running_or_done(&manager, &jump).await;
}
