//! Rows edited by hand, steps that block, and a clock that jumps: that saga is parked with the evidence, or goes on;
//! other sagas are not affected.
#![cfg(feature = "sqlite")]
#![cfg_attr(feature = "sqlite", expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use probity_saga::{
    Backoff, Evidence, Executed, ListFilter, Orchestrator, Outcome, Saga, SagaStep, SqliteStore, StepContext,
    StepError, StepPolicy,
};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Beyond this only a defect takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    calls: AtomicU32,
    reached: Notify,
    blocked: Barrier,
}

struct Reserve;
impl SagaStep for Reserve {
    type Input = String;
    type Output = u32;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, _: &StepContext<String>) -> Result<u32, StepError> {
        Ok(7)
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("released"))
    }
}

/// Waits for an hour the first time it is told to, so that the test can edit the rows.
struct Charge(Arc<World>);
impl SagaStep for Charge {
    type Input = String;
    type Output = u32;
    const NAME: &'static str = "Charge";
    const USES: &'static [&'static str] = &[Reserve::NAME];
    async fn execute(&self, cx: &StepContext<String>) -> Result<u32, StepError> {
        match cx.input().as_str() {
            "later" if cx.attempt() == 1 => return Err(StepError::retryable("later")),
            "block" => {
                self.0.reached.notify_one();
                self.0.blocked.wait(); // the whole thread waits here
            }
            _ => {}
        }
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        cx.output::<Reserve, _>()
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().retries(Backoff::constant(3, Duration::from_secs(3600)))
    }
}

async fn stage() -> (SqlitePool, Arc<World>, Orchestrator, testkit::TempDir) {
    testkit::time_limit();
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("sagas.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let world =
        Arc::new(World { calls: AtomicU32::new(0), reached: Notify::new(), blocked: Barrier::new(2) });
    let saga = Saga::named("payment").step(Reserve).step(Charge(world.clone())).build().unwrap();
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    let builder = Orchestrator::new(store).poll(Duration::from_millis(50));
    (pool, world, builder.register(saga).start().await.unwrap(), folder)
}

// proves: S-7, S-8
#[tokio::test]
async fn a_saga_whose_rows_were_edited_is_parked_with_the_evidence_and_the_others_go_on() {
    let (pool, world, orchestrator, _folder) = stage().await;
    let edits = [
        ("UPDATE saga_heads SET input = '[1' WHERE business_id = ?1", "the stored input cannot be read: "),
        (
            "UPDATE saga_steps SET result = '\"seven\"' WHERE step_order = 1 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "the stored output of Reserve cannot be read: a value of another type",
        ),
        (
            "DELETE FROM saga_steps WHERE step_order = 1 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "the row of step 1 is missing",
        ),
        (
            "UPDATE saga_steps SET step_name = 'Other' WHERE step_order = 1 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "step 1 is \"Other\", expected \"Reserve\"",
        ),
        (
            "UPDATE saga_steps SET step_order = 9 WHERE step_order = 2 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "step 9 (Charge) is beyond the definition",
        ),
        (
            "UPDATE saga_steps SET retry_count = -1 WHERE step_order = 2 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "the row of a step: error occurred while decoding column retry_count",
        ),
        ("UPDATE saga_heads SET unresolved = 'two' WHERE business_id = ?1", "unresolved"),
        (
            "DELETE FROM saga_steps WHERE step_order = 2 AND saga_id = (SELECT id FROM saga_heads WHERE business_id = ?1)",
            "it is at step 2, but only 1 step rows are there",
        ),
    ];
    for (at, (edit, evidence)) in edits.into_iter().enumerate() {
        let business_id = format!("PAY-{at}");
        let started = orchestrator.start("payment", &business_id, &"later".to_owned()).await.unwrap();
        let waits = "SELECT count(*) FROM saga_heads WHERE business_id = ?1 AND owner_id IS NULL";
        let rests = async {
            while sqlx::query_scalar::<_, i64>(waits).bind(&business_id).fetch_one(&pool).await.unwrap() == 0
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, rests).await.unwrap();
        sqlx::query(edit).bind(&business_id).execute(&pool).await.unwrap();
        let due = "UPDATE saga_heads SET run_at = '2000-01-01 00:00:00.000' WHERE business_id = ?1";
        sqlx::query(due).bind(&business_id).execute(&pool).await.unwrap();
        let ended = timeout(PATIENCE, orchestrator.wait(&started)).await;
        let Ok(Ok(Outcome::Paused { reason })) = ended else { panic!("{edit} was not noticed: {ended:?}") };
        assert!(reason.contains(evidence), "{edit}: {reason}");
    }
    // An unreadable saga is visible, stays where it is, and can be closed.
    assert_eq!(orchestrator.list(&ListFilter::default()).await.unwrap().len(), 8);
    let view = orchestrator.get("payment", "PAY-5").await.unwrap().unwrap();
    assert!(view.instance.unreadable.is_some_and(|what| what.contains("retry_count")));
    let operator = orchestrator.operator("ann");
    let refused = operator.resume("payment", "PAY-5", "again").await.unwrap_err();
    assert!(refused.to_string().contains("retry_count"), "{refused}");
    operator.abort("payment", "PAY-5", "settled by hand").await.unwrap();
    let good = orchestrator.run("payment", "GOOD", &"now".to_owned()).await.unwrap();
    assert_eq!(good, Outcome::Completed);
    // Only the unreadable output is seen from inside the step; nothing else was run.
    assert_eq!(world.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_blocks_its_thread_delays_only_its_own_saga() {
    let (_pool, world, orchestrator, _folder) = stage().await;
    let blocked = orchestrator.start("payment", "PAY-1", &"block".to_owned()).await.unwrap();
    world.reached.notified().await;
    assert_eq!(orchestrator.run("payment", "PAY-2", &"now".to_owned()).await.unwrap(), Outcome::Completed);
    tokio::task::spawn_blocking(move || world.blocked.wait()).await.unwrap();
    assert_eq!(orchestrator.wait(&blocked).await.unwrap(), Outcome::Completed);
}

// proves: S-6
#[tokio::test]
async fn a_worker_whose_clock_jumps_an_hour_loses_and_repeats_nothing() {
    let (_pool, world, orchestrator, _folder) = stage().await;
    let mut started = Vec::new();
    for number in 0..20 {
        let business_id = format!("PAY-{number}");
        started.push(orchestrator.start("payment", &business_id, &"now".to_owned()).await.unwrap());
        if number == 10 {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(3600)).await;
            tokio::time::resume();
        }
    }
    for started in &started {
        assert_eq!(orchestrator.wait(started).await.unwrap(), Outcome::Completed);
    }
    assert_eq!(
        world.calls.load(Ordering::SeqCst),
        20,
        "the store's clock did not jump: nobody took them over"
    );
}
