//! PostgreSQL: the caller's own transaction, two workers, and a server that goes away.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::store::{ClaimRequest, NewSaga, SagaStore, Worker, WorkerId};
use probity_saga::{
    Evidence, Executed, Orchestrator, OrchestratorBuilder, Outcome, PostgresStore, Saga, SagaError, SagaId,
    SagaStep, Status, StepContext, StepError, store::Document,
};
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};

#[derive(Default)]
struct Channel {
    charges: AtomicU32,
    undone: AtomicU32,
    reached: Notify,
    answers: Option<Semaphore>,
}

struct Reserve(Arc<Channel>);
impl SagaStep for Reserve {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        Ok(format!("reserved {}", cx.business_id()))
    }
    async fn compensate(
        &self,
        _: &StepContext<String>,
        done: Executed<String>,
    ) -> Result<Evidence, StepError> {
        self.0.undone.fetch_add(1, Ordering::SeqCst);
        Ok(Evidence::new(format!("released: {}", done.known().unwrap_or_default())))
    }
}

struct Charge(Arc<Channel>);
impl SagaStep for Charge {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        self.0.reached.notify_one();
        if let Some(answers) = &self.0.answers {
            answers.acquire().await?.forget();
        }
        match cx.input().as_str() {
            "refused" => Err(StepError::rejected("card\0declined")),
            "huge NUL" => Ok("\0".repeat(3)),
            _ => {
                self.0.charges.fetch_add(1, Ordering::SeqCst);
                Ok("charged".into())
            }
        }
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

async fn worker(url: &str, channel: &Arc<Channel>) -> Orchestrator {
    builder(url, channel).await.start().await.unwrap()
}

async fn builder(url: &str, channel: &Arc<Channel>) -> OrchestratorBuilder<PostgresStore> {
    testkit::time_limit();
    let saga =
        Saga::named("payment").step(Reserve(channel.clone())).step(Charge(channel.clone())).build().unwrap();
    let store = PostgresStore::new(PgPool::connect(url).await.unwrap()).await.unwrap();
    let builder = Orchestrator::new(store).lease(Duration::from_secs(2)).poll(Duration::from_millis(50));
    builder.register(saga)
}

#[tokio::test]
async fn a_saga_starts_with_the_callers_row_or_not_at_all() {
    let database = testkit::Postgres::shared().database();
    let (pool, channel) = (PgPool::connect(database.url()).await.unwrap(), Arc::new(Channel::default()));
    let orchestrator = worker(database.url(), &channel).await;
    sqlx::query("CREATE TABLE payments (payment_no text PRIMARY KEY)").execute(&pool).await.unwrap();

    let mut tx = pool.begin().await.unwrap();
    let lost = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(matches!(orchestrator.wait(&lost).await, Err(SagaError::NotFound(_))));

    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO payments VALUES ('PAY-1')").execute(&mut *tx).await.unwrap();
    let started = orchestrator.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);

    let instances = sqlx::query("SELECT * FROM saga_instances ORDER BY created_at DESC LIMIT 10");
    assert_eq!(instances.fetch_all(&pool).await.unwrap().len(), 1);
    let joined = sqlx::query(
        "SELECT si.*, ss.* FROM saga_instances si LEFT JOIN saga_steps ss ON si.id = ss.saga_id
         WHERE si.business_id = 'PAY-1' ORDER BY ss.step_order",
    );
    assert_eq!(joined.fetch_all(&pool).await.unwrap().len(), 2);
    orchestrator.drain().await.unwrap();
}

#[tokio::test]
async fn reasons_and_outputs_with_nul_are_stored_and_spoil_nothing() {
    let database = testkit::Postgres::shared().database();
    let channel = Arc::new(Channel::default());
    let orchestrator = worker(database.url(), &channel).await;
    let refused = orchestrator.run("payment", "PAY-1", &"refused".to_owned()).await.unwrap();
    assert!(matches!(refused, Outcome::Compensated { .. }), "{refused:?}");
    let outcome = orchestrator.run("payment", "PAY-2", &"huge NUL".to_owned()).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(channel.undone.load(Ordering::SeqCst), 1);
}

// proves: S-6, S-7
#[tokio::test]
async fn a_second_worker_takes_over_and_the_first_can_write_no_more() {
    let database = testkit::Postgres::shared().database();
    let slow = Arc::new(Channel { answers: Some(Semaphore::new(0)), ..Channel::default() });
    let fast = Arc::new(Channel::default());
    // Its only saga takes all its room, so it cannot find it again by itself.
    let first = builder(database.url(), &slow).await.in_flight(1).start().await.unwrap();
    let _started = first.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    slow.reached.notified().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    // The first step wrote nothing but its own row, and is seen all the same.
    let at = sqlx::query_scalar::<_, i32>("SELECT current_step FROM saga_instances");
    assert_eq!(at.fetch_one(&pool).await.unwrap(), 1);

    // This is the state after a pause longer than its lease: other workers find no living owner.
    sqlx::query("UPDATE saga_heads SET owner_id = gen_random_uuid()").execute(&pool).await.unwrap();
    let second = worker(database.url(), &fast).await;
    let again = second.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    assert_eq!(second.wait(&again).await.unwrap(), Outcome::Completed);

    let before = second.get("payment", "PAY-1").await.unwrap().unwrap().instance;
    slow.answers.as_ref().unwrap().add_permits(1);
    let charged = async {
        while slow.charges.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), charged).await.unwrap();
    first.drain().await.unwrap();
    let after = second.get("payment", "PAY-1").await.unwrap().unwrap().instance;
    assert_eq!((after.status, after.row_version), (Status::Completed, before.row_version));
}

#[tokio::test]
async fn sagas_survive_a_server_that_is_killed_and_restarted() {
    let mut server = testkit::Postgres::start();
    let url = server.url().to_owned();
    let channel = Arc::new(Channel { answers: Some(Semaphore::new(0)), ..Channel::default() });
    let orchestrator = worker(&url, &channel).await;
    let started = orchestrator.start("payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    channel.reached.notified().await;
    server.kill9();
    channel.answers.as_ref().unwrap().add_permits(10);
    server.restart();
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!(view.steps.len(), 2);
}

/// From here on a claim stops before it judges the lease of a dead worker, with its view of the
/// workers already taken, until the advisory lock is free.
const SLOW_JUDGEMENT: &str = "
    ALTER TABLE saga_workers RENAME TO real_workers;
    CREATE FUNCTION judged(expiry timestamptz) RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN expiry; END $$;
    CREATE VIEW saga_workers AS
        SELECT worker_id, heartbeat_at, judged(expires_at) AS expires_at FROM real_workers;";

// proves: S-7
#[tokio::test]
async fn a_wait_written_under_a_clock_a_day_ahead_does_not_last_that_day() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPool::connect(database.url()).await.unwrap();
    let channel = Arc::new(Channel::default());
    let dead = worker(database.url(), &channel).await;
    let mut tx = pool.begin().await.unwrap();
    dead.start_in(&mut *tx, "payment", "PAY-1", &"tea".to_owned()).await.unwrap();
    tx.commit().await.unwrap();
    drop(dead);
    // This is the row of a worker that died while the clock was ahead.
    sqlx::raw_sql(
        "UPDATE saga_heads SET run_at = clock_timestamp() + interval '1 day';
         UPDATE saga_workers SET heartbeat_at = clock_timestamp() + interval '1 day',
             expires_at = clock_timestamp() + interval '1 day 2 seconds'",
    )
    .execute(&pool)
    .await
    .unwrap();
    let live = worker(database.url(), &channel).await;
    while live.get("payment", "PAY-1").await.unwrap().unwrap().instance.status != Status::Completed {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1);
}

// proves: S-7
#[tokio::test]
async fn a_slow_claim_does_not_take_the_saga_of_a_worker_that_began_after_it() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPool::connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let (dead, fresh, slow) = (WorkerId::generate(), WorkerId::generate(), WorkerId::generate());
    let new = NewSaga {
        id: SagaId::generate(),
        saga_type: "payment".into(),
        business_id: "PAY-1".into(),
        definition: "v1".into(),
        input: Document::encode("tea").unwrap(),
        input_hash: "hash".into(),
        owner: dead,
        trace: None,
    };
    let _ = store.insert(std::slice::from_ref(&new)).await.unwrap();
    let expired = "INSERT INTO saga_workers (worker_id, pid, heartbeat_at, expires_at)
        VALUES ($1::uuid, 1, now() - interval '1 minute', now() - interval '30 seconds')";
    sqlx::query(expired).bind(dead.to_string()).execute(&pool).await.unwrap();
    let lives = Worker { id: slow, lease: Duration::from_secs(3600), pid: 1 };
    let _first = store.heartbeat(&lives).await.unwrap();
    sqlx::raw_sql(SLOW_JUDGEMENT).execute(&pool).await.unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(7)").execute(&mut *holder).await.unwrap();

    let claiming = {
        let request = ClaimRequest {
            worker: slow,
            runnable: vec![("payment".into(), "v1".into())],
            own: Vec::new(),
            limit: 10,
            stalled_max: 5,
            suspect_at: 2,
            suspects: 1,
        };
        let store = store.clone();
        tokio::spawn(async move { store.claim(&request).await })
    };
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
        assert!(!claiming.is_finished(), "the claim did not look at the workers");
        tokio::task::yield_now().await;
    }

    // At the same time a new worker sends a heartbeat and claims.
    let beats = "INSERT INTO real_workers (worker_id, pid, heartbeat_at, expires_at)
        VALUES ($1::uuid, 2, now(), now() + interval '1 hour')";
    sqlx::query(beats).bind(fresh.to_string()).execute(&pool).await.unwrap();
    let claims = "UPDATE saga_heads SET owner_id = $1::uuid, lease_epoch = lease_epoch + 1,
        row_version = row_version + 1";
    sqlx::query(claims).bind(fresh.to_string()).execute(&pool).await.unwrap();
    holder.rollback().await.unwrap();

    let claimed = claiming.await.unwrap().unwrap();
    assert!(claimed.is_empty(), "taken from a living worker");
    let instance = store.load(&[new.id]).await.unwrap().remove(0).instance;
    assert_eq!((instance.owner, instance.epoch), (Some(fresh), 2));
}
