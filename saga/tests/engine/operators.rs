//! Decisions of operators about failed sagas: each saga can be brought to an end.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::codec::{Codec, CodecError, Place};
use probity_saga::testing::start_unattended;
use probity_saga::{
    Backoff, Cancelled, Evidence, Executed, MemoryStore, Orchestrator, Outcome, Resolution, Saga, SagaError,
    SagaStep, Status, StepContext, StepError, StepPolicy, StepStatus,
};
use tokio::time::{sleep, timeout};

type Execute = Arc<dyn Fn() -> Result<u32, StepError> + Send + Sync>;
type Undo = Arc<dyn Fn() -> Result<Evidence, StepError> + Send + Sync>;

macro_rules! told {
    ($name:ident) => {
        struct $name {
            execute: Execute,
            undo: Undo,
            policy: StepPolicy,
            takes: Duration,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    execute: Arc::new(|| Ok(1)),
                    undo: Arc::new(|| Ok(Evidence::new("undone"))),
                    policy: StepPolicy::default(),
                    takes: Duration::ZERO,
                }
            }
        }

        impl SagaStep for $name {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = stringify!($name);

            async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
                sleep(self.takes).await;
                (self.execute)()
            }

            async fn compensate(
                &self,
                _: &StepContext<u32>,
                _: Executed<u32>,
            ) -> Result<Evidence, StepError> {
                (self.undo)()
            }

            fn policy(&self) -> StepPolicy {
                self.policy.clone()
            }
        }
    };
}

told!(First);
told!(Second);

fn refusing() -> Second {
    Second { execute: Arc::new(|| Err(StepError::rejected("card declined"))), ..Second::default() }
}

async fn with(saga: Saga) -> Orchestrator {
    testkit::time_limit();
    Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap()
}

async fn steps(orchestrator: &Orchestrator) -> (Status, Vec<StepStatus>) {
    let view = orchestrator.get("p", "1").await.unwrap().unwrap();
    (view.instance.status, view.steps.iter().map(|step| step.status).collect())
}

async fn end(orchestrator: &Orchestrator) -> Outcome {
    let started = orchestrator.start("p", "1", &1_u32).await.unwrap();
    orchestrator.wait(&started).await.unwrap()
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_step_whose_undo_is_fatal_is_settled_by_a_person() {
    let first =
        First { undo: Arc::new(|| Err(StepError::fatal("cannot read its output"))), ..First::default() };
    let p = with(Saga::named("p").step(first).step(refusing()).build().unwrap()).await;
    let outcome = p.run("p", "1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
    let ann = p.operator("ann");
    ann.resolve_step("p", "1", 1, Resolution::Compensated, "refund 77 in the ledger").await.unwrap();
    let outcome = end(&p).await;
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("card declined")),
        "{outcome:?}"
    );
    assert_eq!(steps(&p).await.1, [StepStatus::Compensated, StepStatus::Failed]);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn an_operators_output_of_another_type_is_refused_and_the_right_one_accepted() {
    let first = First {
        execute: Arc::new(|| Err(StepError::unknown("connection reset"))),
        policy: StepPolicy::default().not_idempotent(),
        ..First::default()
    };
    let p = with(Saga::named("p").step(first).step(Second::default()).build().unwrap()).await;
    let outcome = p.run("p", "1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    let ann = p.operator("ann");
    let wrong = Resolution::applied(&"charge-1").unwrap();
    let refused = ann.resolve_step("p", "1", 1, wrong, "ledger").await;
    let said = format!("{:?}", refused.unwrap_err());
    assert!(said.contains("not one of First"), "{said}");
    ann.resolve_step("p", "1", 1, Resolution::applied(&1_u32).unwrap(), "ledger").await.unwrap();
    assert_eq!(end(&p).await, Outcome::Completed);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_saga_without_a_registered_definition_can_be_paused_and_closed() {
    let store = Arc::new(MemoryStore::new());
    let old = Saga::named("p").step(First::default()).build().unwrap();
    let old = Orchestrator::shared(store.clone()).register(old).start().await.unwrap();
    start_unattended(&old, "p", "1", &1_u32).await.unwrap();
    old.drain().await.unwrap();
    let new = Saga::named("p").version(2).step(First::default()).step(Second::default()).build().unwrap();
    let new = Orchestrator::shared(store).register(new).start().await.unwrap();
    let ann = new.operator("ann");
    ann.pause("p", "1", "its definition is gone").await.unwrap();
    assert_eq!(steps(&new).await.0, Status::Paused);
    ann.abort("p", "1", "paid back by hand").await.unwrap();
    let view = new.get("p", "1").await.unwrap().unwrap();
    assert_eq!(view.instance.status, Status::Aborted);
    assert!(view.instance.reason.unwrap().contains("its next step may have been started"));
}

/// A saga that is paused by an operator while its first step runs, and has a second that must not run twice.
async fn paused_between() -> Orchestrator {
    let first = First { takes: Duration::from_secs(1), ..First::default() };
    let second = Second { policy: StepPolicy::default().not_idempotent(), ..Second::default() };
    let saga = Saga::named("p").step(first).step(second).no_compensation("none").build().unwrap();
    let p = with(saga).await;
    let started = p.start("p", "1", &1_u32).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    p.operator("ann").pause("p", "1", "look").await.unwrap();
    let outcome = p.wait(&started).await.unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
    p
}

#[tokio::test(start_paused = true)]
async fn a_saga_paused_between_two_steps_knows_that_the_second_has_not_begun() {
    let p = paused_between().await;
    p.operator("ann").resume("p", "1", "seen").await.unwrap();
    assert_eq!(end(&p).await, Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_saga_paused_between_two_steps_and_cancelled_has_nothing_of_the_second_to_undo() {
    let p = paused_between().await;
    let _certain = p.operator("ann").cancel("p", "1", "left").await.unwrap();
    let outcome = end(&p).await;
    assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
    assert_eq!(steps(&p).await.1, [StepStatus::Compensated, StepStatus::Failed]);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_closed_saga_shows_the_step_that_may_have_happened() {
    let store = Arc::new(MemoryStore::new());
    let saga = || {
        let first = First { takes: Duration::from_secs(20), ..First::default() };
        Saga::named("p").step(first).build().unwrap()
    };
    let dies = Orchestrator::shared(store.clone()).register(saga()).start().await.unwrap();
    let _started = dies.start("p", "1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(dies);
    // The lease ends, and there is no other worker.
    sleep(Duration::from_secs(31)).await;
    let other = Saga::named("other").step(Second::default()).build().unwrap();
    let p = Orchestrator::shared(store.clone()).register(other).start().await.unwrap();
    p.operator("ann").pause("p", "1", "stop it").await.unwrap();
    drop(p);
    let p = Orchestrator::shared(store).register(saga()).start().await.unwrap();
    p.operator("ann").abort("p", "1", "enough").await.unwrap();
    let view = p.get("p", "1").await.unwrap().unwrap();
    assert_eq!(view.instance.unresolved, 1);
    assert_eq!(steps(&p).await, (Status::Aborted, vec![StepStatus::Unknown]));
}

/// A saga whose first step, or its undo, fails again and again: 720 tries of two seconds.
async fn trying(undoes: bool) -> Orchestrator {
    let often = Backoff::constant(720, Duration::from_secs(2));
    let policy = StepPolicy::default().retries(often.clone()).undo_retries(often);
    let first = match undoes {
        true => First { undo: Arc::new(|| Err(StepError::retryable("busy"))), policy, ..First::default() },
        false => {
            First { execute: Arc::new(|| Err(StepError::retryable("busy"))), policy, ..First::default() }
        }
    };
    let p = with(Saga::named("p").step(first).step(refusing()).build().unwrap()).await;
    let _started = p.start("p", "1", &1_u32).await.unwrap();
    sleep(Duration::from_millis(20_500)).await;
    p
}

/// One poll, and the moment in which its answer is written.
async fn within_a_poll(p: &Orchestrator) -> Outcome {
    let started = p.start("p", "1", &1_u32).await.unwrap();
    timeout(Duration::from_millis(1_001), p.wait(&started)).await.unwrap().unwrap()
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_request_to_pause_is_seen_between_two_tries_within_a_poll() {
    for undoes in [false, true] {
        let p = trying(undoes).await;
        p.operator("ann").pause("p", "1", "look").await.unwrap();
        let outcome = within_a_poll(&p).await;
        assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
        let retries = p.get("p", "1").await.unwrap().unwrap().steps[0].clone();
        assert_eq!(if undoes { retries.undo_retries } else { retries.retries }, 11, "what was tried is kept");
        p.operator("ann").resume("p", "1", "seen").await.unwrap();
        sleep(Duration::from_secs(10)).await;
        assert!(steps(&p).await.0.is_active(), "it is tried again");
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_request_to_turn_back_is_seen_between_two_tries_within_a_poll() {
    let p = trying(false).await;
    let cancelled = p.operator("ann").cancel("p", "1", "the customer left").await.unwrap();
    assert_eq!(cancelled, Cancelled::Requested);
    let outcome = within_a_poll(&p).await;
    let left = matches!(&outcome, Outcome::Compensated { reason } if reason.contains("the customer left"));
    assert!(left, "{outcome:?}");
}

struct Lost(Arc<AtomicBool>);

impl Codec for Lost {
    fn key_id(&self) -> &str {
        "k"
    }

    fn seal(&self, _: &Place<'_>, json: &str) -> Result<String, CodecError> {
        Ok(json.into())
    }

    fn open(&self, id: &str, _: &Place<'_>, sealed: &str) -> Result<String, CodecError> {
        if self.0.load(Ordering::SeqCst) { Err(CodecError::unknown_key(id)) } else { Ok(sealed.into()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_fault_does_not_hide_the_reason_of_the_turn() {
    let (lost, tries) = (Arc::new(AtomicBool::new(false)), AtomicU32::new(0));
    let first = First {
        undo: Arc::new(move || match tries.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StepError::retryable("later")),
            _ => Ok(Evidence::new("refund 7")),
        }),
        policy: StepPolicy::default().undo_retries(Backoff::constant(3, Duration::from_secs(60))),
        ..First::default()
    };
    let saga = Saga::named("p").step(first).step(refusing()).build().unwrap();
    let store = MemoryStore::new();
    let p = Orchestrator::new(store).codec(Lost(lost.clone())).register(saga).start().await.unwrap();
    let started = p.start("p", "1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    lost.store(true, Ordering::SeqCst);
    let outcome = p.wait(&started).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Paused { reason } if reason.contains("cannot be read")),
        "{outcome:?}"
    );
    lost.store(false, Ordering::SeqCst);
    p.operator("ann").resume("p", "1", "the key is back").await.unwrap();
    let outcome = end(&p).await;
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("card declined")),
        "{outcome:?}"
    );
}

// proves: S-5
#[tokio::test(start_paused = true)]
async fn blank_evidence_and_blank_operators_are_refused() {
    let first = First { undo: Arc::new(|| Ok(Evidence::new(" "))), ..First::default() };
    let p = with(Saga::named("p").step(first).step(refusing()).build().unwrap()).await;
    let outcome = p.run("p", "1", &1_u32).await.unwrap();
    assert!(matches!(&outcome, Outcome::Paused { reason } if reason.contains("blank")), "{outcome:?}");
    let blank = p.operator("ann").resolve_step("p", "1", 1, Resolution::Compensated, "").await;
    assert!(matches!(blank, Err(SagaError::Refused { .. })), "{blank:?}");
    let nobody = p.operator("").resolve_step("p", "1", 1, Resolution::Compensated, "refund 7").await;
    assert!(matches!(nobody, Err(SagaError::Refused { .. })), "{nobody:?}");
    assert_eq!(steps(&p).await.0, Status::Paused);
}
