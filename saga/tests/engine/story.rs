//! Scenarios on the memory store, in paused time: the reactions of a saga to the answers of its steps.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::{
    Backoff, Cancelled, Evidence, Executed, MemoryStore, Orchestrator, Outcome, Probe, Resolution, Saga,
    SagaError, SagaStep, Status, StepContext, StepError, StepPolicy, StepStatus, WhenUnknown,
};
use tokio::time::Instant;

/// The next behaviour of a step; a step without a script succeeds.
#[derive(Debug, Clone)]
enum Act {
    Reject,
    Retryable,
    Unknown,
    Fatal,
    Panic,
    Hang,
}

#[derive(Default)]
struct Script {
    execute: Mutex<VecDeque<Act>>,
    undo: Mutex<VecDeque<Act>>,
    probe: Mutex<VecDeque<Probe<u32>>>,
    log: Mutex<Vec<String>>,
    policy: Mutex<Option<StepPolicy>>,
}

impl Script {
    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }

    async fn act(act: Option<Act>) -> Result<(), StepError> {
        match act {
            None => Ok(()),
            Some(Act::Reject) => Err(StepError::rejected("no")),
            Some(Act::Retryable) => Err(StepError::retryable("later")),
            Some(Act::Unknown) => Err(std::io::Error::other("connection reset").into()),
            Some(Act::Fatal) => Err(StepError::fatal("misconfigured")),
            Some(Act::Panic) => panic!("a step that panics"),
            Some(Act::Hang) => std::future::pending().await,
        }
    }
}

macro_rules! scripted {
    ($name:ident, $text:literal) => {
        struct $name(Arc<Script>);
        impl SagaStep for $name {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = $text;
            async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
                let act = self.0.execute.lock().unwrap().pop_front();
                self.0.note(format!("do {} #{} {}", $text, cx.attempt(), &cx.idempotency_key()[37..]));
                Script::act(act).await?;
                Ok(*cx.input() + 1)
            }
            async fn compensate(
                &self,
                cx: &StepContext<u32>,
                done: Executed<u32>,
            ) -> Result<Evidence, StepError> {
                let act = self.0.undo.lock().unwrap().pop_front();
                self.0.note(format!("undo {} {:?} {}", $text, done, &cx.idempotency_key()[37..]));
                Script::act(act).await?;
                Ok(Evidence::new("undone"))
            }
            async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
                let answer = self.0.probe.lock().unwrap().pop_front();
                self.0.note(format!("ask {}", $text));
                Ok(answer.unwrap_or(Probe::Unknown))
            }
            fn policy(&self) -> StepPolicy {
                self.0.policy.lock().unwrap().clone().unwrap_or_default()
            }
        }
    };
}

scripted!(First, "First");
scripted!(Second, "Second");
scripted!(Third, "Third");

struct Stage {
    script: [Arc<Script>; 3],
    store: Arc<MemoryStore>,
    orchestrator: Orchestrator,
}

fn saga(script: &[Arc<Script>; 3]) -> Saga {
    let [first, second, third] = script.clone();
    Saga::named("story").step(First(first)).step(Second(second)).step(Third(third)).build().unwrap()
}

async fn stage() -> Stage {
    testkit::time_limit();
    let script: [Arc<Script>; 3] = Default::default();
    let store = Arc::new(MemoryStore::new());
    let orchestrator = Orchestrator::shared(store.clone()).register(saga(&script)).start().await.unwrap();
    Stage { script, store, orchestrator }
}

impl Stage {
    fn logs(&self) -> Vec<String> {
        self.script.iter().flat_map(|script| script.log()).collect()
    }

    async fn statuses(&self) -> (Status, Vec<StepStatus>) {
        let view = self.orchestrator.get("story", "S-1").await.unwrap().unwrap();
        (view.instance.status, view.steps.iter().map(|step| step.status).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_happens_once_in_order_with_its_own_key() {
    let stage = stage().await;
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(stage.logs(), ["do First #1 First:do", "do Second #1 Second:do", "do Third #1 Third:do"]);
    let view = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap();
    assert_eq!(view.instance.status, Status::Completed);
    assert_eq!(view.instance.current_step, 3);
    assert_eq!(view.instance.owner, None);
}

// proves: S-2
#[tokio::test(start_paused = true)]
async fn a_step_is_retried_after_two_four_and_eight_seconds_with_the_same_key() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().extend([Act::Retryable, Act::Retryable, Act::Retryable]);
    let begun = Instant::now();
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(begun.elapsed().as_secs(), 14);
    let expected: Vec<_> = (1..=4).map(|n| format!("do Second #{n} Second:do")).collect();
    assert_eq!(stage.script[1].log(), expected);
    assert_eq!(stage.script[0].log().len(), 1);
}

// proves: S-4
#[tokio::test(start_paused = true)]
async fn a_rejected_step_turns_the_saga_back_in_reverse_order() {
    let stage = stage().await;
    stage.script[2].execute.lock().unwrap().push_back(Act::Reject);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "Third: no".into() });
    assert_eq!(stage.script[1].log(), ["do Second #1 Second:do", "undo Second Applied(..) Second:undo"]);
    assert_eq!(stage.script[0].log(), ["do First #1 First:do", "undo First Applied(..) First:undo"]);
    let (_, steps) = stage.statuses().await;
    assert_eq!(steps, [StepStatus::Compensated, StepStatus::Compensated, StepStatus::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_first_step_leaves_nothing_to_undo() {
    let stage = stage().await;
    stage.script[0].execute.lock().unwrap().push_back(Act::Reject);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "First: no".into() });
    assert_eq!(stage.logs(), ["do First #1 First:do"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_settled_by_the_probe() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Hang);
    stage.script[1].probe.lock().unwrap().push_back(Probe::Applied(7));
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(stage.script[1].log(), ["do Second #1 Second:do", "ask Second"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_of_an_idempotent_step_is_tried_again_with_the_same_key() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().extend([Act::Unknown, Act::Panic]);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Completed);
    let log = stage.script[1].log();
    assert_eq!(log.iter().filter(|line| line.ends_with("Second:do")).count(), 3);
    assert!(log.contains(&"ask Second".to_owned()));
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn an_outcome_that_stays_unknown_is_stuck_and_visible() {
    let stage = stage().await;
    *stage.script[1].policy.lock().unwrap() = Some(StepPolicy::default().not_idempotent());
    // The policy was read at build time for the shape only; the engine asks again per step.
    stage.script[1].execute.lock().unwrap().push_back(Act::Unknown);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { step: 2, .. }), "{outcome:?}");
    assert_eq!(stage.script[1].log().iter().filter(|line| line.starts_with("do")).count(), 1);
    let (status, steps) = stage.statuses().await;
    assert_eq!((status, steps), (Status::Stuck, vec![StepStatus::Succeeded, StepStatus::Unknown]));
    let view = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap();
    assert_eq!((view.instance.unresolved, view.instance.resume_status), (1, Some(Status::InProgress)));
}

// proves: S-4, S-5
#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_unknown_outcome_undoes_the_unknown_effect() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().extend([Act::Unknown, Act::Reject]);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("Second: no")),
        "{outcome:?}"
    );
    assert_eq!(stage.script[1].log().last().unwrap(), "undo Second Unknown Second:undo");
    let (_, steps) = stage.statuses().await;
    assert_eq!(steps, [StepStatus::Compensated, StepStatus::Compensated]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_unknown_outcome_that_proved_to_be_nothing_undoes_nothing() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().extend([Act::Unknown, Act::Reject]);
    stage.script[1].probe.lock().unwrap().extend([Probe::NotSeenYet, Probe::NotApplied]);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "Second: no".into() });
    let (_, steps) = stage.statuses().await;
    assert_eq!(steps, [StepStatus::Compensated, StepStatus::Failed]);
}

// proves: S-4
#[tokio::test(start_paused = true)]
async fn an_unknown_step_is_undone_if_its_policy_chooses_that() {
    let stage = stage().await;
    let policy = StepPolicy::default().retries(Backoff::never()).when_unknown(WhenUnknown::Compensate);
    *stage.script[1].policy.lock().unwrap() = Some(policy);
    stage.script[1].execute.lock().unwrap().push_back(Act::Unknown);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "Second: connection reset".into() });
    let log = stage.script[1].log();
    assert_eq!(log.last().unwrap(), "undo Second Unknown Second:undo");
}

// proves: S-5
#[tokio::test(start_paused = true)]
async fn a_saga_with_a_failed_undo_is_never_compensated() {
    let stage = stage().await;
    stage.script[2].execute.lock().unwrap().push_back(Act::Reject);
    stage.script[1].undo.lock().unwrap().push_back(Act::Reject);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    let (status, steps) = stage.statuses().await;
    assert_eq!(status, Status::Stuck);
    assert_eq!(steps, [StepStatus::Succeeded, StepStatus::CompensationFailed, StepStatus::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_undo_is_tried_ten_times_and_releases_the_saga_during_long_waits() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Reject);
    stage.script[0].undo.lock().unwrap().extend(vec![Act::Retryable; 9]);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "Second: no".into() });
    assert_eq!(stage.script[0].log().iter().filter(|line| line.starts_with("undo")).count(), 10);
    let view = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap();
    assert!(view.instance.epoch > 1, "it was released and claimed again");
}

#[tokio::test(start_paused = true)]
async fn a_fatal_error_pauses_and_undoes_nothing() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Fatal);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(outcome, Outcome::Paused { reason: "Second: misconfigured".into() });
    assert_eq!(stage.script[0].log(), ["do First #1 First:do"]);
    let operator = stage.orchestrator.operator("alice");
    operator.resume("story", "S-1", "fixed the configuration").await.unwrap();
    let again = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    assert!(again.existed());
    assert_eq!(stage.orchestrator.wait(&again).await.unwrap(), Outcome::Completed);
    assert_eq!(stage.store.audit().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_business_id_is_the_same_saga_and_another_input_is_refused() {
    let stage = stage().await;
    let first = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    let again = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    assert_eq!((first.id(), again.existed()), (again.id(), true));
    let other = stage.orchestrator.start("story", "S-1", &2_u32).await;
    assert!(matches!(other, Err(SagaError::InputConflict { .. })));
    assert_eq!(stage.orchestrator.wait(&again).await.unwrap(), Outcome::Completed);
    assert_eq!(stage.script[0].log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_input_of_another_type_and_an_unknown_saga_are_refused_before_anything_is_written() {
    let stage = stage().await;
    let wrong = stage.orchestrator.start("story", "S-1", &"text").await;
    assert!(matches!(wrong, Err(SagaError::WrongInput { .. })));
    let unknown = stage.orchestrator.start("tale", "S-1", &1_u32).await;
    assert!(matches!(unknown, Err(SagaError::UnknownSaga(_))));
    assert!(stage.orchestrator.get("story", "S-1").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_does_not_stop_the_saga() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Retryable);
    let started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    let gave_up = tokio::time::timeout(Duration::from_millis(10), stage.orchestrator.wait(&started)).await;
    assert!(gave_up.is_err());
    assert_eq!(stage.orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    assert_eq!(stage.script[1].log().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_saga_turns_back_with_its_next_result() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Retryable);
    let started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = stage.orchestrator.operator("alice").cancel("story", "S-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    let outcome = stage.orchestrator.wait(&started).await.unwrap();
    assert_eq!(outcome, Outcome::Compensated { reason: "cancel by alice: customer left".into() });
    assert!(stage.script[2].log().is_empty());
    let refused = stage.orchestrator.operator("alice").abort("story", "S-1", "no").await;
    assert!(matches!(refused, Err(SagaError::Refused { .. })));
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_drained_worker_gives_its_sagas_back_at_once() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Retryable);
    let started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.orchestrator.drain().await.unwrap();
    assert!(matches!(stage.orchestrator.wait(&started).await, Err(SagaError::Draining)));
    assert!(matches!(stage.orchestrator.start("story", "S-2", &1_u32).await, Err(SagaError::NotStarted)));

    let begun = Instant::now();
    let next = Orchestrator::shared(stage.store.clone()).register(saga(&stage.script)).start().await.unwrap();
    let again = next.start("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(next.wait(&again).await.unwrap(), Outcome::Completed);
    assert!(begun.elapsed() < Duration::from_secs(3), "no lease had to run out");
    assert_eq!(stage.script[0].log().len(), 1, "a completed step is not executed again");
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn the_sagas_of_a_dead_worker_are_finished_when_its_lease_has_run_out() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Hang);
    stage.script[1].probe.lock().unwrap().push_back(Probe::NotSeenYet);
    let _started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Dropping the last handle is a crash: no release, no more heartbeats.
    let Stage { script, store, orchestrator } = stage;
    drop(orchestrator);

    let begun = Instant::now();
    let next = Orchestrator::shared(store).register(saga(&script)).start().await.unwrap();
    let again = next.start("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(next.wait(&again).await.unwrap(), Outcome::Completed);
    assert!(begun.elapsed() > Duration::from_secs(19), "the lease protects the dead worker's effect");
    assert_eq!(script[0].log().len(), 1);
    assert_eq!(script[1].log(), ["do Second #1 Second:do", "ask Second", "do Second #1 Second:do"]);
}

/// A saga that is stuck in its second step, because the step is unknown.
async fn stuck() -> Stage {
    let stage = stage().await;
    *stage.script[1].policy.lock().unwrap() = Some(StepPolicy::default().not_idempotent());
    stage.script[1].execute.lock().unwrap().push_back(Act::Unknown);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    stage
}

async fn outcome_now(stage: &Stage) -> Outcome {
    let again = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    stage.orchestrator.wait(&again).await.unwrap()
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn an_operator_who_found_the_effect_resumes_the_saga() {
    let stage = stuck().await;
    let operator = stage.orchestrator.operator("alice");
    let found = Resolution::applied(&2_u32).unwrap();
    operator.resolve_step("story", "S-1", 2, found, "ledger line 7").await.unwrap();
    assert_eq!(outcome_now(&stage).await, Outcome::Completed);
    let view = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap();
    assert_eq!(view.steps[1].resolved_by.as_deref(), Some("alice"));
    assert_eq!(view.steps[1].evidence.as_deref(), Some("ledger line 7"));
    let audit = stage.store.audit();
    assert_eq!((audit[0].action.as_str(), audit[0].before), ("resolve_step", Status::Stuck));
    assert_eq!(stage.script[1].log().iter().filter(|line| line.starts_with("do")).count(), 1);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn an_operator_who_found_nothing_turns_the_saga_back() {
    let stage = stuck().await;
    let operator = stage.orchestrator.operator("alice");
    operator.resolve_step("story", "S-1", 2, Resolution::NotApplied, "no line in the ledger").await.unwrap();
    assert!(matches!(outcome_now(&stage).await, Outcome::Compensated { .. }));
    let (_, steps) = stage.statuses().await;
    assert_eq!(steps, [StepStatus::Compensated, StepStatus::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_saga_that_is_turned_back_undoes_the_unknown_step_too() {
    let stage = stuck().await;
    let operator = stage.orchestrator.operator("alice");
    let answer = operator.compensate("story", "S-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::ForCertain);
    assert!(matches!(outcome_now(&stage).await, Outcome::Compensated { .. }));
    assert_eq!(stage.script[1].log().last().unwrap(), "undo Second Unknown Second:undo");
    assert!(
        stage.script[2].log().is_empty(),
        "a step that cannot have started is neither asked about nor undone"
    );
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_retry_a_failed_undo() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Reject);
    stage.script[0].undo.lock().unwrap().push_back(Act::Reject);
    let outcome = stage.orchestrator.run("story", "S-1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    stage.orchestrator.operator("alice").retry_now("story", "S-1", "the order system is back").await.unwrap();
    assert!(matches!(outcome_now(&stage).await, Outcome::Compensated { .. }));
    assert_eq!(stage.script[0].log().last().unwrap(), "undo First Applied(..) First:undo");
}

#[tokio::test(start_paused = true)]
async fn a_decision_on_a_stale_version_is_refused() {
    let stage = stuck().await;
    let seen = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap().instance.row_version;
    stage.orchestrator.operator("bob").abort("story", "S-1", "settled by hand").await.unwrap();
    let late = stage.orchestrator.operator("alice").having_seen(seen);
    assert!(matches!(late.retry_now("story", "S-1", "again").await, Err(SagaError::Stale)));
    let view = stage.orchestrator.get("story", "S-1").await.unwrap().unwrap();
    assert_eq!((view.instance.status, view.instance.unresolved), (Status::Aborted, 1));
}

#[tokio::test(start_paused = true)]
async fn a_paused_saga_goes_on_where_it_stood() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Retryable);
    let started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let operator = stage.orchestrator.operator("alice");
    operator.pause("story", "S-1", "let me look").await.unwrap();
    let outcome = stage.orchestrator.wait(&started).await.unwrap();
    assert_eq!(outcome, Outcome::Paused { reason: "paused by an operator".into() });
    assert!(stage.script[2].log().is_empty());
    operator.resume("story", "S-1", "looked").await.unwrap();
    assert_eq!(outcome_now(&stage).await, Outcome::Completed);
}

// proves: S-10
#[tokio::test(start_paused = true)]
async fn a_saga_goes_on_with_the_definition_it_began_with() {
    let stage = stage().await;
    stage.script[1].execute.lock().unwrap().push_back(Act::Retryable);
    let _started = stage.orchestrator.start("story", "S-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.orchestrator.drain().await.unwrap();

    // The next release knows only a shorter definition: it leaves the open saga alone.
    let shorter = || Saga::named("story").version(2).step(First(Arc::default())).build().unwrap();
    let next = Orchestrator::shared(stage.store.clone()).register(shorter()).start().await.unwrap();
    let again = next.start("story", "S-1", &1_u32).await.unwrap();
    let nobody = tokio::time::timeout(Duration::from_secs(120), next.wait(&again)).await;
    assert!(nobody.is_err(), "{nobody:?}");
    assert_eq!(next.run("story", "S-2", &1_u32).await.unwrap(), Outcome::Completed);

    // One that knows both finishes each with its own.
    let builder = Orchestrator::shared(stage.store.clone()).register(shorter()).register(saga(&stage.script));
    let both = builder.start().await.unwrap();
    let again = both.start("story", "S-1", &1_u32).await.unwrap();
    assert_eq!(both.wait(&again).await.unwrap(), Outcome::Completed);
    assert_eq!(stage.script[2].log().len(), 1);
}
