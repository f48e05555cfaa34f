//! The memory store keeps the contract; stores that are wrong in one way each do not.
#![cfg(feature = "testing")]

use std::sync::Arc;

use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::testing::{BrokenStore, Fault, Subject, clause};
use probity_idempotency::*;

async fn subject() -> Subject {
    Subject::new(Arc::new(MemoryStore::new()))
}

// proves: I-1
// proves: I-3
// proves: I-5
// proves: I-7
probity_idempotency::store_contract!(subject);

#[tokio::test(start_paused = true)]
async fn fences_rise_on_a_clock_that_stands_still() {
    clause("no_fence_is_given_twice_under_any_clock").check(&subject().await).await.unwrap();
}

#[tokio::test]
async fn every_fault_is_caught_by_the_clause_that_names_it() {
    for (fault, name) in Fault::all() {
        let subject = Subject::new(Arc::new(BrokenStore::new(*fault)));
        let caught = clause(name).check(&subject).await;
        assert!(caught.is_err(), "{fault:?} was not caught by {name}");
    }
}

#[tokio::test]
async fn a_full_store_answers_known_keys_and_refuses_new_ones() {
    let store = MemoryStore::new().capacity(700);
    let claim = |key: &str| Claim {
        record: RecordId::derive(
            &HashKey::default(),
            &Scope::single_tenant(),
            &IdempotencyKey::new(key).expect("a key"),
        ),
        token: OwnerToken::generate().expect("randomness"),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"order"]),
        effects: Effects::Opaque,
        terms: Terms::default(),
    };
    let (done, running) = (claim("done"), claim("running"));
    for claim in [&done, &running] {
        assert!(matches!(store.claim(claim).await, Ok(Answer::Acquired(_))));
    }
    let answer = Recording::payload(vec![b'x'; 100]);
    let written = store.complete(&done.holder(), &answer, done.terms.retention).await;
    assert!(matches!(written, Ok(Written::Applied)));
    let refused = store.claim(&claim("new")).await;
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Full));
    assert!(matches!(store.claim(&claim("done")).await, Ok(Answer::Replay(replayed)) if replayed == answer));
    assert!(matches!(store.claim(&claim("running")).await, Ok(Answer::InFlight { .. })));
}
