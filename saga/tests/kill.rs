//! Workers that die by kill -9, or stand still for longer than their lease and go on, at random moments under load:
//! what did the channel do, and does every saga say so?
//!
//! The test binary starts itself as the worker. A worker reports each call of the channel as a line; the parent stops
//! it at a random one. The seed is printed, and `PROBITY_TEST_SEED` repeats it; `PROBITY_TEST_KILLS` kills more.
#![cfg(feature = "postgres")]
#![cfg_attr(feature = "postgres", expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use probity_saga::{
    Backoff, Evidence, Executed, LocalStep, Orchestrator, PostgresStore, Saga, SagaStep, StepContext,
    StepError, StepPolicy,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool, Postgres, Row};
use testkit::{Program, Rng};
use tokio::time::Instant;

/// How many sagas a worker starts.
const SHARE: u64 = 16;
const LEASE: Duration = Duration::from_secs(1);
const ORDERS: &str = "PROBITY_SAGA_WORKER";

fn kills() -> u64 {
    std::env::var("PROBITY_TEST_KILLS").map_or(24, |kills| kills.parse().unwrap())
}

/// The other side, in a database of its own. It honours keys: one effect per key, and none after its undo.
#[derive(Clone)]
struct Channel {
    pool: PgPool,
    calls: Arc<AtomicU64>,
}

impl Channel {
    async fn connect(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(4).connect(url).await.unwrap();
        Self { pool, calls: Arc::default() }
    }

    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    fn report(&self) {
        println!("call {} done", self.calls.fetch_add(1, Ordering::SeqCst) + 1);
    }

    async fn have(&self, key: &str) -> Result<(), StepError> {
        let row = sqlx::query(
            "INSERT INTO effects (key, calls, undone) VALUES ($1, 1, false)
             ON CONFLICT (key) DO UPDATE SET calls = effects.calls + 1 RETURNING undone",
        );
        let undone: bool = row.bind(key).fetch_one(&self.pool).await?.get(0);
        self.report();
        if undone { Err(StepError::rejected("this key was undone")) } else { Ok(()) }
    }

    async fn undo(&self, key: &str) -> Result<Evidence, StepError> {
        let row = sqlx::query(
            "INSERT INTO effects (key, calls, undone) VALUES ($1, 0, true)
             ON CONFLICT (key) DO UPDATE SET undone = true",
        );
        row.bind(key).execute(&self.pool).await?;
        self.report();
        Ok(Evidence::new("undone"))
    }
}

macro_rules! step {
    ($name:ident, $refuses:expr) => {
        struct $name(Channel);
        impl SagaStep for $name {
            type Input = u64;
            type Output = u64;
            const NAME: &'static str = stringify!($name);
            async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> {
                if $refuses && cx.input() % 4 == 3 {
                    return Err(StepError::rejected("refused"));
                }
                self.0.have(cx.idempotency_key()).await?;
                Ok(*cx.input())
            }
            async fn compensate(
                &self,
                cx: &StepContext<u64>,
                _: Executed<u64>,
            ) -> Result<Evidence, StepError> {
                self.0.undo(&cx.execute_key()).await
            }
            fn policy(&self) -> StepPolicy {
                let soon = Backoff::constant(50, Duration::from_millis(100));
                StepPolicy::default().retries(soon).undo_retries(soon)
            }
        }
    };
}

step!(Reserve, false);
step!(Freeze, false);
step!(Charge, true);

/// Rows beside the sagas, without a key: what happens twice is there twice.
struct Book;
impl LocalStep<Postgres> for Book {
    type Input = u64;
    type Output = u64;
    const NAME: &'static str = "Book";

    async fn execute(&self, cx: &StepContext<u64>, tx: &mut PgConnection) -> Result<u64, StepError> {
        booked(cx, "done", tx).await
    }

    async fn compensate(
        &self,
        cx: &StepContext<u64>,
        _: u64,
        tx: &mut PgConnection,
    ) -> Result<Evidence, StepError> {
        booked(cx, "undone", tx).await?;
        Ok(Evidence::new("undone"))
    }

    fn policy(&self) -> StepPolicy {
        let soon = Backoff::constant(50, Duration::from_millis(100));
        StepPolicy::default().retries(soon).undo_retries(soon)
    }
}

async fn booked(cx: &StepContext<u64>, what: &str, tx: &mut PgConnection) -> Result<u64, StepError> {
    let row = sqlx::query("INSERT INTO booked (saga, what) VALUES ($1, $2)");
    row.bind(cx.saga_id().to_string()).bind(what).execute(tx).await?;
    Ok(*cx.input())
}

async fn worker(sagas: &str, effects: &str) -> Orchestrator {
    let channel = Channel::connect(effects).await;
    let saga = Saga::named("payment").step(Reserve(channel.clone())).local_step(Book);
    let saga = saga.step(Freeze(channel.clone())).step(Charge(channel)).build().unwrap();
    let store = PostgresStore::new(PgPool::connect(sagas).await.unwrap()).await.unwrap();
    let builder = Orchestrator::new(store).lease(LEASE).poll(Duration::from_millis(100));
    builder.register(saga).start().await.unwrap()
}

/// Reports the one counter that matters here.
struct Refusals;

impl CounterFn for Refusals {
    #[expect(clippy::print_stdout, reason = "the parent reads it")]
    fn increment(&self, _: u64) {
        println!("{REFUSED}");
    }
    fn absolute(&self, _: u64) {}
}

impl Recorder for Refusals {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            "probity_saga_fenced_writes_total" => Counter::from_arc(Arc::new(Self)),
            _ => Counter::noop(),
        }
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The worker, when it is told its work; on its own it has none.
#[test]
fn a_worker_without_orders_does_nothing() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let mut parts = orders.split('|');
    let (sagas, effects) = (parts.next().unwrap(), parts.next().unwrap());
    let first: u64 = parts.next().unwrap().parse().unwrap();
    metrics::set_global_recorder(Refusals).unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
        async {
            let orchestrator = worker(sagas, effects).await;
            for number in first..first + SHARE {
                let _started =
                    orchestrator.start("payment", &format!("PAY-{number}"), &number).await.unwrap();
            }
            // Until it is killed it helps with the sagas of the dead.
            std::future::pending::<()>().await;
        },
    );
}

fn spawn(sagas: &str, effects: &str, round: u64) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_worker_without_orders_does_nothing", "--nocapture", "--test-threads=1"]);
    command.env(ORDERS, format!("{sagas}|{effects}|{}", round * SHARE));
    Program::spawn(command)
}

/// Until others have taken what a worker that stands still was driving.
async fn taken_over(pool: &PgPool, victim: u32) {
    let owned =
        "SELECT count(*) FROM saga_heads h JOIN saga_workers w ON w.worker_id = h.owner_id WHERE w.pid = $1";
    let patience = Instant::now() + Duration::from_secs(120);
    while sqlx::query_scalar::<_, i64>(owned).bind(i64::from(victim)).fetch_one(pool).await.unwrap() > 0 {
        assert!(Instant::now() < patience, "nobody takes the sagas of a frozen worker over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const REFUSED: &str = "a zombie's write was refused";

/// Two workers at a time. One is stopped at a random call and replaced, until the kills are used up; every
/// fourth only stands still until its sagas are another's, and then goes on. Answers how many of their writes
/// were refused.
async fn stop_workers(pool: &PgPool, sagas: &str, effects: &str) -> usize {
    let mut rng = Rng::new(testkit::seed());
    let mut refused = 0;
    let (mut victim, mut survivor) = (spawn(sagas, effects, 0), spawn(sagas, effects, 1));
    for kill in 0..kills() {
        victim.wait_for_line(&format!("call {} done", rng.between(1, SHARE)));
        if kill % 4 == 3 {
            victim.pause();
            taken_over(pool, victim.id()).await;
            victim.resume();
            // It may have stood where it had nothing left to write.
            let patience = Instant::now() + Duration::from_secs(5);
            while !victim.output().contains(REFUSED) && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        victim.kill9();
        refused += victim.output().matches(REFUSED).count();
        victim = std::mem::replace(&mut survivor, spawn(sagas, effects, kill + 2));
    }
    victim.kill9();
    survivor.kill9();
    refused
}

// proves: S-2, S-4, S-5, S-6, S-7, S-9
#[test]
fn every_saga_ends_and_says_what_the_channel_did_however_often_workers_are_killed() {
    let (sagas, effects) = (testkit::Postgres::shared().database(), testkit::Postgres::shared().database());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let channel = runtime.block_on(async {
        let pool = PgPoolOptions::new().connect(effects.url()).await.unwrap();
        let table =
            "CREATE TABLE effects (key text PRIMARY KEY, calls bigint NOT NULL, undone boolean NOT NULL)";
        sqlx::query(table).execute(&pool).await.unwrap();
        let beside = PgPool::connect(sagas.url()).await.unwrap();
        let table = "CREATE TABLE booked (saga text NOT NULL, what text NOT NULL)";
        sqlx::query(table).execute(&beside).await.unwrap();
        PostgresStore::new(beside).await.unwrap();
        pool
    });
    runtime.block_on(async {
        let pool = PgPool::connect(sagas.url()).await.unwrap();
        let refused = stop_workers(&pool, sagas.url(), effects.url()).await;
        assert!(refused > 0, "no frozen worker tried to write what it had done");
        let last = worker(sagas.url(), effects.url()).await;
        let open = "SELECT count(*) FROM saga_instances
            WHERE status NOT IN ('completed', 'compensated', 'stuck', 'paused')";
        let patience = Instant::now() + Duration::from_secs(120);
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await.unwrap() > 0 {
            assert!(Instant::now() < patience, "a saga never ends");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        check(&pool, &channel).await;
        last.drain().await.unwrap();
    });
}

async fn check(sagas: &PgPool, channel: &PgPool) {
    let instances = sqlx::query("SELECT id::text, business_id, status, error_message FROM saga_instances");
    let instances = instances.fetch_all(sagas).await.unwrap();
    let (mut completed, mut compensated) = (0, 0);
    for row in &instances {
        let (id, business, status): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let effects = sqlx::query("SELECT key, undone FROM effects WHERE starts_with(key, $1) ORDER BY key");
        let effects = effects.bind(&id).fetch_all(channel).await.unwrap();
        let keys: Vec<String> = effects.iter().map(|row| row.get::<String, _>(0)).collect();
        let undone = effects.iter().filter(|row| row.get::<bool, _>(1)).count();
        let rows = sqlx::query_scalar("SELECT what FROM booked WHERE saga = $1 ORDER BY what");
        let rows: Vec<String> = rows.bind(&id).fetch_all(sagas).await.unwrap();
        match status.as_str() {
            "completed" => {
                let all = ["Charge", "Freeze", "Reserve"].map(|step| format!("{id}:{step}:do"));
                assert_eq!(
                    (keys.as_slice(), undone),
                    (&all[..], 0),
                    "{business}: one key per step, none undone"
                );
                assert_eq!(rows, ["done"], "{business}: the local step");
                completed += 1;
            }
            "compensated" => {
                assert_eq!(undone, keys.len(), "{business}: an effect was left: {keys:?}");
                assert!(keys.len() >= 2, "{business}: an effect is missing: {keys:?}");
                assert_eq!(rows, ["done", "undone"], "{business}: the local step");
                compensated += 1;
            }
            _ => {
                let reason: Option<String> = row.get(3);
                assert!(reason.is_some(), "{business} is {status} without a reason");
            }
        }
    }
    assert!(completed > 0 && compensated > 0, "{completed} completed, {compensated} compensated");
    let started = u64::try_from(instances.len()).unwrap();
    assert!(started >= kills() + 2, "only {started} sagas were started");
}
