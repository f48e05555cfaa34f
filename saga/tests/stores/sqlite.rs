//! SQLite: the caller's own transaction, restarts, and what operators read by hand.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::{
    Evidence, Executed, Orchestrator, OrchestratorBuilder, Outcome, Saga, SagaError, SagaStep, SqliteStore,
    Status, StepContext, StepError,
};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::{Notify, Semaphore};

/// A channel that counts, and can be made to hold its answer back.
#[derive(Default)]
struct Channel {
    orders: AtomicU32,
    charges: AtomicU32,
    cancelled: AtomicU32,
    reached: Notify,
    answers: Option<Semaphore>,
}

struct CreateOrder(Arc<Channel>);
impl SagaStep for CreateOrder {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "CreateOrder";
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        self.0.orders.fetch_add(1, Ordering::SeqCst);
        Ok(format!("order of {}", cx.input()))
    }
    async fn compensate(
        &self,
        _: &StepContext<String>,
        done: Executed<String>,
    ) -> Result<Evidence, StepError> {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        Ok(Evidence::new(format!("cancelled {}", done.known().unwrap_or_default())))
    }
}

struct CallChannel(Arc<Channel>);
impl SagaStep for CallChannel {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "CallPaymentChannel";
    const USES: &'static [&'static str] = &[CreateOrder::NAME];
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        assert_eq!(cx.output::<CreateOrder, _>()?, format!("order of {}", cx.input()));
        self.0.reached.notify_one();
        if let Some(answers) = &self.0.answers {
            answers.acquire().await?.forget();
        }
        if cx.input() == "refused" {
            return Err(StepError::rejected("card declined"));
        }
        self.0.charges.fetch_add(1, Ordering::SeqCst);
        Ok("charged".into())
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

async fn pool(folder: &Path) -> SqlitePool {
    testkit::time_limit();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("saga.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

async fn builder(pool: &SqlitePool, channel: &Arc<Channel>) -> OrchestratorBuilder<SqliteStore> {
    let saga = Saga::named("payment").step(CreateOrder(channel.clone())).step(CallChannel(channel.clone()));
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    Orchestrator::new(store)
        .lease(Duration::from_millis(400))
        .poll(Duration::from_millis(50))
        .register(saga.build().unwrap())
}

async fn payments(pool: &SqlitePool) {
    sqlx::query("CREATE TABLE payments (payment_no TEXT PRIMARY KEY)").execute(pool).await.unwrap();
}

async fn text(pool: &SqlitePool, sql: &'static str) -> String {
    sqlx::query_scalar::<_, String>(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_saga_starts_with_the_callers_row_and_finishes_after_the_commit() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    payments(&pool).await;
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();

    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO payments VALUES ('PAY-1')").execute(&mut *tx).await.unwrap();
    let started = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    let too_early = orchestrator.wait(&started).await;
    assert!(matches!(too_early, Err(SagaError::NotFound(_))), "{too_early:?}");
    assert_eq!(channel.orders.load(Ordering::SeqCst), 0);
    tx.commit().await.unwrap();

    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!((view.instance.status, view.instance.epoch), (Status::Completed, 1));
    orchestrator.drain().await.unwrap();
}

// proves: S-1
#[tokio::test]
async fn a_start_outside_of_a_transaction_whose_commit_fails_is_an_error_and_starts_nothing() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    // A copy of the tables whose journal a reader keeps from committing, which the store itself would refuse.
    let copy = folder.path().join("copy.db");
    sqlx::query("VACUUM INTO ?").bind(copy.to_str()).execute(&pool).await.unwrap();
    let options = SqliteConnectOptions::new().filename(&copy).journal_mode(SqliteJournalMode::Delete);
    let options = options.busy_timeout(Duration::ZERO);
    let copy = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let mut reader = copy.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM saga_heads").fetch_one(&mut *reader).await.unwrap();
    let started = orchestrator.start_in(&copy, "payment", "PAY-1", &"tea".to_owned()).await;
    assert!(started.is_err(), "{started:?}");
    reader.rollback().await.unwrap();
    let stored =
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM saga_heads").fetch_one(&copy).await.unwrap();
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn a_saga_whose_transaction_rolls_back_never_happens() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let started = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(matches!(orchestrator.wait(&started).await, Err(SagaError::NotFound(_))));
    assert!(orchestrator.get("payment", "PAY-1").await.unwrap().is_none());
    // The business id is free again.
    let outcome = orchestrator.run("payment", "PAY-1", &"coffee".to_owned()).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(channel.orders.load(Ordering::SeqCst), 1);
}

// proves: S-7
#[tokio::test]
async fn an_unattended_saga_runs() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let started = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.commit().await.unwrap();
    let _nobody_waits = started;
    channel.reached.notified().await;
    let again = orchestrator.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    assert_eq!(orchestrator.wait(&again).await.unwrap(), Outcome::Completed);
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);
}

// proves: S-2, S-7
#[test]
fn a_saga_interrupted_in_its_second_step_is_finished_by_the_next_start() {
    let folder = testkit::temp_dir();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let held = Arc::new(Channel { answers: Some(Semaphore::new(0)), ..Channel::default() });

    let first = runtime();
    first.block_on(async {
        let pool = pool(folder.path()).await;
        let orchestrator = builder(&pool, &held).await.start().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let started = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
        tx.commit().await.unwrap();
        let waiting = orchestrator.clone();
        tokio::spawn(async move { waiting.wait(&started).await });
        held.reached.notified().await;
        // The first step wrote nothing but its own row, and is seen all the same.
        let at = sqlx::query_scalar::<_, i64>("SELECT current_step FROM saga_instances");
        assert_eq!(at.fetch_one(&pool).await.unwrap(), 1);
        std::mem::drop(orchestrator);
    });
    // Every task of the worker ends where it is: no saga is released.
    first.shutdown_background();

    let channel = Arc::new(Channel::default());
    runtime().block_on(async {
        let pool = pool(folder.path()).await;
        let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
        let again = orchestrator.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
        assert!(again.existed());
        assert_eq!(orchestrator.wait(&again).await.unwrap(), Outcome::Completed);
        let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
        assert!(view.instance.epoch >= 2);
    });
    assert_eq!(held.orders.load(Ordering::SeqCst) + channel.orders.load(Ordering::SeqCst), 1);
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refused_charge_cancels_the_order_and_the_statements_of_operators_show_it() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    let outcome = orchestrator.run("payment", "PAY-20250124-123456", &"refused".to_owned()).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "CallPaymentChannel: card declined".into() });
    assert_eq!(channel.cancelled.load(Ordering::SeqCst), 1);

    let instances = sqlx::query("SELECT * FROM saga_instances ORDER BY created_at DESC LIMIT 10");
    assert_eq!(instances.fetch_all(&pool).await.unwrap().len(), 1);
    let joined = sqlx::query(
        "SELECT si.*, ss.* FROM saga_instances si LEFT JOIN saga_steps ss ON si.id = ss.saga_id
         WHERE si.business_id = 'PAY-20250124-123456' ORDER BY ss.step_order",
    );
    assert_eq!(joined.fetch_all(&pool).await.unwrap().len(), 2);
    assert_eq!(text(&pool, "SELECT status FROM saga_instances").await, "compensated");
    assert_eq!(
        text(&pool, "SELECT evidence FROM saga_steps WHERE step_order = 1").await,
        "cancelled order of refused"
    );
    let at = text(&pool, "SELECT compensated_at FROM saga_instances").await;
    assert!(at.starts_with("20") && at.len() == "2026-01-01 00:00:00.000".len(), "{at}");
}

// proves: S-5
#[tokio::test]
async fn a_hand_written_statement_cannot_mark_an_open_saga_compensated() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    assert_eq!(orchestrator.run("payment", "PAY-1", &"tea".to_owned()).await.unwrap(), Outcome::Completed);
    let lie = sqlx::query("UPDATE saga_heads SET status = 'compensated', unresolved = 1");
    let refused = lie.execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("proven_end"), "{refused}");
}

#[tokio::test]
async fn a_database_that_could_lose_a_commit_is_refused_with_the_remedy() {
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("fast.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let fast = SqlitePool::connect_with(options).await.unwrap();
    let error = SqliteStore::new(fast).await.unwrap_err();
    assert!(error.to_string().contains("SqliteSynchronous::Full"), "{error}");
    let memory = SqlitePool::connect("sqlite::memory:").await.unwrap();
    let error = SqliteStore::new(memory).await.unwrap_err();
    assert!(error.to_string().contains("must be wal"), "{error}");
}

// proves: S-7
#[tokio::test]
async fn a_wait_written_under_a_clock_a_day_ahead_does_not_last_that_day() {
    let folder = testkit::temp_dir();
    let pool = pool(folder.path()).await;
    let channel = Arc::new(Channel::default());
    let dead = builder(&pool, &channel).await.start().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    dead.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.commit().await.unwrap();
    drop(dead);
    // This is the row of a worker that died while the clock was ahead.
    sqlx::raw_sql(
        "UPDATE saga_heads SET run_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 day');
         UPDATE saga_workers SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '+86400 seconds'),
             expires_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '+86402 seconds')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let live = builder(&pool, &channel).await.lease(Duration::from_secs(2)).start().await.unwrap();
    while live.get("payment", "PAY-1").await.unwrap().unwrap().instance.status != Status::Completed {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn many_sagas_at_once_each_get_their_own_verdict() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.lease(Duration::from_secs(30)).start().await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..100 {
        let orchestrator = orchestrator.clone();
        let input = if n % 10 == 0 { "refused" } else { "tea" }.to_owned();
        running.spawn(async move { orchestrator.run("payment", &format!("PAY-{n}"), &input).await.unwrap() });
    }
    let outcomes = running.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Completed).count(), 90);
    assert_eq!(channel.charges.load(Ordering::SeqCst), 90);
    assert_eq!(channel.cancelled.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_saga_whose_rows_were_lost_is_paused_with_the_evidence_and_the_others_go_on() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    let orchestrator = builder(&pool, &channel).await.start().await.unwrap();
    assert_eq!(orchestrator.run("payment", "PAY-1", &"tea".to_owned()).await.unwrap(), Outcome::Completed);
    for damage in [
        "DELETE FROM saga_steps",
        "UPDATE saga_heads SET status = 'in_progress', current_step = 1, completed_at = NULL",
    ] {
        sqlx::query(damage).execute(&pool).await.unwrap();
    }
    let again = orchestrator.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    let outcome = orchestrator.wait(&again).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Paused { reason } if reason.contains("only 0 step rows are there")),
        "{outcome:?}"
    );
    assert_eq!(orchestrator.run("payment", "PAY-2", &"tea".to_owned()).await.unwrap(), Outcome::Completed);
    assert_eq!(channel.orders.load(Ordering::SeqCst), 2);
    // A saga that cannot be read can still be closed.
    orchestrator.operator("alice").abort("payment", "PAY-1", "settled by hand").await.unwrap();
    assert_eq!(text(&pool, "SELECT action || ' by ' || actor FROM saga_audit").await, "abort by alice");
}
