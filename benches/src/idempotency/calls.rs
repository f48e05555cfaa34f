//! The calls of a store that an execution cannot do without.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use probity_idempotency::{
    Effects, Fingerprint, HashKey, IdempotencyManager, Recording,
    store::{Answer, Claim, OwnerToken, RecordId, Terms, Written},
};

pub(super) const RETENTION: Duration = Duration::from_secs(3600);
pub(super) const BODY: &str = "a receipt of some forty bytes, as is usual";

pub(super) type Manager = Arc<dyn IdempotencyManager>;

/// A claim on a record that was not used before.
#[expect(clippy::expect_used, reason = "a bench without randomness has nothing to measure")]
pub(super) fn fresh() -> Claim {
    let token = OwnerToken::generate().expect("randomness");
    let mut record = [0; 32];
    record[..16].copy_from_slice(token.as_bytes());
    record[16..].copy_from_slice(token.as_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token,
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"bench"]),
        effects: Effects::Opaque,
        terms: Terms { retention: RETENTION, ..Terms::default() },
    }
}

/// The recorded answer: a status, a header, and a body of usual size.
pub(super) fn recording() -> Recording {
    Recording::new(201).header("content-type", "application/json").body(BODY)
}

/// Claims a new key and completes it.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) fn first_run(manager: &Manager) -> impl Future<Output = ()> + Send + use<> {
    let manager = Arc::clone(manager);
    async move {
        let claim = fresh();
        let answer = manager.claim(&claim).await.expect("an answer");
        assert!(matches!(answer, Answer::Acquired(_)), "a new key is free");
        let written = manager.complete(&claim.holder(), &recording(), RETENTION).await.expect("an answer");
        assert_eq!(written, Written::Applied);
    }
}

/// Asks for a key that is completed.
#[expect(clippy::expect_used, reason = "as above")]
pub(super) fn replay(manager: &Manager, claim: Claim) -> impl Future<Output = ()> + Send + use<> {
    let manager = Arc::clone(manager);
    async move {
        let answer = manager.claim(&claim).await.expect("an answer");
        assert!(matches!(answer, Answer::Replay(_)), "it is completed");
    }
}

/// Completes a key, to replay it.
#[expect(clippy::expect_used, reason = "as above")]
pub(super) async fn completed(manager: &Manager) -> Claim {
    let claim = fresh();
    let answer = manager.claim(&claim).await.expect("an answer");
    assert!(matches!(answer, Answer::Acquired(_)), "a new key is free");
    let _ = manager.complete(&claim.holder(), &recording(), RETENTION).await.expect("an answer");
    claim
}
