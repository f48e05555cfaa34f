//! A database that local steps cannot use while the worker can: they wait as steps of a provider that is away.

use std::sync::Arc;
use std::time::Duration;

use probity_saga::testing::{Call, FaultyStore, Side};
use probity_saga::{Backoff, Orchestrator, Outcome, Saga, SagaView, StepPolicy, StepStatus};
use tokio::sync::watch;
use tokio::time::timeout;

use super::scenarios::sqlite::{Ship, Take, effects, take};
use super::script::{Fate, Script, soon};
use super::stores;

/// Beyond this only a defect takes so long.
const DEFECT: Duration = Duration::from_secs(20);

/// Longer than a test lasts, and short enough to be waited for in memory.
const LONG: Duration = Duration::from_secs(9);

struct Stage {
    pool: sqlx::SqlitePool,
    store: Arc<FaultyStore>,
    orchestrator: Orchestrator,
    /// The number of transactions that were asked for.
    begins: watch::Receiver<u32>,
    step: &'static Script,
    _folder: Box<dyn std::any::Any>,
}

/// No transaction of a local step begins.
async fn stage(policy: StepPolicy) -> Stage {
    let (pool, store, folder) = stores::sqlite().await;
    let store = Arc::new(FaultyStore::new(Arc::new(store)));
    let (begun, begins) = watch::channel(0);
    store.hook(move |seen| {
        if seen.call == Call::Begin && seen.answer.is_none() {
            begun.send_modify(|count| *count += 1);
        }
        async { Ok(()) }
    });
    store.fail_each(Call::Begin, Side::Away(Duration::ZERO));
    let step = Script::of([]);
    let take = Take { policy, ..take(step, Script::of([])) };
    let saga = Saga::named("order").local_step(take).step(Ship { refuses: false }).build().unwrap();
    let builder = Orchestrator::shared(store.clone() as _).poll(Duration::from_millis(20));
    let orchestrator = builder.grace(Duration::from_secs(3600)).register(saga).start().await.unwrap();
    Stage { pool, store, orchestrator, begins, step, _folder: Box::new(folder) }
}

fn patient(wait: Duration) -> StepPolicy {
    soon().patience(Backoff::constant(10, wait))
}

impl Stage {
    async fn reach(&mut self, begins: u32) {
        timeout(DEFECT, self.begins.wait_for(|count| *count >= begins)).await.unwrap().unwrap();
    }

    async fn view(&self) -> SagaView {
        self.orchestrator.get("order", "O-1").await.unwrap().unwrap()
    }
}

// proves: S-8
#[tokio::test]
async fn a_request_is_seen_while_a_local_step_waits_for_its_database() {
    for turns_back in [true, false] {
        let mut stage = stage(patient(LONG)).await;
        let started = stage.orchestrator.start("order", "O-1", &1_u32).await.unwrap();
        stage.reach(1).await;
        let operator = stage.orchestrator.operator("ann");
        if turns_back {
            let _requested = operator.cancel("order", "O-1", "never mind").await.unwrap();
        } else {
            operator.pause("order", "O-1", "look").await.unwrap();
        }
        let outcome = timeout(DEFECT, stage.orchestrator.wait(&started)).await.unwrap().unwrap();
        let expected = match &outcome {
            Outcome::Compensated { .. } => turns_back,
            Outcome::Paused { .. } => !turns_back,
            _ => false,
        };
        assert!(expected, "{outcome:?}");
        assert_eq!((*stage.begins.borrow(), stage.step.calls()), (1, 0), "the request ended the wait");
    }
}

#[tokio::test]
async fn a_worker_that_drains_does_not_wait_for_the_database_of_a_local_step() {
    let mut stage = stage(patient(LONG)).await;
    let _started = stage.orchestrator.start("order", "O-1", &1_u32).await.unwrap();
    stage.reach(1).await;
    timeout(DEFECT, stage.orchestrator.drain()).await.unwrap().unwrap();
    let view = stage.view().await;
    assert!(view.instance.owner.is_none(), "{view:?}");
    assert_eq!((*stage.begins.borrow(), stage.step.calls()), (1, 0));
}

#[tokio::test]
async fn a_local_step_that_waits_long_is_released_and_its_row_names_the_database() {
    let mut stage = stage(patient(Duration::from_secs(3600))).await;
    let started = stage.orchestrator.start("order", "O-1", &1_u32).await.unwrap();
    stage.reach(1).await;
    let waits = async {
        loop {
            let view = stage.view().await;
            if view.instance.owner.is_none() {
                return view;
            }
            tokio::task::yield_now().await;
        }
    };
    let view = timeout(DEFECT, waits).await.unwrap();
    let row = &view.steps[0];
    assert_eq!(row.status, StepStatus::Executing);
    assert!(
        row.error.as_deref().is_some_and(|error| error.starts_with("waits for its database: ")),
        "{row:?}"
    );
    let _requested = stage.orchestrator.operator("ann").cancel("order", "O-1", "never mind").await.unwrap();
    let outcome = timeout(DEFECT, stage.orchestrator.wait(&started)).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
}

#[tokio::test]
async fn a_database_that_comes_back_costs_no_retry_of_a_local_step() {
    let policy = patient(Duration::from_millis(20)).retries(Backoff::never());
    let mut stage = stage(policy).await;
    let started = stage.orchestrator.start("order", "O-1", &1_u32).await.unwrap();
    stage.reach(4).await;
    stage.store.mend();
    let outcome = timeout(DEFECT, stage.orchestrator.wait(&started)).await.unwrap().unwrap();
    assert_eq!((outcome, stage.step.calls()), (Outcome::Completed, 1));
    assert_eq!(effects(&stage.pool, "O-1").await, ["Take"]);
}

// proves: S-8
#[tokio::test]
async fn a_local_step_waits_for_its_database_as_long_as_its_policy_says() {
    let wait = Duration::from_millis(5);
    let policy = soon().retries(Backoff::constant(1, wait)).patience(Backoff::constant(3, wait));
    let stage = stage(policy).await;
    let run = timeout(DEFECT, stage.orchestrator.run("order", "O-1", &1_u32)).await;
    let Outcome::Compensated { reason } = run.unwrap().unwrap() else { panic!("nothing happened") };
    assert!(reason.contains("waits for its database"), "{reason}");
    // The first, three by patience, and one by the retries.
    assert_eq!((*stage.begins.borrow(), stage.step.calls()), (5, 0));
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// proves: S-12
#[tokio::test]
async fn a_worker_that_loses_its_saga_after_a_stated_effect_names_the_effect_in_an_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _until_the_end = tracing::subscriber::set_default(subscriber);
    let (pool, store, _folder) = stores::sqlite().await;
    let store = FaultyStore::new(Arc::new(store));
    let once = std::sync::atomic::AtomicBool::new(true);
    let takes = pool.clone();
    // Another worker takes the saga before the step begins its transaction.
    store.hook(move |seen| {
        let first = seen.call == Call::Begin && once.swap(false, std::sync::atomic::Ordering::SeqCst);
        let takes = first.then(|| takes.clone());
        async move {
            if let Some(pool) = takes {
                let take = "UPDATE saga_heads SET lease_epoch = lease_epoch + 1";
                sqlx::raw_sql(take).execute(&pool).await.unwrap();
            }
            Ok(())
        }
    });
    let does = Script::of([Fate::WorksOutside]);
    let saga = Saga::named("order").local_step(take(does, Script::of([]))).build().unwrap();
    let builder = Orchestrator::shared(Arc::new(store) as _).poll(Duration::from_millis(20));
    let orchestrator = builder.register(saga).start().await.unwrap();
    let run = timeout(DEFECT, orchestrator.run("order", "O-1", &1_u32)).await;
    assert_eq!((run.unwrap().unwrap(), does.calls()), (Outcome::Completed, 2));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("mail m-1")), "{log}");
}
