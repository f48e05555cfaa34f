//! The history checker: it accepts every store of this crate under the whole contract, and names the fault of each
//! broken one.
#![cfg(feature = "testing")]
#![cfg_attr(
    feature = "testing",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms};
use probity_idempotency::testing::{
    BrokenStore, Call, Fault, FaultyStore, HistoryStore, Side, Subject, clause, clauses,
};
use probity_idempotency::*;

async fn the_whole_contract(store: Arc<dyn IdempotencyManager>) {
    let history = Arc::new(HistoryStore::new(store));
    for clause in clauses() {
        clause.check(&Subject::new(history.clone())).await.unwrap();
    }
    assert!(history.calls() > 1000);
    history.check().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_memory_under_the_contract_is_possible() {
    the_whole_contract(Arc::new(MemoryStore::new())).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_sqlite_under_the_contract_is_possible() {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Normal);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    the_whole_contract(Arc::new(SqliteStore::new(pool).await.unwrap())).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_postgres_under_the_contract_is_possible() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    the_whole_contract(Arc::new(PostgresStore::new(pool).await.unwrap())).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_redis_under_the_contract_is_possible() {
    let server = tokio::task::spawn_blocking(testkit::Redis::shared).await.unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap().prefix(server.key_prefix());
    the_whole_contract(Arc::new(store)).await;
}

// proves: I-1
// proves: I-2
// proves: I-3
#[tokio::test]
async fn every_broken_store_gives_an_impossible_answer() {
    for (fault, name) in Fault::all() {
        let history = Arc::new(HistoryStore::new(Arc::new(BrokenStore::new(*fault))));
        let _ = clause(name).check(&Subject::new(history.clone())).await;
        let caught = history.check();
        assert!(caught.is_err(), "{fault:?} was not caught while {name} ran");
    }
}

fn a_claim(effects: Effects) -> Claim {
    Claim {
        record: RecordId::from_bytes([7; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms::default(),
    }
}

#[tokio::test]
async fn the_message_names_the_callers_and_no_token() {
    let history = HistoryStore::new(Arc::new(BrokenStore::new(Fault::StealsLiveLeases)));
    let (one, other) = (a_claim(Effects::Local), a_claim(Effects::Local));
    assert!(matches!(history.claim(&one).await.unwrap(), Answer::Acquired(_)));
    assert!(matches!(history.claim(&other).await.unwrap(), Answer::Acquired(_)));
    let message = history.check().unwrap_err().to_string();
    assert!(
        message.contains("none of these can come next:\n     3-4    caller 2 claim: Answer(Acquired"),
        "{message}"
    );
}

#[tokio::test]
async fn an_effect_happens_once_and_needs_a_granted_claim() {
    let history = HistoryStore::new(Arc::new(MemoryStore::new()));
    let claim = a_claim(Effects::Opaque);
    history.effect(claim.record);
    assert!(history.check().unwrap_err().to_string().contains("nobody was granted"));

    let history = HistoryStore::new(Arc::new(MemoryStore::new()));
    assert!(matches!(history.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    history.effect(claim.record);
    history.check().unwrap();
    // A handler that gives its key back after it has charged: every answer is possible, and the second charge is not.
    let _ = history.release(&claim.holder()).await.unwrap();
    let again = a_claim(Effects::Opaque);
    assert!(matches!(history.claim(&again).await.unwrap(), Answer::Acquired(_)));
    history.check().unwrap();
    history.effect(claim.record);
    assert!(history.check().unwrap_err().to_string().contains("two effects"));
}

#[tokio::test]
async fn a_lost_reply_may_have_been_applied_or_not() {
    for side in [Side::Before, Side::After] {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let history = HistoryStore::new(faulty.clone());
        let (claim, retry) = (a_claim(Effects::Local), a_claim(Effects::Local));
        for call in [Call::Claim, Call::Complete] {
            faulty.fail(call, side);
        }
        assert!(history.claim(&claim).await.is_err());
        let second = history.claim(&retry).await.unwrap();
        assert_eq!(matches!(second, Answer::Acquired(_)), side == Side::Before);
        let holder = if side == Side::Before { retry.holder() } else { claim.holder() };
        let done = Recording::new(201);
        assert!(history.complete(&holder, &done, Duration::from_secs(60)).await.is_err());
        let third = history.claim(&a_claim(Effects::Local)).await.unwrap();
        assert_eq!(third == Answer::Replay(done), side == Side::After);
        history.check().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_time_and_not_before() {
    let history = HistoryStore::new(Arc::new(MemoryStore::new()));
    for wait in [29, 2] {
        assert!(!matches!(history.claim(&a_claim(Effects::Local)).await.unwrap(), Answer::Replay(_)));
        tokio::time::advance(Duration::from_secs(wait)).await;
    }
    assert!(matches!(history.claim(&a_claim(Effects::Local)).await.unwrap(), Answer::Acquired(_)));
    history.check().unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn effects_of_transactions_are_part_of_the_history() {
    let lost = |error: sqlx::Error| StoreError::unknown(ErrorKind::Unavailable, error);
    let kept = Duration::from_secs(3600);
    for (number, commits) in [(1, true), (2, false)] {
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .connect("sqlite::memory:")
            .await
            .unwrap();
        let store = SqliteStore::new(pool.clone()).await.unwrap();
        let history = HistoryStore::new(Arc::new(store.clone()));
        let claim = Claim {
            record: RecordId::from_bytes([number; 32]),
            token: OwnerToken::generate().unwrap(),
            fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
            effects: Effects::Local,
            terms: Terms::default(),
        };
        let claiming = async {
            let mut tx = pool.begin().await.map_err(lost)?;
            let answer = store.claim_in(&mut *tx, &claim).await?;
            tx.commit().await.map_err(lost)?;
            Ok(answer)
        };
        assert!(matches!(history.claimed_in(&claim, claiming).await.unwrap(), Answer::Acquired(_)));
        let (holder, recording) = (claim.holder(), Recording::new(201).body("paid"));
        let completing = async {
            let mut tx = pool.begin().await.map_err(lost)?;
            store.complete_in(&mut *tx, &holder, &recording, kept).await?;
            if commits { tx.commit().await.map_err(lost) } else { tx.rollback().await.map_err(lost) }
        };
        history.completed_in(&holder, &recording, kept, completing).await.unwrap();
        history.effect(claim.record);
        let retry = Claim { token: OwnerToken::generate().unwrap(), ..claim };
        let answer = history.claim(&retry).await.unwrap();
        assert_eq!(matches!(answer, Answer::Replay(_)), commits);
        // A completion that said it was committed, and was not, is what no order of events explains.
        assert_eq!(history.check().is_ok(), commits);
    }
}
