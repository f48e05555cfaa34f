//! PostgreSQL: locked rows, connections that break, and sagas that are old enough.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::{
    Effect, Evidence, Executed, ForwardStep, Orchestrator, Outcome, PostgresStore, Saga, SagaError, SagaStep,
    StepContext, StepError, StepPolicy,
};
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts charges by key; a charge of "held" waits for its answer.
struct Channel {
    charges: Mutex<HashMap<String, u32>>,
    reached: Notify,
    answers: Semaphore,
}

struct Charge(Arc<Channel>);

impl SagaStep for Charge {
    type Input = String;
    type Output = ();
    const NAME: &'static str = "Charge";

    async fn execute(&self, cx: &StepContext<String>) -> Result<(), StepError> {
        *self.0.charges.lock().unwrap().entry(cx.idempotency_key().into()).or_default() += 1;
        if cx.input() == "held" {
            self.0.reached.notify_one();
            self.0.answers.acquire().await?.forget();
        }
        Ok(())
    }

    async fn compensate(&self, _: &StepContext<String>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

fn channel() -> Arc<Channel> {
    Arc::new(Channel { charges: Mutex::default(), reached: Notify::new(), answers: Semaphore::new(0) })
}

async fn worker(pool: &PgPool, channel: &Arc<Channel>) -> (Orchestrator, PostgresStore) {
    testkit::time_limit();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let saga = Saga::named("payment").step(Charge(Arc::clone(channel))).build().unwrap();
    (Orchestrator::new(store.clone()).register(saga).start().await.unwrap(), store)
}

#[tokio::test]
async fn a_locked_row_delays_only_its_own_saga() {
    let database = testkit::Postgres::shared().database();
    let (pool, channel) = (PgPool::connect(database.url()).await.unwrap(), channel());
    let (orchestrator, _) = worker(&pool, &channel).await;
    let held = orchestrator.start("payment", "PAY-1", &"held".to_owned()).await.unwrap();
    channel.reached.notified().await;

    let mut somebody = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM saga_heads FOR UPDATE").execute(&mut *somebody).await.unwrap();
    channel.answers.add_permits(1);
    for n in 2..30 {
        let (id, input) = (format!("PAY-{n}"), "tea".to_owned());
        let run = timeout(PATIENCE, orchestrator.run("payment", &id, &input));
        assert_eq!(run.await.unwrap().unwrap(), Outcome::Completed);
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probity-saga'
        AND wait_event_type = 'Lock' AND datname = current_database()";
    let held_up = async {
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, held_up).await.unwrap();
    somebody.rollback().await.unwrap();
    let outcome = timeout(PATIENCE, orchestrator.wait(&held)).await.unwrap().unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert!(channel.charges.lock().unwrap().values().all(|charges| *charges == 1));
}

#[tokio::test]
async fn an_uncommitted_start_delays_only_its_own_business_id() {
    let database = testkit::Postgres::shared().database();
    let (pool, channel) = (PgPool::connect(database.url()).await.unwrap(), channel());
    let (orchestrator, _) = worker(&pool, &channel).await;
    let (mut somebody, input) = (pool.begin().await.unwrap(), "tea".to_owned());
    for held in ["PAY-0", "PAY-1"] {
        let _started = orchestrator.start_in(&mut *somebody, "payment", held, &input).await.unwrap();
    }
    let start = |id: String| {
        let (orchestrator, input) = (orchestrator.clone(), input.clone());
        tokio::spawn(async move { orchestrator.start("payment", &id, &input).await })
    };
    // While the first waits by itself, the second gathers others in its batch.
    let blocked = [start("PAY-0".into()), start("PAY-1".into())];
    let beside: Vec<_> = (2..10).map(|n| start(format!("PAY-{n}"))).collect();
    for started in beside {
        let started = timeout(PATIENCE, started).await.unwrap().unwrap().unwrap();
        assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    }
    for blocked in blocked {
        let refused = timeout(PATIENCE, blocked).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(&refused, SagaError::Store(error) if error.is_contended()), "{refused}");
        assert_eq!(refused.effect(), Effect::NotApplied);
    }
    somebody.rollback().await.unwrap();
    let outcome = orchestrator.run("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
}

// proves: S-2
#[tokio::test]
async fn connections_that_are_killed_under_load_lose_no_result_and_repeat_no_step() {
    let database = testkit::Postgres::shared().database();
    let (pool, channel) = (PgPool::connect(database.url()).await.unwrap(), channel());
    let (orchestrator, _) = worker(&pool, &channel).await;
    let mut running = tokio::task::JoinSet::new();
    for n in 0..100 {
        let orchestrator = orchestrator.clone();
        running.spawn(async move {
            // A start whose answer was lost is started again: it is the same saga.
            loop {
                match orchestrator.run("payment", &format!("PAY-{n}"), &"tea".to_owned()).await {
                    Ok(outcome) => break outcome,
                    Err(error) => assert!(matches!(error, SagaError::Store(_)), "{error}"),
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'probity-saga' AND datname = current_database()";
    for _ in 0..5 {
        sqlx::query(kill).execute(&pool).await.unwrap();
        let done = running.join_next().await;
        assert!(done.is_none_or(|done| done.unwrap() == Outcome::Completed));
    }
    let outcomes = running.join_all().await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Completed));
    let charges = channel.charges.lock().unwrap();
    assert_eq!((charges.len(), charges.values().max()), (100, Some(&1)));
}

/// Must not run twice; the second waits for leave.
struct Transfer<const N: u32>(Arc<Channel>);

impl<const N: u32> ForwardStep for Transfer<N> {
    type Input = String;
    type Output = ();
    const NAME: &'static str = if N == 1 { "Withdraw" } else { "Deposit" };

    async fn execute(&self, cx: &StepContext<String>) -> Result<(), StepError> {
        *self.0.charges.lock().unwrap().entry(cx.idempotency_key().into()).or_default() += 1;
        if N == 1 {
            self.0.reached.notify_one();
            self.0.answers.acquire().await?.forget();
        }
        Ok(())
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent().timeout(PATIENCE)
    }
}

// proves: S-2, S-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_for_longer_than_the_lease_costs_no_result() {
    let mut server = testkit::Postgres::start();
    let (pool, channel) = (PgPool::connect(server.url()).await.unwrap(), channel());
    testkit::time_limit();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let store = PostgresStore::new(pool.clone()).await.unwrap();
        let saga = Saga::named("transfer").step(Transfer::<1>(channel.clone())).no_compensation("by hand");
        let saga = saga.pivot(Transfer::<2>(channel.clone())).build().unwrap();
        // A lease is longer than a machine with busy disks stands still: a worker that does not beat for that long may lose sagas.
        let builder = Orchestrator::new(store).lease(Duration::from_secs(10)).register(saga);
        workers.push(builder.poll(Duration::from_millis(100)).start().await.unwrap());
    }
    let mut started = Vec::new();
    for n in 0..60 {
        let worker = &workers[n % 2];
        let saga = worker.start("transfer", &n.to_string(), &"tea".to_owned()).await.unwrap();
        started.push((worker.clone(), saga));
    }
    let all_are_in_their_first_step = async {
        while channel.charges.lock().unwrap().len() < 60 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_are_in_their_first_step).await.unwrap();
    server.stop();
    // The database refuses these results on every session.
    channel.answers.add_permits(60);
    tokio::time::sleep(Duration::from_secs(13)).await;
    server.restart();
    for (worker, saga) in &started {
        let outcome = timeout(PATIENCE, worker.wait(saga)).await.unwrap().unwrap();
        assert_eq!(outcome, Outcome::Completed);
    }
    let charges = channel.charges.lock().unwrap();
    assert_eq!((charges.len(), charges.values().max()), (120, Some(&1)));
}

#[tokio::test]
async fn only_finished_sagas_that_are_old_enough_are_purged_a_batch_at_a_time() {
    let database = testkit::Postgres::shared().database();
    let (pool, channel) = (PgPool::connect(database.url()).await.unwrap(), channel());
    let (orchestrator, store) = worker(&pool, &channel).await;
    for n in 0..5 {
        let outcome = orchestrator.run("payment", &format!("PAY-{n}"), &"tea".to_owned()).await.unwrap();
        assert_eq!(outcome, Outcome::Completed);
    }
    let _running = orchestrator.start("payment", "PAY-held", &"held".to_owned()).await.unwrap();
    assert_eq!(store.purge(Duration::from_secs(3600), 10).await.unwrap(), 0);
    let batches =
        [store.purge(Duration::ZERO, 3).await.unwrap(), store.purge(Duration::ZERO, 3).await.unwrap()];
    assert_eq!(batches, [3, 2]);
    let left = "SELECT (SELECT count(*) FROM saga_heads), (SELECT count(*) FROM saga_step_rows)";
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(left).fetch_one(&pool).await.unwrap(), (1, 0));
}
