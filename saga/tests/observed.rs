//! Logs and metrics show sagas, steps and outcomes, never a payload, and no label that grows with traffic.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use probity_saga::{
    Backoff, Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, StepContext, StepError,
    StepPolicy,
};
use tracing_subscriber::fmt::format::FmtSpan;

const CARD: &str = "4111111111111111";

struct Store;
impl SagaStep for Store {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Store";
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        tracing::info!("{:?} of {cx:?}", Executed::Applied(cx.input()));
        Ok(cx.input().clone())
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("forgotten"))
    }
}

/// Ends as the business id says.
struct Charge;
impl SagaStep for Charge {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Charge";
    const USES: &'static [&'static str] = &[Store::NAME];
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        match cx.business_id() {
            "rejected" => Err(StepError::rejected("no")),
            "panics" if cx.attempt() == 1 => panic!("card {}", cx.input()),
            "retried" if cx.attempt() == 1 => Err(StepError::retryable("busy")),
            "fatal" => Err(StepError::fatal("bug")),
            _ => cx.output::<Store, _>(),
        }
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Seen {
    names: Mutex<BTreeSet<String>>,
    labels: Mutex<BTreeSet<String>>,
    /// The names that were described with a unit.
    described: Mutex<BTreeSet<String>>,
}

impl Seen {
    fn see(&self, key: &Key) {
        self.names.lock().unwrap().insert(key.name().to_owned());
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        self.labels.lock().unwrap().extend(labels);
    }
}

impl Seen {
    fn describe(&self, name: &KeyName, unit: Option<Unit>) {
        let in_seconds = name.as_str().ends_with("_seconds");
        let expected = if in_seconds { Unit::Seconds } else { Unit::Count };
        assert_eq!(unit, Some(expected), "the unit of {}", name.as_str());
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.see(key);
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.see(key);
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.see(key);
        Histogram::noop()
    }
}

fn capture(captured: &Captured) -> tracing::subscriber::DefaultGuard {
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::NEW)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_default(subscriber)
}

/// Waits a minute for its next try, on every worker.
struct Later;
impl SagaStep for Later {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Later";
    async fn execute(&self, _: &StepContext<String>) -> Result<String, StepError> {
        Err(StepError::retryable("later"))
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("nothing was done"))
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().retries(Backoff::constant(3, Duration::from_secs(60)))
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_worker_warns_once_with_the_number_of_unrunnable_sagas() {
    testkit::time_limit();
    let captured = Captured::default();
    let _logs = capture(&captured);
    let store = Arc::new(MemoryStore::new());
    let worker = async |name| {
        let saga = Saga::named(name).step(Later).build().unwrap();
        Orchestrator::shared(Arc::clone(&store) as _).register(saga).start().await.unwrap()
    };
    let old = worker("retired").await;
    for business_id in ["OLD-1", "OLD-2"] {
        let _started = old.start("retired", business_id, &CARD.to_owned()).await.unwrap();
    }
    old.drain().await.unwrap();
    let new = worker("payment").await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    new.drain().await.unwrap();
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("has the definition of")).collect();
    assert!(
        matches!(&warnings[..], [line] if line.contains("WARN") && line.contains("retired") && line.contains("sagas=2")),
        "{warnings:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn logs_and_metrics_show_sagas_and_steps_and_never_a_payload() {
    testkit::time_limit();
    let (captured, seen) = (Captured::default(), Seen::default());
    let _logs = capture(&captured);
    let _metrics = metrics::set_default_local_recorder(&seen);

    let saga = Saga::named("payment").step(Store).step(Charge).build().unwrap();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    let run =
        async |business_id: &str| orchestrator.run("payment", business_id, &CARD.to_owned()).await.unwrap();
    assert_eq!(run("done").await, Outcome::Completed);
    assert_eq!(run("retried").await, Outcome::Completed);
    assert_eq!(run("panics").await, Outcome::Completed);
    assert!(matches!(run("rejected").await, Outcome::Compensated { .. }));
    assert!(matches!(run("fatal").await, Outcome::Paused { .. }));
    let view = orchestrator.get("payment", "fatal").await.unwrap().unwrap();
    tracing::info!("{view:?}");
    orchestrator.drain().await.unwrap();

    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains(CARD), "a payload is in the log");
    let stopped: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(
        matches!(&stopped[..], [line] if line.contains("waits for a person") && line.contains("business_id=\"fatal\"")
            && line.contains("payment") && line.contains("paused") && line.contains("bug")),
        "one line for the saga that stopped: {stopped:?}"
    );
    let step = log.lines().find(|line| line.contains("saga_step{") && line.contains("Charge"));
    let step = step.expect("a span per step");
    let (saga_at, step_at) = (step.find("saga{").expect("a span per saga"), step.find("saga_step{").unwrap());
    assert!(saga_at < step_at, "the span of a step is inside the span of its saga: {step}");

    let names = seen.names.lock().unwrap();
    for name in ["probity_saga_in_flight", "probity_saga_started_total", "probity_saga_transitions_total"] {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
    let described = seen.described.lock().unwrap();
    assert!(names.is_subset(&described), "not described: {:?}", names.difference(&described));
    let labels: Vec<String> = seen.labels.lock().unwrap().iter().cloned().collect();
    let known =
        ["type=", "step=", "outcome=", "to=", "result=", "action=", "status=", "operation=", "reason="];
    let odd = labels.iter().find(|label| !known.iter().any(|known| label.starts_with(known)));
    assert_eq!(odd, None, "a label that may grow with traffic");
    let id = view.instance.id.to_string();
    assert!(!labels.iter().any(|label| label.contains(&id) || label.contains("retried")), "{labels:?}");
}
