//! What an operator can count, and that no key and no body is among it.
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
    assert!(seen.iter().any(|name| name.contains("idempotency_stored_bytes")));
    assert!(!seen.iter().any(|name| name.contains("secret")));
}
