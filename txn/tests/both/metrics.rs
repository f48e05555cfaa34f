use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use probity_txn::{Policy, lock::LockError, on};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use super::Bank;
use super::lock::Account;

/// The number of times that each metric was touched, with its labels: `name{label=pay}`; and its last value.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<String, u64>>>, Arc<Mutex<BTreeMap<String, f64>>>, Described);

/// The unit of each metric that was described.
type Described = Arc<Mutex<BTreeMap<String, Option<Unit>>>>;

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
    fn record(&self, value: f64) {
        self.add(1);
        self.0.1.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl Notes {
    fn note(&self, key: &Key) -> Arc<Note> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Note(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }

    pub(crate) fn read(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    pub(crate) fn last(&self, name: &str) -> f64 {
        self.1.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

/// The traces of this crate on the thread that listens, a line each.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

thread_local! {
    /// The journal of the test that this thread runs.
    static LISTENING: RefCell<Option<Journal>> = const { RefCell::new(None) };
}

/// Subscribes for the whole process, and gives what it hears to the journal of the thread.
///
/// A subscriber per thread would miss events: what another thread without a subscriber traces first is switched off for
/// all threads while there is one subscriber only.
struct EachToItsOwn;

/// Subscribes before anything is traced. Each test comes by here, by the bank it opens or by the journal.
pub(crate) fn subscribe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(EachToItsOwn).unwrap());
}

/// Ends what [`Journal::listen`] began.
pub(crate) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.take();
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl Journal {
    /// Listens to this thread until the guard is dropped.
    pub(crate) fn listen() -> (Self, Listening) {
        subscribe();
        let journal = Self::default();
        LISTENING.set(Some(journal.clone()));
        (journal, Listening)
    }

    fn write(what: &str, metadata: &tracing::Metadata<'_>, record: impl FnOnce(&mut Line)) {
        let Some(journal) = LISTENING.with_borrow(Clone::clone) else { return };
        let mut line = Line(format!("{what} {} {}", metadata.level(), metadata.name()));
        record(&mut line);
        journal.0.lock().unwrap().push(line.0);
    }

    pub(crate) fn has(&self, parts: &[&str]) -> bool {
        self.0.lock().unwrap().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }
}

impl Subscriber for EachToItsOwn {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("probity_txn")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Journal::write("span", span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        Journal::write("event", event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn time_between_the_statements_is_measured_and_warned_of_with_the_label() {
    let bank = Bank::open(1).await;
    let notes = Notes::default();
    let _recorded = metrics::set_default_local_recorder(&notes);
    let (journal, _listening) = Journal::listen();
    let warning = "move external calls out of the transaction";
    let run = async |label: &'static str, policy: Policy| {
        let run = on(&bank.pool, label).policy(policy).run(async |tx| {
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            // Stands for the call of another service, longer than the 50 ms of the default.
            tokio::time::sleep(Duration::from_millis(60)).await;
            Ok::<_, sqlx::Error>(())
        });
        run.await.unwrap();
    };
    run("slow", Policy::payments()).await;
    assert!(journal.has(&["event WARN", "label=\"slow\"", warning]), "{:?}", journal.0.lock().unwrap());
    assert!(notes.last("probity_txn_between_statements_seconds{label=slow}") >= 0.06);

    run("patient", Policy { between_statements_warn: Duration::MAX, ..Policy::payments() }).await;
    assert!(!journal.has(&["label=\"patient\"", warning]), "{:?}", journal.0.lock().unwrap());
    for label in ["slow", "patient"] {
        let span = ["span DEBUG txn", &format!("label=\"{label}\""), "database="];
        assert!(journal.has(&span), "{:?}", journal.0.lock().unwrap());
    }
}

impl Recorder for Notes {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.2.lock().unwrap().insert(name.as_str().to_owned(), unit);
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.2.lock().unwrap().insert(name.as_str().to_owned(), unit);
    }

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
async fn each_label_has_its_metrics_and_each_of_them_has_a_unit() {
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

    probity_txn::describe_metrics();
    let described = notes.2.lock().unwrap().clone();
    for recorded in notes.0.lock().unwrap().keys() {
        let name = recorded.split('{').next().unwrap();
        let unit = if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
        assert_eq!(described.get(name), Some(&Some(unit)), "{name}");
    }
}
