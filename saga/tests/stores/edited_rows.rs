//! Step rows that are deleted and changed by hand while no worker drives their saga.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::{
    Evidence, Executed, LocalStep, Orchestrator, Outcome, Probe, Saga, SagaStep, SqliteStore, Started,
    StepContext, StepError, StepPolicy,
};
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Take;
impl LocalStep<Sqlite> for Take {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Take";
    async fn execute(&self, cx: &StepContext<u32>, tx: &mut SqliteConnection) -> Result<(), StepError> {
        let row = sqlx::query("INSERT INTO taken (business_id) VALUES (?1)").bind(cx.business_id());
        row.execute(tx).await?;
        Ok(())
    }
    async fn compensate(
        &self,
        _: &StepContext<u32>,
        (): (),
        _: &mut SqliteConnection,
    ) -> Result<Evidence, StepError> {
        Ok(Evidence::new("given back"))
    }
}

#[derive(Default)]
struct Channel {
    reserved: AtomicU32,
    asked: AtomicU32,
    packed: AtomicU32,
    hold: AtomicBool,
    reached: Notify,
}

struct Reserve(Arc<Channel>);
impl SagaStep for Reserve {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Reserve";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        self.0.reserved.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("released"))
    }
    async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<()>, StepError> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let there = self.0.reserved.load(Ordering::SeqCst) > 0;
        Ok(if there { Probe::Applied(()) } else { Probe::NotSeenYet })
    }
}

/// Must not run twice, and has no probe.
struct Pack(Arc<Channel>);
impl SagaStep for Pack {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pack";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        self.0.packed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("unpacked"))
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

/// Never ends while the channel holds it.
struct Ship(Arc<Channel>);
impl SagaStep for Ship {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Ship";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        if self.0.hold.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("fetched back"))
    }
}

async fn pool(folder: &std::path::Path) -> SqlitePool {
    testkit::time_limit();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("sagas.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE taken (business_id TEXT NOT NULL)").execute(&pool).await.unwrap();
    pool
}

async fn worker(pool: &SqlitePool, channel: &Arc<Channel>) -> Orchestrator {
    let two = Saga::named("two").local_step(Take).step(Ship(Arc::clone(channel)));
    let three = Saga::named("three").local_step(Take).step(Reserve(Arc::clone(channel)));
    let three = three.step(Ship(Arc::clone(channel)));
    let four = Saga::named("four").local_step(Take).step(Reserve(Arc::clone(channel)));
    let four = four.step(Pack(Arc::clone(channel))).step(Ship(Arc::clone(channel)));
    let builder = Orchestrator::new(SqliteStore::new(pool.clone()).await.unwrap());
    let builder = builder.lease(Duration::from_secs(30)).poll(Duration::from_millis(50));
    let builder = builder.register(two.build().unwrap()).register(three.build().unwrap());
    builder.register(four.build().unwrap()).start().await.unwrap()
}

/// A worker dies in the last step of a saga, its rows are edited, and the next worker takes the saga over.
async fn edited(
    saga: &str,
    edit: &'static str,
) -> (SqlitePool, Arc<Channel>, Orchestrator, Started, impl Sized) {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path()).await, Arc::new(Channel::default()));
    channel.hold.store(true, Ordering::SeqCst);
    let dies = worker(&pool, &channel).await;
    let _started = dies.start(saga, "O-1", &1_u32).await.unwrap();
    timeout(PATIENCE, channel.reached.notified()).await.unwrap();
    sqlx::query("UPDATE saga_workers SET expires_at = '2000-01-01 00:00:00.000'")
        .execute(&pool)
        .await
        .unwrap();
    drop(dies);
    sqlx::raw_sql(edit).execute(&pool).await.unwrap();
    channel.hold.store(false, Ordering::SeqCst);
    let next = worker(&pool, &channel).await;
    let again = next.start(saga, "O-1", &1_u32).await.unwrap();
    (pool, channel, next, again, folder)
}

async fn outcome(orchestrator: &Orchestrator, started: &Started) -> Outcome {
    timeout(PATIENCE, orchestrator.wait(started)).await.unwrap().unwrap()
}

async fn taken(pool: &SqlitePool) -> i64 {
    let taken = sqlx::query_scalar("SELECT count(*) FROM taken WHERE business_id = 'O-1'");
    taken.fetch_one(pool).await.unwrap()
}

// proves: S-8
#[tokio::test]
async fn a_local_step_edited_to_unknown_parks_its_saga_and_the_others_go_on() {
    let edit = "UPDATE saga_steps SET status = 'unknown' WHERE step_order = 1";
    let (pool, _channel, orchestrator, started, _folder) = edited("two", edit).await;
    let Outcome::Paused { reason } = outcome(&orchestrator, &started).await else { panic!("not noticed") };
    assert!(reason.contains("step 1 (Take) is local"), "{reason}");
    assert_eq!(taken(&pool).await, 1);
    assert_eq!(orchestrator.run("two", "O-2", &1_u32).await.unwrap(), Outcome::Completed);
}

/// A step forward writes its own row and nothing else, so a last row that was deleted leaves no trace. To the next
/// worker its step may have begun: it is asked about before it runs again.
#[tokio::test]
async fn a_step_whose_last_row_was_deleted_is_probed_before_it_runs_again() {
    let edit = "DELETE FROM saga_steps WHERE step_order = 2";
    let (_pool, channel, orchestrator, started, _folder) = edited("three", edit).await;
    assert_eq!(outcome(&orchestrator, &started).await, Outcome::Completed);
    assert_eq!(channel.asked.load(Ordering::SeqCst), 1);
    assert_eq!(channel.reserved.load(Ordering::SeqCst), 1);
}

/// The second deleted row is not noticed: once the first step is settled, the next one looks new. Therefore rows must not be deleted by hand.
#[tokio::test]
async fn of_two_deleted_last_rows_only_the_step_of_the_first_is_probed() {
    let edit = "DELETE FROM saga_steps WHERE step_order IN (2, 3)";
    let (_pool, channel, orchestrator, started, _folder) = edited("four", edit).await;
    assert_eq!(outcome(&orchestrator, &started).await, Outcome::Completed);
    assert_eq!(channel.asked.load(Ordering::SeqCst), 1);
    assert_eq!(channel.reserved.load(Ordering::SeqCst), 1);
    assert_eq!(channel.packed.load(Ordering::SeqCst), 2);
}

/// A local step writes its saga's row as well, which says how far it was.
#[tokio::test]
async fn a_deleted_row_of_a_local_step_is_noticed_and_the_step_does_not_run_again() {
    let edit = "DELETE FROM saga_steps WHERE step_order = 1";
    for (saga, evidence) in [
        ("two", "it is at step 1, but only 0 step rows are there"),
        ("three", "the row of step 1 is missing"),
    ] {
        let (pool, _channel, orchestrator, started, _folder) = edited(saga, edit).await;
        let Outcome::Paused { reason } = outcome(&orchestrator, &started).await else {
            panic!("not noticed")
        };
        assert!(reason.contains(evidence), "{reason}");
        assert_eq!(taken(&pool).await, 1);
        assert_eq!(orchestrator.run(saga, "O-2", &1_u32).await.unwrap(), Outcome::Completed);
    }
}
