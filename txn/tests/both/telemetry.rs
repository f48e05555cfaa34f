use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use probity_txn::{LockError, on};

use super::Bank;
use super::lock::Account;

/// How often each metric was touched, with its labels: `name{label=pay}`.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<String, u64>>>);

struct Note(Notes, String);

impl Note {
    fn add(&self, number: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += number;
    }
}

impl CounterFn for Note {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _value: u64) {}
}

impl HistogramFn for Note {
    fn record(&self, _value: f64) {
        self.add(1);
    }
}

impl Notes {
    fn note(&self, key: &Key) -> Arc<Note> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Note(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    fn read(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

impl Recorder for Notes {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.note(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.note(key))
    }
}

#[tokio::test]
async fn each_label_has_its_metrics() {
    let bank = Bank::open(1).await;
    let notes = Notes::default();
    let _recorded = metrics::set_default_local_recorder(&notes);
    on(&bank.pool, "pay")
        .run(async |tx| {
            tx.lock_one::<Account>("a").await?;
            tx.lock_many::<Account>(["a", "b"]).await?;
            Ok::<_, LockError>(())
        })
        .await
        .unwrap();
    let refused = on(&bank.pool, "refuse").run(async |_tx| Err::<(), _>(sqlx::Error::RowNotFound)).await;
    assert!(refused.is_err());

    for (name, times) in [
        ("probity_txn_attempts_total{label=pay}", 1),
        ("probity_txn_runs_total{label=pay,outcome=committed}", 1),
        ("probity_txn_runs_total{label=refuse,outcome=app}", 1),
        ("probity_txn_run_seconds{label=pay}", 1),
        ("probity_txn_lock_wait_seconds{label=pay}", 2),
        ("probity_txn_between_statements_seconds{label=pay}", 1),
    ] {
        assert_eq!(notes.read(name), times, "{name}: {:?}", notes.0.lock().unwrap());
    }
}
