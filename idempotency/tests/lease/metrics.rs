//! The metrics that an operator can count, none of which holds a key or a body.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use probity_idempotency::*;

#[derive(Debug, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

struct Named(Arc<Mutex<Vec<String>>>, String);

impl CounterFn for Named {
    fn increment(&self, _: u64) {
        self.0.lock().unwrap().push(self.1.clone());
    }
    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Named {
    fn record(&self, _: f64) {
        self.0.lock().unwrap().push(self.1.clone());
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Named(Arc::clone(&self.0), key.to_string())))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Named(Arc::clone(&self.0), key.to_string())))
    }
}

#[test]
fn outcomes_and_sizes_are_counted_and_names_carry_no_key() {
    let seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&seen, || {
        runtime.block_on(async {
            let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
            let (scope, key) =
                (Scope::new("scope-secret").unwrap(), IdempotencyKey::new("key-secret").unwrap());
            for body in [&b"one"[..], b"one", b"two"] {
                let print = Fingerprint::of(&HashKey::default(), &[body]);
                let work = async |_| Ok::<_, StoreError>("body-secret".to_owned());
                let _ = execute(&manager, &scope, &key, print, &Policy::default(), work).await.unwrap();
            }
        });
    });
    let seen = seen.0.lock().unwrap();
    for outcome in ["acquired", "replay", "mismatch"] {
        let counted =
            seen.iter().filter(|name| name.contains("claims_total") && name.contains(outcome)).count();
        assert_eq!(counted, 1, "{outcome} in {seen:?}");
    }
    assert!(seen.iter().any(|name| name.contains("probity_idempotency_stored_bytes")));
    assert!(!seen.iter().any(|name| name.contains("secret")));
}

/// Knows that nothing happened.
#[cfg(feature = "testing")]
struct Absent;

#[cfg(feature = "testing")]
#[async_trait::async_trait]
impl Recover for Absent {
    async fn recover(&self, _: &RecoverContext) -> Recovered {
        Recovered::Absent
    }
}

#[cfg(feature = "testing")]
#[test]
fn a_store_that_fails_while_a_lost_attempt_is_settled_is_counted() {
    use probity_idempotency::testing::{Call, FaultyStore, Side};

    let seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&seen, || {
        runtime.block_on(async {
            let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
            faulty.fail(Call::Resolve, Side::Before);
            let manager: Arc<dyn IdempotencyManager> = Arc::new(faulty);
            let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
            let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
            let policy = Policy::default().recover(Absent);
            let lost = async |_| Err::<u8, _>("lost");
            let failed = execute(&manager, &scope, &key, print, &policy, lost).await;
            assert!(matches!(failed, Err(ExecuteError::Work("lost"))));
            let never = async |_| -> Result<u8, &str> { panic!("the store cannot say that it is free") };
            let refused = execute(&manager, &scope, &key, print, &policy, never).await;
            assert!(matches!(refused, Err(ExecuteError::NotRun(_))), "{refused:?}");
        });
    });
    let seen = seen.0.lock().unwrap();
    let failures = seen.iter().filter(|name| name.contains("probity_idempotency_store_errors_total")).count();
    assert_eq!(failures, 1, "{seen:#?}");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_completion_in_the_callers_transaction_is_counted_like_any_other() {
    let seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&seen, || runtime.block_on(completions_in_transactions()));
    let seen = seen.0.lock().unwrap();
    let count = |name: &str| seen.iter().filter(|line| line.contains(name)).count();
    assert_eq!(count("probity_idempotency_stored_bytes"), 2, "{seen:#?}");
    assert_eq!(count("probity_idempotency_late_completions_total"), 1, "{seen:#?}");
    // The late one may be counted as lost, by its renewal; the last one must be.
    let last = seen.iter().rposition(|line| line.contains("claim_seconds")).unwrap();
    assert!(
        seen[last..].iter().any(|line| line.contains("probity_idempotency_lost_leases_total")),
        "{seen:#?}"
    );
    // Each asks twice: in the transaction, and whether that was committed.
    assert_eq!(count("probity_idempotency_store_seconds, [call = complete]"), 6, "{seen:#?}");
}

/// One in time, one after its lease, one whose record is gone.
#[cfg(feature = "sqlite")]
async fn completions_in_transactions() {
    let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = options.connect("sqlite::memory:").await.unwrap();
    let manager: Arc<dyn IdempotencyManager> = Arc::new(SqliteStore::new(pool.clone()).await.unwrap());
    let short = std::time::Duration::from_millis(60);
    let print = Fingerprint::of(&HashKey::default(), &[b"order"]);
    for (key, policy) in [
        ("in time", Policy::default()),
        ("late", Policy::default().lease(short).lease_cap(short)),
        ("gone", Policy::default()),
    ] {
        let work = async |lease: Lease| {
            if key == "late" {
                lease.lost().await;
            }
            if key == "gone" {
                let deleted = sqlx::query("DELETE FROM idempotency_records").execute(&pool).await.unwrap();
                assert!(deleted.rows_affected() > 0);
            }
            let mut tx = pool.begin().await.unwrap();
            let written = lease.complete_in(&mut *tx, &Recording::payload("true")).await;
            assert_eq!(written.is_err(), key == "gone");
            tx.commit().await.unwrap();
            Ok::<_, StoreError>(true)
        };
        let name = IdempotencyKey::new(key.replace(' ', "-")).unwrap();
        let ran = execute(&manager, &Scope::single_tenant(), &name, print, &policy, work).await;
        assert_eq!(ran.is_ok(), key != "gone", "{ran:?}");
    }
}
