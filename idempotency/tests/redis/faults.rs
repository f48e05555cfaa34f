//! Redis: servers that forget, refuse, hang and restart, and what each costs.
#![cfg(feature = "redis")]
#![cfg_attr(
    feature = "redis",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, Holder, OwnerToken, RecordId, Renewed, Terms, Written};
use probity_idempotency::*;
use redis::aio::ConnectionManager;
use testkit::Redis;

/// Longer than a server is away, on the slowest machine.
const KEPT: Duration = Duration::from_secs(3600);
/// A server is back sooner, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Subject {
    server: Redis,
    store: RedisStore,
    other: ConnectionManager,
}

async fn subject() -> Subject {
    let server = tokio::task::spawn_blocking(Redis::start).await.unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap().prefix("idempotency:");
    let client = redis::Client::open(server.url()).unwrap();
    let other = ConnectionManager::new(client).await.unwrap();
    Subject { server, store, other }
}

impl Subject {
    async fn tell(&mut self, command: &[&str]) {
        let mut built = redis::cmd(command[0]);
        built.arg(&command[1..]);
        let _: redis::Value = built.query_async(&mut self.other).await.unwrap();
    }

    /// Breaks the server on a thread that may block.
    async fn with_server(mut self, act: impl FnOnce(&mut Redis) + Send + 'static) -> Self {
        self.server = tokio::task::spawn_blocking(move || {
            act(&mut self.server);
            self.server
        })
        .await
        .unwrap();
        self
    }
}

fn a_claim(effects: Effects) -> Claim {
    let mut record = [0; 32];
    record[..16].copy_from_slice(OwnerToken::generate().unwrap().as_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease: KEPT, lease_cap: KEPT, ..Terms::default() },
    }
}

fn retried(claim: &Claim) -> Claim {
    Claim { token: OwnerToken::generate().unwrap(), ..*claim }
}

fn key(claim: &Claim) -> String {
    format!("idempotency:{}", claim.record.to_hex())
}

/// Every write of a holder, and what the store said.
async fn writes(store: &RedisStore, holder: &Holder) -> Vec<StoreError> {
    vec![
        store.renew(holder, KEPT).await.unwrap_err(),
        store.mark_effect(holder).await.unwrap_err(),
        store.complete(holder, &Recording::new(200), KEPT).await.unwrap_err(),
        store.release(holder).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_finished_record_costs_less_than_a_kibibyte_beside_its_body() {
    let mut subject = subject().await;
    for size in [0, 40, 4096, 262_144] {
        let claim = a_claim(Effects::Opaque);
        assert!(matches!(subject.store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        let recording = Recording::new(201).header("content-type", "application/json").body(vec![b'x'; size]);
        let written = subject.store.complete(&claim.holder(), &recording, KEPT).await.unwrap();
        assert_eq!(written, Written::Applied);
        let used: usize = redis::cmd("MEMORY")
            .arg(&["USAGE", &key(&claim), "SAMPLES", "0"])
            .query_async(&mut subject.other)
            .await
            .unwrap();
        // The allocator rounds a large body up to its next size, by at most a quarter.
        let body = if size > 40 { size + size / 4 } else { size };
        assert!(used <= body + 1024, "{used} bytes for a body of {size}");
    }
}

// proves: I-7
#[tokio::test]
async fn a_claim_that_times_out_is_unknown_and_can_be_repeated() {
    let subject = subject().await.with_server(Redis::pause).await;
    let claim = a_claim(Effects::Opaque);
    let error = subject.store.claim(&claim).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    let subject = subject.with_server(Redis::resume).await;
    assert!(matches!(
        subject.store.claim(&claim).await.unwrap(),
        Answer::Acquired(grant) if grant.attempt == 1
    ));
}

#[tokio::test]
async fn flushed_records_are_reported_as_missing() {
    let mut subject = subject().await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(subject.store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    subject.tell(&["FLUSHALL"]).await;
    let (store, holder) = (&subject.store, claim.holder());
    assert_eq!(store.renew(&holder, KEPT).await.unwrap(), Renewed::Missing);
    // The effect must not start: its mark would protect nothing.
    assert_eq!(store.mark_effect(&holder).await.unwrap(), Written::Missing);
    assert_eq!(store.complete(&holder, &Recording::new(200), KEPT).await.unwrap(), Written::Missing);
    assert_eq!(store.release(&holder).await.unwrap(), Written::Missing);
    assert_eq!(store.get(claim.record).await.unwrap(), None);
}

// proves: I-9
#[tokio::test]
async fn a_foreign_value_at_the_key_refuses_every_call_and_is_left_alone() {
    let mut subject = subject().await;
    for (command, kind) in [("SET", ErrorKind::Corrupt), ("RPUSH", ErrorKind::Rejected)] {
        let claim = a_claim(Effects::Opaque);
        subject.tell(&[command, &key(&claim), "somebody else's"]).await;
        let dump = ["DUMP", &key(&claim)];
        let before: Vec<u8> = redis::cmd(dump[0]).arg(dump[1]).query_async(&mut subject.other).await.unwrap();
        let mut errors = writes(&subject.store, &claim.holder()).await;
        errors.push(subject.store.claim(&claim).await.unwrap_err());
        errors.push(subject.store.get(claim.record).await.unwrap_err());
        for error in errors {
            assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied));
        }
        let kept: Vec<u8> = redis::cmd(dump[0]).arg(dump[1]).query_async(&mut subject.other).await.unwrap();
        assert_eq!(kept, before);
    }
}

// proves: I-9
#[tokio::test]
async fn a_full_server_refuses_completions_and_the_record_stays_in_flight_until_there_is_room() {
    let mut subject = subject().await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(subject.store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    subject.tell(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for error in writes(&subject.store, &claim.holder()).await {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::NotApplied));
    }
    assert!(matches!(subject.store.claim(&retried(&claim)).await.unwrap(), Answer::InFlight { .. }));
    subject.tell(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let written = subject.store.complete(&claim.holder(), &Recording::new(200), KEPT).await.unwrap();
    assert_eq!(written, Written::Applied);
}

// proves: I-9
#[tokio::test]
async fn a_replica_refuses_completions_until_it_is_master_again() {
    let mut subject = subject().await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(subject.store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    subject.tell(&["REPLICAOF", "127.0.0.1", "1"]).await;
    for error in writes(&subject.store, &claim.holder()).await {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    }
    subject.tell(&["REPLICAOF", "NO", "ONE"]).await;
    let written = subject.store.complete(&claim.holder(), &Recording::new(200), KEPT).await.unwrap();
    assert_eq!(written, Written::Applied);
}

// proves: I-1
#[tokio::test]
async fn a_restart_with_an_append_only_file_forgets_no_claim_and_the_same_store_goes_on() {
    let subject = subject().await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(subject.store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    let subject = subject
        .with_server(|server| {
            server.kill9();
            server.restart();
        })
        .await;
    let duplicate = retried(&claim);
    let again = async {
        loop {
            // The first call after the restart may find the old connection broken.
            if let Ok(answer) = subject.store.claim(&duplicate).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert!(matches!(answer, Answer::InFlight { .. }));
    let written = subject.store.complete(&claim.holder(), &Recording::new(200), KEPT).await.unwrap();
    assert_eq!(written, Written::Applied);
}
