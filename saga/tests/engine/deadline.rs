//! Time limits and interruptions, in paused time: a saga that is too late, and one that is released while it waits.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::store::Record;
use probity_saga::testing::{FaultyStore, start_unattended};
use probity_saga::{
    Backoff, Cancelled, Evidence, Executed, ForwardStep, MemoryStore, Orchestrator, Outcome, Probe, Saga,
    SagaStep, Status, StepContext, StepError, StepPolicy, StepStatus,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// The other side of a step.
#[derive(Default)]
struct Other {
    calls: AtomicU32,
    asked: AtomicU32,
    undone: AtomicU32,
    /// This many calls are answered "later" first.
    busy: u32,
    /// Calls take this long.
    slow: Duration,
    /// The first call is never answered.
    silent: bool,
    applied: bool,
    wait: Option<Duration>,
    reached: Notify,
}

impl Other {
    async fn call(&self) -> Result<u32, StepError> {
        let before = self.calls.fetch_add(1, Ordering::SeqCst);
        self.reached.notify_one();
        sleep(self.slow).await;
        if self.silent && before == 0 {
            return Err(StepError::unknown("no answer"));
        }
        if before < self.busy { Err(StepError::retryable("busy")) } else { Ok(before) }
    }

    fn policy(&self) -> StepPolicy {
        let policy = StepPolicy::default().timeout(Duration::from_secs(3600)).not_idempotent();
        match self.wait {
            Some(wait) => policy.retries(Backoff::constant(5, wait)),
            None => policy,
        }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

struct Reserve(Arc<Other>);
impl SagaStep for Reserve {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        let before = cx.time_left();
        let answer = self.0.call().await;
        assert_eq!(before - cx.time_left(), self.0.slow, "of an hour");
        answer
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        self.0.undone.fetch_add(1, Ordering::SeqCst);
        Ok(Evidence::new("released"))
    }
    async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        Ok(if self.0.applied { Probe::Applied(7) } else { Probe::Unknown })
    }
    fn policy(&self) -> StepPolicy {
        self.0.policy()
    }
}

struct Pay(Arc<Other>);
impl ForwardStep for Pay {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Pay";
    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.call().await
    }
    fn policy(&self) -> StepPolicy {
        self.0.policy()
    }
}

struct Tell(Arc<Other>);
impl ForwardStep for Tell {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Tell";
    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.call().await
    }
    fn policy(&self) -> StepPolicy {
        self.0.policy()
    }
}

struct Stage {
    store: Arc<MemoryStore>,
    reserve: Arc<Other>,
    pay: Arc<Other>,
    tell: Arc<Other>,
}

impl Stage {
    fn of(reserve: Other, pay: Other) -> Self {
        Self { store: Arc::default(), reserve: Arc::new(reserve), pay: Arc::new(pay), tell: Arc::default() }
    }

    async fn worker(&self) -> Orchestrator {
        testkit::time_limit();
        let saga = Saga::named("payment")
            .deadline(Duration::from_secs(60))
            .step(Reserve(self.reserve.clone()))
            .pivot(Pay(self.pay.clone()))
            .step(Tell(self.tell.clone()))
            .build()
            .unwrap();
        Orchestrator::shared(self.store.clone()).register(saga).start().await.unwrap()
    }
}

async fn step_statuses(orchestrator: &Orchestrator) -> Vec<StepStatus> {
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    view.steps.iter().map(|step| step.status).collect()
}

const LATE: &str = "the deadline of the saga has passed";

// proves: S-3
#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_deadline_is_undone_and_nothing_new_is_executed() {
    let stage = Stage::of(Other { slow: Duration::from_secs(61), ..Other::default() }, Other::default());
    let orchestrator = stage.worker().await;
    let outcome = orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: LATE.into() });
    assert_eq!((stage.reserve.calls(), stage.pay.calls()), (1, 0));
    assert_eq!(stage.reserve.undone.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_attempt_ends_at_the_deadline() {
    let busy = Other { busy: 9, wait: Some(Duration::from_secs(9)), ..Other::default() };
    let stage = Stage::of(Other::default(), busy);
    let orchestrator = stage.worker().await;
    let begun = Instant::now();
    let never = Other { busy: 9, wait: Some(Duration::from_secs(3600)), ..Other::default() };
    let outcome = orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "Pay: busy".into() }, "the retries came first");

    // The wait ends far beyond the deadline: the saga is released for it, and turned back when it is due.
    let stage = Stage::of(Other::default(), never);
    let orchestrator = stage.worker().await;
    let outcome = orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: LATE.into() });
    assert_eq!(stage.pay.calls(), 1);
    assert!(begun.elapsed() < Duration::from_secs(130), "{:?}", begun.elapsed());
    assert_eq!(step_statuses(&orchestrator).await, [StepStatus::Compensated, StepStatus::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_for_the_next_attempt_ends_at_the_deadline() {
    let busy = Other {
        busy: 9,
        slow: Duration::from_secs(53),
        wait: Some(Duration::from_secs(9)),
        ..Other::default()
    };
    let stage = Stage::of(Other::default(), busy);
    let orchestrator = stage.worker().await;
    let begun = Instant::now();
    let outcome = orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: format!("Pay: busy; {LATE}") });
    assert_eq!((stage.pay.calls(), begun.elapsed().as_secs()), (1, 60), "not after the wait");
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_an_unknown_step_is_only_probed() {
    for applied in [true, false] {
        let silent = Other { silent: true, applied, slow: Duration::from_secs(61), ..Other::default() };
        let stage = Stage::of(silent, Other::default());
        let first = stage.worker().await;
        let _started = first.start("payment", "PAY-1", &1_u32).await.unwrap();
        stage.reserve.reached.notified().await;
        drop(first);
        sleep(Duration::from_secs(61)).await;

        let orchestrator = stage.worker().await;
        let again = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
        let outcome = orchestrator.wait(&again).await.unwrap();
        match applied {
            true => assert_eq!(outcome, Outcome::Compensated { reason: LATE.into() }),
            false => assert!(matches!(outcome, Outcome::Stuck { step: 1, .. }), "{outcome:?}"),
        }
        assert_eq!((stage.reserve.calls(), stage.pay.calls()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_timeout_never_ends() {
    struct Endless;
    impl ForwardStep for Endless {
        type Input = u32;
        type Output = u32;
        const NAME: &'static str = "Endless";
        async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
            assert!(cx.time_left() > Duration::from_secs(24 * 3600));
            Ok(*cx.input())
        }
        fn policy(&self) -> StepPolicy {
            StepPolicy::default().timeout(Duration::MAX)
        }
    }
    let saga = Saga::named("endless").deadline(Duration::MAX).pivot(Endless).build().unwrap();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    assert_eq!(orchestrator.run("endless", "E-1", &1_u32).await.unwrap(), Outcome::Completed);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn the_wait_until_a_saga_may_run_counts() {
    let slow = Other { slow: Duration::from_secs(600), ..Other::default() };
    let (stage, busy) = (Stage::of(slow, Other::default()), Stage::of(Other::default(), Other::default()));
    let saga = |name, stage: &Stage, deadline| {
        let saga =
            Saga::named(name).deadline(Duration::from_secs(deadline)).step(Reserve(stage.reserve.clone()));
        saga.build().unwrap()
    };
    let builder = Orchestrator::new(MemoryStore::new()).in_flight(1);
    let builder = builder.register(saga("busy", &stage, 3600)).register(saga("payment", &busy, 60));
    let orchestrator = builder.start().await.unwrap();
    let started = orchestrator.start("payment", "PAY-0", &1_u32).await.unwrap();
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let _busy = orchestrator.start("busy", "B-1", &1_u32).await.unwrap();
    let started = start_unattended(&orchestrator, "payment", "PAY-1", &1_u32).await.unwrap();
    let outcome = orchestrator.wait(&started).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: LATE.into() });
    assert_eq!(busy.reserve.calls(), 1, "executed ten minutes after its start");
}

#[tokio::test(start_paused = true)]
async fn past_the_pivot_a_late_saga_is_reported_and_goes_on() {
    let stage = Stage {
        tell: Arc::new(Other { slow: Duration::from_secs(100), ..Other::default() }),
        ..Stage::of(Other::default(), Other::default())
    };
    let orchestrator = stage.worker().await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(90)).await;
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!(view.instance.status, Status::Committing);
    assert_eq!(orchestrator.overdue(&view.instance).unwrap().as_secs(), 30);
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!(orchestrator.overdue(&view.instance), None);
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_waiting_saga_of_a_drained_worker_goes_on_with_its_next_attempt_and_no_probe() {
    let stage = Stage::of(Other::default(), Other { busy: 1, ..Other::default() });
    let first = stage.worker().await;
    let begun = Instant::now();
    let _started = first.start("payment", "PAY-1", &1_u32).await.unwrap();
    stage.pay.reached.notified().await;
    sleep(Duration::from_millis(500)).await;
    first.drain().await.unwrap();
    assert_eq!(step_statuses(&first).await, [StepStatus::Succeeded, StepStatus::Executing]);

    let next = stage.worker().await;
    let again = next.start("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(next.wait(&again).await.unwrap(), Outcome::Completed, "not stuck: nothing is unknown");
    assert_eq!(stage.pay.calls(), 2);
    assert!(begun.elapsed() >= Duration::from_secs(2), "the wait of two seconds was kept");
}

// proves: S-2
#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_in_an_attempt_after_a_wait_leaves_it_unknown() {
    let pay = Other { busy: 1, slow: Duration::from_secs(30), ..Other::default() };
    let stage = Stage::of(Other::default(), pay);
    let first = stage.worker().await;
    let _started = first.start("payment", "PAY-1", &1_u32).await.unwrap();
    stage.pay.reached.notified().await;
    sleep(Duration::from_millis(30_500)).await;
    first.drain().await.unwrap();

    let second = stage.worker().await;
    stage.pay.reached.notified().await;
    drop(second);

    let third = stage.worker().await;
    let again = third.start("payment", "PAY-1", &1_u32).await.unwrap();
    let outcome = third.wait(&again).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { step: 2, .. }), "{outcome:?}");
    assert_eq!(stage.pay.calls(), 2, "not idempotent, and without a probe: not called a third time");
}

#[tokio::test(start_paused = true)]
async fn a_worker_drained_between_two_steps_records_that_the_next_has_not_begun() {
    let stage = Stage::of(Other { slow: Duration::from_secs(1), ..Other::default() }, Other::default());
    let first = stage.worker().await;
    let _started = first.start("payment", "PAY-1", &1_u32).await.unwrap();
    stage.reserve.reached.notified().await;
    first.drain().await.unwrap();
    assert_eq!(stage.pay.calls(), 0);
    let next = stage.worker().await;
    let again = next.start("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(next.wait(&again).await.unwrap(), Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_holds_no_saga_in_memory() {
    let far = Other { busy: 1, wait: Some(Duration::from_secs(40)), ..Other::default() };
    let stage = Stage::of(far, Other::default());
    let orchestrator = stage.worker().await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!((view.instance.owner, view.instance.unresolved), (None, 0));
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    assert_eq!(stage.reserve.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_running_saga_is_seen_before_its_next_attempt() {
    for cancel in [true, false] {
        let far = Other {
            busy: 9,
            slow: Duration::from_secs(2),
            wait: Some(Duration::from_secs(3600)),
            ..Other::default()
        };
        let stage = Stage::of(Other::default(), far);
        let saga = Saga::named("payment").step(Reserve(stage.reserve.clone())).pivot(Pay(stage.pay.clone()));
        let builder = Orchestrator::shared(stage.store.clone()).register(saga.build().unwrap());
        let orchestrator = builder.start().await.unwrap();
        let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
        stage.pay.reached.notified().await;
        let (operator, begun) = (orchestrator.operator("ann"), Instant::now());
        if cancel {
            assert_eq!(operator.cancel("payment", "PAY-1", "left").await.unwrap(), Cancelled::Requested);
        } else {
            operator.pause("payment", "PAY-1", "look").await.unwrap();
        }
        let outcome = orchestrator.wait(&started).await.unwrap();
        assert_eq!(cancel, matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_cancel_is_recorded_as_too_late() {
    let stage = Stage::of(Other::default(), Other { slow: Duration::from_secs(5), ..Other::default() });
    let orchestrator = stage.worker().await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    stage.pay.reached.notified().await;
    let operator = orchestrator.operator("ann");
    let answer = operator.cancel("payment", "PAY-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    assert_eq!(view.instance.cancelled_too_late(), Some("cancel by ann: customer left"));
    assert!(operator.cancel("payment", "PAY-1", "again").await.is_err());

    let stage = Stage::of(Other { busy: 1, ..Other::default() }, Other::default());
    let orchestrator = stage.worker().await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    stage.reserve.reached.notified().await;
    orchestrator.operator("ann").pause("payment", "PAY-1", "look").await.unwrap();
    let outcome = timeout(Duration::from_secs(60), orchestrator.wait(&started)).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
    let answer = orchestrator.operator("ann").cancel("payment", "PAY-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::ForCertain);
}

// proves: S-2
#[tokio::test(start_paused = true)]
async fn a_pause_that_meets_an_announced_attempt_leaves_nothing_unknown() {
    testkit::time_limit();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let other = Arc::new(Other { busy: 1, wait: Some(Duration::from_secs(40)), ..Other::default() });
    let saga = Saga::named("payment").step(Reserve(other.clone())).build().unwrap();
    let orchestrator = Orchestrator::shared(store.clone() as _).register(saga).start().await.unwrap();
    let (announced, paused) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reached, go_on) = (announced.clone(), paused.clone());
    store.hook(move |seen| {
        let begins = |record: &Record| {
            record
                .change
                .steps
                .iter()
                .any(|row| row.status == StepStatus::Executing && row.retry_in.is_none())
        };
        let holds = (seen.answer.is_none() && seen.records.iter().any(begins)).then(|| go_on.clone());
        if holds.is_some() {
            reached.notify_one();
        }
        async move {
            if let Some(paused) = holds {
                paused.notified().await;
            }
            Ok(())
        }
    });
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    announced.notified().await;
    orchestrator.operator("ann").pause("payment", "PAY-1", "look").await.unwrap();
    paused.notify_one();
    let outcome = orchestrator.wait(&started).await.unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
    assert_eq!((other.calls(), step_statuses(&orchestrator).await), (1, vec![StepStatus::Executing]));
    paused.notify_one();
    orchestrator.operator("ann").resume("payment", "PAY-1", "seen").await.unwrap();
    let outcome = timeout(Duration::from_secs(60), orchestrator.wait(&started)).await.unwrap().unwrap();
    assert_eq!((outcome, other.calls()), (Outcome::Completed, 2), "it must not run twice, and did not");
}
