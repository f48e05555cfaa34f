//! The memory store keeps the contract; stores that are wrong in one way each do not.
#![cfg(feature = "testing")]

use std::sync::Arc;

use probity_idempotency::MemoryStore;
use probity_idempotency::testing::{BrokenStore, Flaw, Subject, rule};

async fn subject() -> Subject {
    Subject::new(Arc::new(MemoryStore::new()))
}

// proves: I-1
// proves: I-3
// proves: I-5
// proves: I-7
probity_idempotency::store_contract!(subject);

#[tokio::test]
async fn every_flaw_is_caught_by_the_rule_that_names_it() {
    for (flaw, name) in Flaw::all() {
        let subject = Subject::new(Arc::new(BrokenStore::new(*flaw)));
        let caught = rule(name).check(&subject).await;
        assert!(caught.is_err(), "{flaw:?} was not caught by {name}");
    }
}
