//! Gauges of the open sagas, and counters of every stop, in paused time.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use probity_saga::testing::start_unattended;
use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, StepContext, StepError,
};
use tokio::time::sleep;

struct Reserve;
/// Looks like `Reserve` and never ends.
struct Hang;
/// Fails as the business id says.
struct Charge;

macro_rules! step {
    ($step:ty, $name:expr, |$cx:ident| $execute:expr) => {
        impl SagaStep for $step {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = $name;
            async fn execute(&self, $cx: &StepContext<u32>) -> Result<u32, StepError> {
                $execute
            }
            async fn compensate(
                &self,
                _: &StepContext<u32>,
                _: Executed<u32>,
            ) -> Result<Evidence, StepError> {
                Ok(Evidence::new("undone"))
            }
        }
    };
}
step!(Reserve, "Reserve", |cx| Ok(*cx.input()));
step!(Hang, Reserve::NAME, |_cx| std::future::pending().await);
step!(Charge, "Charge", |cx| if cx.business_id() == "fatal" {
    Err(StepError::fatal("bug"))
} else {
    Ok(*cx.input())
});

/// Keeps what is counted and shown.
#[derive(Default)]
struct Values(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Values {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key.labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn counter(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |value| value.load(Ordering::SeqCst))
    }

    fn gauge(&self, name: &str) -> Option<f64> {
        Some(f64::from_bits(self.0.lock().unwrap().get(name)?.load(Ordering::SeqCst)))
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn gauges_show_open_and_unrunnable_sagas_and_every_stop_is_counted() {
    testkit::time_limit();
    let values = Values::default();
    let _metrics = metrics::set_default_local_recorder(&values);
    let store = Arc::new(MemoryStore::new());
    let worker = async |version: u32| {
        let saga = Saga::named("payment").version(version).step(Reserve);
        let saga = if version == 1 { saga.step(Charge).build() } else { saga.build() };
        Orchestrator::shared(Arc::clone(&store) as _).register(saga.unwrap()).start().await.unwrap()
    };
    let input = 1_u32;
    let old = worker(1).await;
    assert!(matches!(old.run("payment", "fatal", &input).await.unwrap(), Outcome::Paused { .. }));
    assert_eq!(values.counter("probity_saga_transitions_total payment paused"), 1);
    let lost = start_unattended(&old, "payment", "lost", &input).await.unwrap();
    old.drain().await.unwrap();

    let new = worker(2).await;
    let minute = Duration::from_secs(60);
    sleep(minute).await;
    assert_eq!(values.gauge("probity_saga_open payment in_progress"), Some(1.0));
    assert_eq!(values.gauge("probity_saga_open payment paused"), Some(1.0));
    assert_eq!(values.gauge("probity_saga_unrunnable payment"), Some(1.0));
    assert!(values.gauge("probity_saga_oldest_seconds payment in_progress").unwrap() > 30.0);

    // With its definition the saga goes on.
    let old = worker(1).await;
    assert_eq!(old.wait(&lost).await.unwrap(), Outcome::Completed);
    old.operator("ann").abort("payment", "fatal", "settled").await.unwrap();
    assert_eq!(values.counter("probity_saga_transitions_total payment aborted"), 1);
    sleep(minute).await;
    assert_eq!(values.gauge("probity_saga_open payment in_progress"), Some(0.0));
    assert_eq!(values.gauge("probity_saga_open payment paused"), Some(0.0));
    assert_eq!(values.gauge("probity_saga_unrunnable payment"), Some(0.0));
    drop(new);

    // A saga that kills its workers.
    start_unattended(&old, "payment", "poison", &input).await.unwrap();
    drop(old);
    for _ in 0..6 {
        sleep(minute).await;
        let hangs = Saga::named("payment").version(1).step(Hang).step(Charge).build().unwrap();
        let dies = Orchestrator::shared(Arc::clone(&store) as _).register(hangs).start().await.unwrap();
        sleep(Duration::from_millis(10)).await;
        drop(dies);
    }
    assert_eq!(values.counter("probity_saga_transitions_total payment paused"), 2);
}
