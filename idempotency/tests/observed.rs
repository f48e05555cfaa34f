//! Metrics, spans and logs show everything that can go wrong, and no key, no body and no scope.
//!
//! One test, because what is collected here is the process's: the level of logs is.
#![cfg(all(feature = "testing", feature = "tower", feature = "sqlite"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower", feature = "sqlite"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use probity_idempotency::layer::ReplayBody;
use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::time::sleep;
use tower::{ServiceBuilder, ServiceExt};
use tracing_subscriber::fmt::format::FmtSpan;

/// Everything that was counted, measured or logged, as lines.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<String>>);

impl Seen {
    fn line(&self, line: &str) {
        writeln!(self.0.lock().unwrap(), "{line}").unwrap();
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>) {
        let unit = unit.unwrap();
        self.line(&format!("described {} in {}", name.as_str(), unit.as_str()));
    }

    fn all(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

struct Named(Seen, String);

impl CounterFn for Named {
    fn increment(&self, _: u64) {
        self.0.line(&self.1);
    }
    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Named {
    fn record(&self, value: f64) {
        self.0.line(&format!("{} {value}", self.1));
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Named(self.clone(), key.to_string())))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Named(self.clone(), key.to_string())))
    }
}

impl std::io::Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends the secret key, scope and body through a layer over `manager`; the handler does what `work` says.
async fn call<F, Fut>(
    manager: Arc<dyn IdempotencyManager>,
    change: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
    work: F,
) where
    F: Fn(Lease) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let layer = change(IdempotencyLayer::new(manager).scope(|_| Ok(Scope::new("scope-secret")?)));
    let (tasks, work) = (layer.tasks(), Arc::new(work));
    let service =
        ServiceBuilder::new().layer(layer).service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let (work, lease) = (Arc::clone(&work), request.extensions().get::<Lease>().unwrap().clone());
            async move { Ok::<_, Infallible>(work(lease).await) }
        });
    let request = Request::post("/").header("idempotency-key", "key-secret").body(Full::from("body-secret"));
    // A panic of the handler is the caller's too.
    let _ = tokio::spawn(service.oneshot(request.unwrap())).await;
    tasks.drain().await;
    sleep(Duration::from_millis(100)).await;
}

async fn paid(_: Lease) -> Response<Full<Bytes>> {
    Response::new(Full::from("answer-secret"))
}

fn faulty(faults: &[(Call, Side)]) -> Arc<FaultyStore> {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    for (call, side) in faults {
        store.fail(*call, *side);
    }
    Arc::new(store)
}

async fn everything_that_can_go_wrong() {
    let memory = Arc::new(MemoryStore::new());
    for _ in 0..2 {
        call(memory.clone(), |layer| layer, paid).await; // acquired, then replay
    }
    let lost = Arc::new(MemoryStore::new());
    for _ in 0..2 {
        call(lost.clone(), |layer| layer, async |_| panic!("boom")).await; // indeterminate
    }
    let unreachable = [(Call::Claim, Side::After); 2];
    call(faulty(&unreachable), |layer| layer, paid).await; // store error
    call(faulty(&[(Call::Complete, Side::Before)]), |layer| layer, paid).await; // unrecorded
    let late = async |lease: Lease| {
        lease.lost().await;
        paid(lease).await
    };
    let cap = Duration::from_secs(40);
    call(Arc::new(MemoryStore::new()), |layer| layer.lease_cap(cap), late).await; // lost lease, late completion
    let marked = async |lease: Lease| {
        lease.effect_starting().await.unwrap();
        paid(lease).await
    };
    call(Arc::new(MemoryStore::new()), |layer| layer.effects(Effects::Marked), marked).await;
    let refused = async |_| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        response
    };
    call(Arc::new(MemoryStore::new()), |layer| layer, refused).await; // released
    call(Arc::new(MemoryStore::new()), |layer| layer.response_cap(1), paid).await; // tombstone
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let (scope, key) = (Scope::new("scope-secret").unwrap(), IdempotencyKey::new("key-secret").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"body-secret"]);
    let fails = async |_: Lease| Err::<u8, _>(std::io::Error::other("why-secret"));
    let failed = execute(&manager, &scope, &key, print, &Policy::default(), fails).await;
    assert!(matches!(failed, Err(ExecuteError::Work(_))));
}

/// Two attempts with an unknown outcome: one that panicked, and one whose process died.
async fn lost_attempts() {
    let refused = async |_| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        response
    };
    let panicked = Arc::new(MemoryStore::new());
    for _ in 0..7 {
        call(panicked.clone(), |layer| layer, refused).await; // each raises the fence
    }
    for _ in 0..3 {
        call(panicked.clone(), |layer| layer, async |_| panic!("boom")).await;
    }
    let died: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let (scope, key) = (Scope::new("scope-secret").unwrap(), IdempotencyKey::new("key-secret").unwrap());
    let claim = |lease| Claim {
        record: RecordId::derive(&HashKey::default(), &scope, &key),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"body-secret"]),
        effects: Effects::Opaque,
        terms: Terms { lease, ..Terms::default() },
    };
    for _ in 0..19 {
        let claim = claim(Duration::from_secs(1));
        assert!(matches!(died.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        assert_eq!(died.release(&claim.holder()).await.unwrap(), Written::Applied);
    }
    assert!(matches!(died.claim(&claim(Duration::ZERO)).await.unwrap(), Answer::Acquired(_)));
    for _ in 0..3 {
        let never = async |_: Lease| -> Result<u8, StoreError> { panic!("ran twice") };
        let policy = Policy::default();
        let asked = execute(&died, &scope, &key, claim(Duration::ZERO).fingerprint, &policy, never).await;
        assert!(matches!(asked, Ok(Execution::Indeterminate(_))), "{asked:?}");
    }
}

/// A database that refuses a statement, and quotes the row.
async fn a_database_that_refuses() {
    for statement in ["INSERT", "UPDATE"] {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        let store = Arc::new(SqliteStore::new(pool.clone()).await.unwrap());
        let trigger = format!(
            "CREATE TRIGGER no BEFORE {statement} ON idempotency_records
             BEGIN SELECT RAISE(ABORT, 'row-secret'); END"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger)).execute(&pool).await.unwrap();
        call(store, |layer| layer.lease(Duration::from_millis(50)), paid).await;
    }
}

#[test]
fn faults_are_counted_and_logged_without_secrets() {
    let seen = Seen::default();
    let runtime = |paused| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap()
    };
    let writer = seen.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&seen, || {
            describe_metrics();
            runtime(true).block_on(everything_that_can_go_wrong());
            runtime(true).block_on(lost_attempts());
            runtime(false).block_on(a_database_that_refuses());
        });
    });
    let seen = seen.all();
    let mut missing = Vec::new();
    for expected in [
        "probity_idempotency_claims_total, [outcome = acquired]",
        "probity_idempotency_claims_total, [outcome = replay]",
        "probity_idempotency_claims_total, [outcome = indeterminate]",
        "probity_idempotency_claim_seconds",
        "probity_idempotency_store_seconds, [call = claim]",
        "probity_idempotency_store_seconds, [call = renew]",
        "probity_idempotency_store_seconds, [call = mark_effect]",
        "probity_idempotency_store_seconds, [call = complete]",
        "probity_idempotency_store_seconds, [call = tombstone]",
        "probity_idempotency_store_seconds, [call = release]",
        "Key(probity_idempotency_stored_bytes) 13",
        "probity_idempotency_late_completions_total",
        "probity_idempotency_lost_leases_total",
        "probity_idempotency_indeterminate_total",
        "probity_idempotency_unrecorded_total",
        "probity_idempotency_store_errors_total",
        "idempotency{record=RecordId(",
        "attempt=1 status=\"created\"",
        "attempt=1 status=\"unrecorded\"",
        "attempt=1 status=\"released\"",
        "status=\"replayed\"",
        "attempt=1 status=\"failed\"",
        "status=\"indeterminate\"",
        "status=\"refused\"",
        "the handler panicked",
        "outcome unknown",
        "the lease is lost",
        "the answer is sent but not recorded kind=Unavailable",
        "the answer is sent but not recorded kind=Rejected",
        "the idempotency store failed; nothing was run kind=Unavailable effect=Unknown connection=\"a planned fault\"",
        "the idempotency store failed; nothing was run kind=Rejected effect=NotApplied",
    ] {
        if !seen.contains(expected) {
            missing.push(expected);
        }
    }
    assert!(missing.is_empty(), "{missing:#?} are not in\n{seen}");
    assert!(!seen.contains("secret"), "{seen}");
    each_metric_is_described(&seen);
    for lost in ["fence=8 attempt=8", "fence=20 attempt=20"] {
        let is_error =
            |line: &&str| line.contains("ERROR") && line.contains("outcome unknown") && line.contains(lost);
        assert_eq!(seen.lines().filter(is_error).count(), 1, "each lost attempt is one line, {lost}: {seen}");
    }
}

/// Checks that the metrics that were described are those that were counted or measured.
fn each_metric_is_described(seen: &str) {
    let names = |start: &'static str| -> BTreeSet<&str> {
        let names = seen.lines().filter_map(|line| line.strip_prefix(start));
        names.filter_map(|line| line.split([',', ')', ' ']).next()).collect()
    };
    let (described, used) = (names("described "), names("Key("));
    assert_eq!(described, used);
    assert!(used.iter().all(|name| name.starts_with("probity_idempotency_")), "{used:?}");
    assert!(seen.contains("described probity_idempotency_claim_seconds in seconds"), "{described:?}");
}
