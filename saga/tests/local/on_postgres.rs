//! Cases that only PostgreSQL has: transactions side by side, errors that abort them, and a server that ends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::store::{SagaStore, Worker};
use probity_saga::{
    Backoff, LocalForwardStep, Orchestrator, Outcome, PostgresStore, Saga, StepContext, StepError, StepPolicy,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, Postgres};

use super::scenarios::postgres::{Ship, Take, effects, put, take};
use super::script::{Fate, Script, soon};
use super::stores;

async fn worker(store: PostgresStore, take: Take) -> Orchestrator {
    let saga = Saga::named("order").local_step(take).step(Ship { refuses: false }).build().unwrap();
    Orchestrator::new(store).poll(Duration::from_millis(20)).register(saga).start().await.unwrap()
}

// proves: S-9
#[tokio::test]
async fn a_swallowed_error_of_a_statement_rolls_the_effect_back() {
    let (pool, store, _database) = stores::postgres().await;
    let does = Script::of([Fate::Swallows; 2]);
    let policy = StepPolicy::default().retries(Backoff::constant(1, Duration::from_millis(10)));
    let orchestrator = worker(store, Take { policy, ..take(does, Script::of([])) }).await;
    let outcome = orchestrator.run("order", "O-1", &1_u32).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("current transaction is aborted")),
        "{outcome:?}"
    );
    assert_eq!((effects(&pool, "O-1").await, does.calls()), (vec![], 2));
}

// proves: S-9
#[tokio::test]
async fn a_conflict_is_tried_again_in_a_fresh_transaction() {
    let (pool, store, _database) = stores::postgres().await;
    let does = Script::of([Fate::Conflicts; 2]);
    let orchestrator = worker(store, take(does, Script::of([]))).await;
    assert_eq!(orchestrator.run("order", "O-1", &1_u32).await.unwrap(), Outcome::Completed);
    assert_eq!((effects(&pool, "O-1").await, does.attempts()), (vec!["Take".to_owned()], vec![1, 2, 3]));
}

// proves: S-9
#[tokio::test]
async fn a_connection_that_is_killed_costs_no_retry() {
    let (pool, store, _database) = stores::postgres().await;
    let does = Script::of([Fate::LosesItsConnection; 6]);
    let policy = soon().retries(Backoff::never());
    let orchestrator = worker(store, Take { policy, ..take(does, Script::of([])) }).await;
    assert_eq!(orchestrator.run("order", "O-1", &1_u32).await.unwrap(), Outcome::Completed);
    assert_eq!(
        (effects(&pool, "O-1").await, does.attempts()),
        (vec!["Take".to_owned()], vec![1, 2, 3, 4, 5, 6, 7])
    );
}

/// Reads a second database, which is not there.
struct ReadsElsewhere {
    second: PgConnectOptions,
    calls: Arc<AtomicU32>,
}

impl LocalForwardStep<Postgres> for ReadsElsewhere {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "ReadsElsewhere";

    async fn execute(&self, _: &StepContext<u32>, _: &mut PgConnection) -> Result<(), StepError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.second.connect().await?;
        Ok(())
    }

    fn policy(&self) -> StepPolicy {
        soon().retries(Backoff::constant(2, Duration::from_millis(5)))
    }
}

#[tokio::test]
async fn a_session_that_another_database_refuses_is_a_failure_of_the_step() {
    let (_pool, store, database) = stores::postgres().await;
    let calls = Arc::new(AtomicU32::new(0));
    let second = database.url().parse::<PgConnectOptions>().unwrap().database("not_there");
    let reads = ReadsElsewhere { second, calls: Arc::clone(&calls) };
    let saga = Saga::named("reads").local_step(reads).no_compensation("it only reads").build().unwrap();
    let orchestrator = Orchestrator::new(store).register(saga).start().await.unwrap();
    let outcome = orchestrator.run("reads", "R-1", &1_u32).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("not_there")),
        "{outcome:?}"
    );
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

// proves: S-6, S-9
#[tokio::test]
async fn a_worker_that_lost_the_saga_during_its_step_commits_neither_effect_nor_record() {
    let (pool, store, database) = stores::postgres().await;
    let does = Script::of([Fate::Waits]);
    let first = worker(store.clone(), take(does, Script::of([])).patient()).await;
    let _started = first.start("order", "O-1", &1_u32).await.unwrap();
    does.reached.notified().await;
    let dead = Worker { id: first.worker(), lease: Duration::ZERO, pid: 0 };
    let _ = store.heartbeat(&dead).await.unwrap();

    // The second worker claims at once, although the step of the first one still holds its rows.
    let other = PostgresStore::new(stores::postgres_at(database.url()).await).await.unwrap();
    let second = worker(other, take(Script::of([]), Script::of([]))).await;
    let same = second.start("order", "O-1", &1_u32).await.unwrap();
    assert_eq!(second.wait(&same).await.unwrap(), Outcome::Completed);
    assert_eq!(effects(&pool, "O-1").await, ["Take"]);

    does.go_on.add_permits(1);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probity-saga-local'
        AND state LIKE 'idle in transaction%' AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    first.drain().await.unwrap();
    assert_eq!(effects(&pool, "O-1").await, ["Take"]);
    assert_eq!(does.calls(), 1);
    let view = second.get("order", "O-1").await.unwrap().unwrap();
    assert!(view.instance.epoch > 1 && view.steps.len() == 2, "{view:?}");
}

// proves: S-9
#[tokio::test]
async fn the_server_ends_the_transaction_of_a_frozen_worker() {
    let (pool, store, _database) = stores::postgres().await;
    let local = store.local().unwrap();
    let mut tx = local.begin(Duration::from_secs(3)).await.unwrap();
    put(tx.connection().downcast_mut().unwrap(), "O-1", "Take").await.unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probity-saga-local'
        AND datname = current_database()";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(tx);
    assert_eq!(effects(&pool, "O-1").await, [""; 0]);
}
