//! Providers that are away or hang, for minutes and for hours, in paused time: sagas wait for them, visibly and without
//! memory, and delay no other saga.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::{
    Backoff, Cancelled, Evidence, Executed, ForwardStep, MemoryStore, Orchestrator, OrchestratorBuilder,
    Outcome, Probe, Saga, SagaStep, Started, Status, StepContext, StepError, StepPolicy, StepStatus,
};
use tokio::time::{Instant, sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);

/// The other side.
#[derive(Default)]
struct Channel {
    away: AtomicBool,
    /// Takes a call and never answers it.
    hangs: AtomicBool,
    /// Does what it is told and loses the answer.
    loses: AtomicBool,
    /// Does not answer questions, or does not find what it has.
    mute: AtomicBool,
    blind: AtomicBool,
    calls: AtomicU32,
    charges: AtomicU32,
    refunds: AtomicU32,
}

impl Channel {
    async fn call(&self) -> Result<(), StepError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(StepError::unreachable("channel", "connection refused"));
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn is(&self, state: &AtomicBool) -> bool {
        state.load(Ordering::SeqCst)
    }
}

struct Charge(Arc<Channel>, StepPolicy);
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";

    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.call().await?;
        self.0.charges.fetch_add(1, Ordering::SeqCst);
        if self.0.is(&self.0.loses) { Err(StepError::unknown("connection reset")) } else { Ok(*cx.input()) }
    }

    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        self.0.call().await?;
        self.0.refunds.fetch_add(1, Ordering::SeqCst);
        Ok(Evidence::new("refund-1"))
    }

    async fn probe(&self, cx: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
        self.0.call().await?;
        if self.0.is(&self.0.mute) {
            return Err(StepError::unknown("no answer"));
        }
        let seen = self.0.charges.load(Ordering::SeqCst) > 0 && !self.0.is(&self.0.blind);
        Ok(if seen { Probe::Applied(*cx.input()) } else { Probe::NotSeenYet })
    }

    fn policy(&self) -> StepPolicy {
        self.1.clone()
    }
}

/// Must not run twice, and nothing comes back behind it.
struct Pay(Arc<Channel>);
impl ForwardStep for Pay {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Pay";

    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Charge(Arc::clone(&self.0), policy()).execute(cx).await
    }

    async fn probe(&self, cx: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
        Charge(Arc::clone(&self.0), policy()).probe(cx).await
    }

    fn policy(&self) -> StepPolicy {
        policy().not_idempotent()
    }
}

/// Is refused when the channel is away, which it then is.
struct Refused(Arc<Channel>);
impl ForwardStep for Refused {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Refused";

    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.away.store(true, Ordering::SeqCst);
        Err(StepError::rejected("sold out"))
    }
}

/// Needs no provider.
struct Note;
impl ForwardStep for Note {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Note";

    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        sleep(Duration::from_millis(10)).await;
        Ok(*cx.input())
    }
}

fn policy() -> StepPolicy {
    StepPolicy::default().provider("channel")
}

fn builder(channel: &Arc<Channel>, policy: StepPolicy) -> OrchestratorBuilder<MemoryStore> {
    testkit::time_limit();
    let charge = |policy| Charge(Arc::clone(channel), policy);
    let refunded = Saga::named("refunded").step(charge(policy.clone())).step(Refused(Arc::clone(channel)));
    Orchestrator::new(MemoryStore::new())
        // The polls of many hours take real time.
        .lease(MINUTE)
        .poll(Duration::from_secs(5))
        .register(Saga::named("payment").step(charge(policy)).build().unwrap())
        .register(refunded.no_compensation("nothing happens").build().unwrap())
        .register(Saga::named("paid").pivot(Pay(Arc::clone(channel))).build().unwrap())
        .register(Saga::named("note").pivot(Note).build().unwrap())
}

async fn end(orchestrator: &Orchestrator, started: &Started) -> Outcome {
    timeout(100 * MINUTE, orchestrator.wait(started)).await.unwrap().unwrap()
}

// proves: S-7, S-8
#[tokio::test(start_paused = true)]
async fn sagas_that_wait_half_an_hour_for_a_provider_delay_no_other_saga() {
    let channel = Arc::new(Channel::default());
    let orchestrator = builder(&channel, policy()).in_flight(16).start().await.unwrap();
    channel.away.store(true, Ordering::SeqCst);
    let mut started = Vec::new();
    for n in 0..200 {
        started.push(orchestrator.start("payment", &n.to_string(), &1_u32).await.unwrap());
        let began = Instant::now();
        assert_eq!(orchestrator.run("note", &n.to_string(), &1_u32).await.unwrap(), Outcome::Completed);
        assert!(began.elapsed() < Duration::from_secs(10), "note {n} took {:?}", began.elapsed());
    }
    sleep(30 * MINUTE).await;
    let view = orchestrator.get("payment", "7").await.unwrap().unwrap();
    let step = &view.steps[0];
    assert_eq!((view.instance.status, step.status), (Status::InProgress, StepStatus::Executing));
    assert!(step.error.as_deref().is_some_and(|error| error.starts_with("waits for channel: ")), "{step:?}");
    assert!(step.retry_in.is_some() && view.instance.owner.is_none(), "it is held in memory: {view:?}");
    let calls = channel.calls.load(Ordering::SeqCst);
    assert!(calls < 500, "{calls} calls of a provider that is away, for 200 sagas");
    channel.away.store(false, Ordering::SeqCst);
    for started in &started {
        assert_eq!(end(&orchestrator, started).await, Outcome::Completed);
    }
    assert_eq!(channel.charges.load(Ordering::SeqCst), 200);
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn after_an_hour_a_saga_that_never_reached_its_provider_turns_back() {
    for policy in [policy(), StepPolicy::default()] {
        let channel = Arc::new(Channel::default());
        let orchestrator = builder(&channel, policy).start().await.unwrap();
        channel.away.store(true, Ordering::SeqCst);
        let began = Instant::now();
        let started = orchestrator.start("payment", "1", &1_u32).await.unwrap();
        let outcome = end(&orchestrator, &started).await;
        let said =
            matches!(&outcome, Outcome::Compensated { reason } if reason.contains("waits for channel"));
        assert!(said, "{outcome:?}");
        let waited = began.elapsed();
        assert!((45 * MINUTE..75 * MINUTE).contains(&waited), "{waited:?}");
    }
}

// proves: S-2, S-7
#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_is_repeated_for_an_hour_before_the_saga_is_stuck() {
    for (policy, mute, once) in [
        (policy(), true, false),
        (policy().not_idempotent(), true, true),
        (policy().not_idempotent(), false, true),
        (StepPolicy::default().not_idempotent(), true, true),
    ] {
        let channel = Arc::new(Channel::default());
        let orchestrator = builder(&channel, policy).start().await.unwrap();
        channel.loses.store(true, Ordering::SeqCst);
        let doubt = if mute { &channel.mute } else { &channel.blind };
        doubt.store(true, Ordering::SeqCst);
        let started = orchestrator.start("payment", "1", &1_u32).await.unwrap();
        sleep(40 * MINUTE).await;
        let view = orchestrator.get("payment", "1").await.unwrap().unwrap();
        assert_eq!(view.instance.status, Status::InProgress, "{view:?}");
        assert!(
            view.steps[0].error.as_deref().is_some_and(|error| error.starts_with("waits for ")),
            "{view:?}"
        );
        doubt.store(false, Ordering::SeqCst);
        assert_eq!(end(&orchestrator, &started).await, Outcome::Completed);
        assert!(!once || channel.charges.load(Ordering::SeqCst) == 1, "charged again");
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_saga_whose_probe_never_answers_ends_stuck() {
    let channel = Arc::new(Channel::default());
    let orchestrator = builder(&channel, policy().not_idempotent()).start().await.unwrap();
    channel.loses.store(true, Ordering::SeqCst);
    channel.mute.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let started = orchestrator.start("payment", "1", &1_u32).await.unwrap();
    let outcome = end(&orchestrator, &started).await;
    assert!(
        matches!(&outcome, Outcome::Stuck { step: 1, reason } if reason.contains("connection reset")),
        "{outcome:?}"
    );
    assert!((45 * MINUTE..75 * MINUTE).contains(&began.elapsed()), "{:?}", began.elapsed());
}

// proves: S-4, S-8
#[tokio::test(start_paused = true)]
async fn an_undo_waits_for_its_provider() {
    let channel = Arc::new(Channel::default());
    let orchestrator = builder(&channel, policy()).start().await.unwrap();
    let started = orchestrator.start("refunded", "1", &1_u32).await.unwrap();
    sleep(40 * MINUTE).await;
    let view = orchestrator.get("refunded", "1").await.unwrap().unwrap();
    assert_eq!(
        (view.instance.status, view.steps[0].status),
        (Status::Compensating, StepStatus::Compensating)
    );
    channel.away.store(false, Ordering::SeqCst);
    let outcome = end(&orchestrator, &started).await;
    assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
    assert_eq!(channel.refunds.load(Ordering::SeqCst), 1);
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_hanging_provider_uses_only_its_share_of_the_permits() {
    let channel = Arc::new(Channel::default());
    let builder = builder(&channel, policy()).in_flight(8).provider_limit("channel", 4);
    let orchestrator = builder.start().await.unwrap();
    channel.hangs.store(true, Ordering::SeqCst);
    for n in 0..40 {
        let orchestrator = orchestrator.clone();
        tokio::spawn(async move { orchestrator.start("payment", &n.to_string(), &1_u32).await.map(drop) });
    }
    sleep(Duration::from_secs(60)).await;
    for n in 0..50 {
        let began = Instant::now();
        assert_eq!(orchestrator.run("note", &n.to_string(), &1_u32).await.unwrap(), Outcome::Completed);
        assert!(began.elapsed() < Duration::from_secs(10), "note {n} took {:?}", began.elapsed());
    }
}

/// Is busy once, and says when to come back.
struct Busy(Arc<AtomicU32>);
impl ForwardStep for Busy {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Busy";

    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StepError::retryable("busy").retry_after(Duration::from_secs(42))),
            _ => Ok(*cx.input()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_requested_by_the_provider_is_kept() {
    testkit::time_limit();
    let calls = Arc::new(AtomicU32::new(0));
    let saga = Saga::named("busy").pivot(Busy(Arc::clone(&calls))).build().unwrap();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    let started = orchestrator.start("busy", "1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(41)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let outcome = timeout(Duration::from_secs(3), orchestrator.wait(&started)).await;
    assert_eq!(outcome.unwrap().unwrap(), Outcome::Completed);
}

/// A saga that was asked to turn back while its pivot is unknown, and whose provider is away since.
async fn cancelled_in_doubt(channel: &Arc<Channel>) -> (Orchestrator, Started) {
    let orchestrator = builder(channel, policy()).start().await.unwrap();
    channel.loses.store(true, Ordering::SeqCst);
    channel.mute.store(true, Ordering::SeqCst);
    let started = orchestrator.start("paid", "1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    channel.away.store(true, Ordering::SeqCst);
    let answer = orchestrator.operator("ann").cancel("paid", "1", "the customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    (orchestrator, started)
}

// proves: S-7, S-8, S-14
#[tokio::test(start_paused = true)]
async fn a_turning_saga_with_its_pivot_in_doubt_waits_for_the_provider_without_memory() {
    let channel = Arc::new(Channel::default());
    let (orchestrator, started) = cancelled_in_doubt(&channel).await;
    sleep(30 * MINUTE).await;
    let view = orchestrator.get("paid", "1").await.unwrap().unwrap();
    let step = &view.steps[0];
    assert_eq!((view.instance.status, step.status), (Status::InProgress, StepStatus::Unknown));
    assert!(step.error.as_deref().is_some_and(|error| error.starts_with("waits for channel: ")), "{step:?}");
    assert!(step.retry_in.is_some() && view.instance.owner.is_none(), "it is held in memory: {view:?}");
    let calls = channel.calls.load(Ordering::SeqCst);
    assert!(calls < 30, "{calls} calls of a provider that is away, for one saga");
    channel.away.store(false, Ordering::SeqCst);
    channel.mute.store(false, Ordering::SeqCst);
    assert_eq!(end(&orchestrator, &started).await, Outcome::Completed);
    let view = orchestrator.get("paid", "1").await.unwrap().unwrap();
    assert!(view.instance.cancelled_too_late().is_some());
    assert_eq!(channel.charges.load(Ordering::SeqCst), 1, "it was charged again");
}

// proves: S-8, S-14
#[tokio::test(start_paused = true)]
async fn a_pivot_in_doubt_whose_provider_stays_away_is_stuck_after_an_hour() {
    let channel = Arc::new(Channel::default());
    let (orchestrator, started) = cancelled_in_doubt(&channel).await;
    let began = Instant::now();
    let outcome = end(&orchestrator, &started).await;
    let said = matches!(&outcome, Outcome::Stuck { step: 1, reason } if reason.contains("the customer left"));
    assert!(said, "{outcome:?}");
    assert!((45 * MINUTE..75 * MINUTE).contains(&began.elapsed()), "{:?}", began.elapsed());
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_request_to_pause_ends_the_wait_of_a_saga_that_is_about_to_turn_back() {
    let channel = Arc::new(Channel::default());
    let (orchestrator, started) = cancelled_in_doubt(&channel).await;
    sleep(10 * MINUTE).await;
    orchestrator.operator("ann").pause("paid", "1", "let me look").await.unwrap();
    let outcome = timeout(Duration::from_secs(15), orchestrator.wait(&started)).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_provider_that_comes_back_after_the_patience_is_reached_by_the_tries_that_are_left() {
    let patience = Backoff::constant(1, Duration::from_secs(1));
    let often = Backoff::constant(20, MINUTE);
    let policy = policy().patience(patience).retries(often.clone()).undo_retries(often);
    for saga in ["payment", "refunded"] {
        let channel = Arc::new(Channel::default());
        let orchestrator = builder(&channel, policy.clone()).start().await.unwrap();
        channel.away.store(saga == "payment", Ordering::SeqCst);
        let started = orchestrator.start(saga, "1", &1_u32).await.unwrap();
        sleep(10 * MINUTE).await;
        channel.away.store(false, Ordering::SeqCst);
        let outcome = end(&orchestrator, &started).await;
        let done = matches!(outcome, Outcome::Completed | Outcome::Compensated { .. });
        assert!(done && channel.charges.load(Ordering::SeqCst) == 1, "{saga}: {outcome:?}");
        assert_eq!(channel.refunds.load(Ordering::SeqCst), u32::from(saga == "refunded"));
    }
}

// proves: S-8, S-14
#[tokio::test(start_paused = true)]
async fn repeated_requests_to_turn_back_use_up_no_question_of_a_pivot_in_doubt() {
    let channel = Arc::new(Channel::default());
    let (orchestrator, started) = cancelled_in_doubt(&channel).await;
    for _ in 0..60 {
        sleep(Duration::from_secs(5)).await;
        let _again = orchestrator.operator("ann").cancel("paid", "1", "the customer left").await.unwrap();
    }
    let view = orchestrator.get("paid", "1").await.unwrap().unwrap();
    assert_eq!(view.instance.status, Status::InProgress, "{view:?}");
    assert!(view.steps[0].retries < 12, "{view:?}");
    channel.away.store(false, Ordering::SeqCst);
    channel.mute.store(false, Ordering::SeqCst);
    assert_eq!(end(&orchestrator, &started).await, Outcome::Completed);
}
