//! Effects that were acknowledged before their step failed: never forgotten by a clean failure (S-12).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::{
    Backoff, Evidence, Executed, ForwardStep, MemoryStore, Orchestrator, Outcome, Probe, Saga, SagaStep,
    StepContext, StepError, StepPolicy, StepStatus,
};

/// The answers of the other side: to the second call of the step and to the probe, each in turn; then all is well.
#[derive(Default)]
struct Peers {
    second: Mutex<VecDeque<StepError>>,
    probe: Mutex<VecDeque<Probe<String>>>,
    states: bool,
    /// Only the first call states its effect.
    states_once: bool,
    /// Each call states an effect of its own: the other side forgot the key.
    states_anew: bool,
    policy: StepPolicy,
    log: Mutex<Vec<String>>,
}

impl Peers {
    fn new(second: impl IntoIterator<Item = StepError>) -> Self {
        Self { second: Mutex::new(second.into_iter().collect()), states: true, ..Self::default() }
    }

    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap().push(what.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    fn charges(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
        let again = self.states_once && self.log().contains(&"charge".to_owned());
        self.note("charge");
        if self.states && !again {
            let calls = self.log().iter().filter(|call| *call == "charge").count();
            let number = if self.states_anew { calls } else { 1 };
            cx.effect_acknowledged(format!("charge c-{number}"));
        }
        match self.second.lock().unwrap().pop_front() {
            Some(error) => Err(error),
            None => Ok("c-1".into()),
        }
    }

    fn asked(&self) -> Probe<String> {
        self.note("ask");
        self.probe.lock().unwrap().pop_front().unwrap_or(Probe::Unknown)
    }
}

const PAUSE: Duration = Duration::from_secs(2);

/// Charges, and then has to tell another peer.
struct Charge(Arc<Peers>);
impl SagaStep for Charge {
    type Input = u32;
    type Output = String;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
        self.0.charges(cx)
    }
    async fn compensate(&self, _: &StepContext<u32>, done: Executed<String>) -> Result<Evidence, StepError> {
        self.0.note(format!("refund {done:?}"));
        Ok(Evidence::new("refund r-1"))
    }
    async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<String>, StepError> {
        Ok(self.0.asked())
    }
    fn policy(&self) -> StepPolicy {
        self.0.policy.clone()
    }
}

/// The same, without a way back.
struct PayOut(Arc<Peers>);
impl ForwardStep for PayOut {
    type Input = u32;
    type Output = String;
    const NAME: &'static str = "PayOut";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
        self.0.charges(cx)
    }
    async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<String>, StepError> {
        Ok(self.0.asked())
    }
    fn policy(&self) -> StepPolicy {
        self.0.policy.clone()
    }
}

async fn run(saga: Saga) -> (Outcome, Vec<StepStatus>) {
    testkit::time_limit();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    let outcome = orchestrator.run("money", "M-1", &1_u32).await.unwrap();
    let view = orchestrator.get("money", "M-1").await.unwrap().unwrap();
    (outcome, view.steps.iter().map(|row| row.status).collect())
}

async fn charge(peers: &Arc<Peers>) -> (Outcome, Vec<StepStatus>) {
    run(Saga::named("money").step(Charge(peers.clone())).build().unwrap()).await
}

async fn pay_out(peers: &Arc<Peers>) -> (Outcome, Vec<StepStatus>) {
    run(Saga::named("money").pivot(PayOut(peers.clone())).build().unwrap()).await
}

fn away() -> StepError {
    StepError::retryable("no connection")
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_charge_is_undone_although_the_next_peer_was_away_for_every_try() {
    let mut peers = Peers::new([away(), away(), away(), away()]);
    peers.policy = StepPolicy::default().when_unknown(probity_saga::WhenUnknown::Compensate);
    let peers = Arc::new(peers);
    let (outcome, steps) = charge(&peers).await;
    assert_eq!(peers.log().last().unwrap(), "refund Unknown");
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("charge c-1")),
        "{outcome:?}"
    );
    assert_eq!(steps, [StepStatus::Compensated]);
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_retryable_error_after_an_effect_is_probed_before_the_next_try() {
    let peers = Arc::new(Peers::new([away()]));
    let (outcome, _) = charge(&peers).await;
    assert_eq!(outcome, Outcome::Completed);
    assert_eq!(peers.log(), ["charge", "ask", "charge"]);
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_step_that_must_not_run_twice_waits_for_a_person_after_such_an_error() {
    let mut peers = Peers::new([away()]);
    peers.policy = StepPolicy::default().not_idempotent();
    let peers = Arc::new(peers);
    let (outcome, steps) = charge(&peers).await;
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    assert_eq!((steps, peers.log()), (vec![StepStatus::Unknown], vec!["charge".into(), "ask".into()]));
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_later_attempt_that_states_nothing_is_not_clean_either() {
    // The first attempt has charged; the second is refused before it gets that far.
    let mut peers = Peers::new([away(), StepError::rejected("closed")]);
    peers.probe = Mutex::new([Probe::NotSeenYet, Probe::Unknown].into());
    let peers = Arc::new(peers);
    let (outcome, steps) = charge(&peers).await;
    assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
    assert_eq!(
        (peers.log().last().unwrap().as_str(), steps),
        ("refund Unknown", vec![StepStatus::Compensated])
    );
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_rejection_after_an_effect_undoes_it_with_the_output_of_the_probe() {
    let mut peers = Peers::new([StepError::rejected("the order is closed")]);
    peers.probe = Mutex::new([Probe::Applied("c-1".into())].into());
    let peers = Arc::new(peers);
    let (outcome, steps) = charge(&peers).await;
    assert!(
        matches!(&outcome, Outcome::Compensated { reason } if reason.contains("the order is closed")),
        "{outcome:?}"
    );
    assert_eq!(peers.log(), ["charge", "ask", "refund Applied(..)"]);
    assert_eq!(steps, [StepStatus::Compensated]);
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn proof_that_nothing_happened_makes_a_refusal_clean_again() {
    let mut peers = Peers::new([StepError::rejected("the order is closed")]);
    peers.probe = Mutex::new([Probe::NotApplied].into());
    let peers = Arc::new(peers);
    let (_, steps) = charge(&peers).await;
    assert_eq!((peers.log(), steps), (vec!["charge".into(), "ask".into()], vec![StepStatus::Failed]));
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_effect_that_has_no_undo_waits_for_a_person() {
    let peers = Arc::new(Peers::new([StepError::rejected("the account is closed")]));
    let (outcome, steps) = pay_out(&peers).await;
    assert!(
        matches!(&outcome, Outcome::Stuck { reason, .. } if reason.contains("charge c-1")),
        "{outcome:?}"
    );
    assert_eq!(steps, [StepStatus::Unknown]);
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn no_try_left_after_an_effect_that_has_no_undo_waits_for_a_person() {
    let mut peers = Peers::new([away()]);
    peers.policy = StepPolicy::default().retries(Backoff::never());
    let peers = Arc::new(peers);
    let (outcome, steps) = pay_out(&peers).await;
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    assert_eq!(steps, [StepStatus::Unknown]);
}

#[tokio::test(start_paused = true)]
async fn without_an_effect_both_errors_are_clean() {
    for error in [away(), StepError::rejected("no")] {
        let mut peers = Peers::new([error]);
        (peers.states, peers.policy) = (false, StepPolicy::default().retries(Backoff::never()));
        let peers = Arc::new(peers);
        let (outcome, steps) = charge(&peers).await;
        assert!(matches!(outcome, Outcome::Compensated { .. }), "{outcome:?}");
        assert_eq!((peers.log(), steps), (vec!["charge".into()], vec![StepStatus::Failed]));
    }
}

/// A client's own error.
#[derive(Debug, thiserror::Error)]
#[error("no connection, so nothing was sent")]
struct NoConnection;

// proves: S-12
#[test]
fn an_error_of_a_peer_is_never_clean_by_itself() {
    fn asks() -> Result<(), StepError> {
        Err(NoConnection)?;
        Ok(())
    }
    assert!(matches!(asks(), Err(StepError::Unknown(_))));
}

/// The stored text of the only step of a saga that stands still.
async fn stored_error(peers: &Arc<Peers>) -> String {
    stored_error_of(Saga::named("money").pivot(PayOut(peers.clone())).build().unwrap()).await
}

async fn stored_error_of(saga: Saga) -> String {
    testkit::time_limit();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    let outcome = orchestrator.run("money", "M-1", &1_u32).await.unwrap();
    assert!(matches!(outcome, Outcome::Stuck { .. } | Outcome::Paused { .. }), "{outcome:?}");
    let view = orchestrator.get("money", "M-1").await.unwrap().unwrap();
    assert!(view.instance.reason.is_some_and(|reason| reason.contains("charge c-1")), "{:?}", view.steps);
    view.steps[0].error.clone().unwrap()
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_person_finds_the_effect_beside_every_error_after_it() {
    let page = || "x".repeat(9000);
    for error in [
        away(),
        StepError::unknown("connection reset"),
        StepError::fatal("a bug"),
        StepError::rejected(page()),
        StepError::unknown(page()),
        StepError::fatal(page()),
    ] {
        let text = error.to_string().chars().take(40).collect::<String>();
        let mut peers = Peers::new([error]);
        peers.policy = StepPolicy::default().not_idempotent();
        let error = stored_error(&Arc::new(peers)).await;
        assert!(error.contains("charge c-1"), "{text}: {error}");
    }
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_later_failure_without_an_effect_does_not_hide_the_earlier_effect() {
    let later: [fn() -> StepError; 4] = [
        || StepError::fatal("a bug"),
        || StepError::unreachable("bank", "refused"),
        || StepError::rejected("closed"),
        || StepError::unknown("reset"),
    ];
    for error in later {
        let text = error().to_string();
        let mut peers = Peers::new([away(), error(), error(), error(), error()]);
        peers.states_once = true;
        peers.probe = Mutex::new([Probe::NotSeenYet].into());
        // Released and taken up again in between.
        let often = Backoff::constant(1, Duration::from_secs(60));
        peers.policy = StepPolicy::default().retries(often.clone()).patience(often);
        let stored = stored_error(&Arc::new(peers)).await;
        assert!(stored.contains("charge c-1"), "{text}: {stored}");
    }
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_person_finds_the_effect_of_a_step_that_must_not_run_twice_after_a_take_over() {
    let mut peers = Peers::new([away()]);
    // Released and taken up again in between.
    let often = Backoff::constant(1, Duration::from_secs(60));
    peers.policy = StepPolicy::default().not_idempotent().retries(often.clone()).patience(often);
    let stored = stored_error(&Arc::new(peers)).await;
    assert!(stored.contains("charge c-1"), "{stored}");
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_person_finds_the_effect_after_the_deadline() {
    // The deadline passes in a wait, and while no worker has the saga.
    for (deadline, pause) in [(12, 8), (30, 60)] {
        let mut peers = Peers::new([away(), away()]);
        (peers.states_once, peers.probe) = (true, Mutex::new([Probe::NotSeenYet].into()));
        let often = Backoff::constant(3, Duration::from_secs(pause));
        peers.policy = StepPolicy::default().retries(often.clone()).patience(often);
        let saga = Saga::named("money").deadline(Duration::from_secs(deadline));
        let stored = stored_error_of(saga.pivot(PayOut(Arc::new(peers))).build().unwrap()).await;
        assert!(stored.contains("charge c-1") && stored.contains("deadline"), "{stored}");
    }
}

// proves: S-12
#[tokio::test(start_paused = true)]
async fn a_person_finds_every_effect_of_a_step_whose_key_was_forgotten() {
    for last in [away(), StepError::rejected("closed"), StepError::fatal("a bug")] {
        let text = last.to_string();
        let mut peers = Peers::new([away(), last]);
        (peers.states_anew, peers.policy) =
            (true, StepPolicy::default().retries(Backoff::constant(1, PAUSE)));
        let stored = stored_error(&Arc::new(peers)).await;
        assert!(stored.contains("charge c-1, charge c-2"), "{text}: {stored}");
        assert_eq!(stored.matches("acknowledged").count(), 1, "{text}: {stored}");
    }
}
