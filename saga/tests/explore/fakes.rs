//! An explorer that looks at the user's fakes: it finds faults that the answers of the steps hide.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use probity_saga::testing::{Calls, Explored, Refused, Report, explore, explore_with};
use probity_saga::{
    Evidence, Executed, ForwardStep, Probe, Saga, SagaStep, SagaView, Status, StepContext, StepError,
    StepPolicy, WhenUnknown,
};

undoable!(Ship);

/// A channel that honours its keys, and an order that can be paid.
struct Books {
    calls: Calls,
    /// The charges by their keys: `true` while the charge stands.
    charges: Mutex<BTreeMap<String, bool>>,
    paid: AtomicBool,
}

impl Books {
    fn new(calls: &Calls) -> Arc<Self> {
        Arc::new(Self { calls: calls.clone(), charges: Mutex::default(), paid: AtomicBool::new(false) })
    }

    fn charge(&self, key: &str) -> Result<(), Refused> {
        self.calls.arrive("charge")?;
        self.charges.lock().unwrap().entry(key.into()).or_insert(true);
        Ok(())
    }

    fn pay(&self) -> Result<(), Refused> {
        self.calls.arrive("pay")?;
        self.paid.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// No charge of this key stands any more, nor will.
    fn void(&self, key: &str) -> Result<(), Refused> {
        self.calls.arrive("void")?;
        self.charges.lock().unwrap().insert(key.into(), false);
        self.paid.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn check(&self, saga: &SagaView) -> Result<(), String> {
        let standing = self.charges.lock().unwrap().values().filter(|stands| **stands).count();
        match (saga.instance.status, standing) {
            (Status::Completed, 1) | (Status::Compensated, 0) => Ok(()),
            (Status::Completed | Status::Compensated, _) => {
                Err(format!("{standing} charges stand, and the saga is {}", saga.instance.status))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Right,
    NewKeys,
    LazyUndo,
    /// Charges and pays, and takes a refused payment for no effect.
    Forgets,
    /// Does as `Forgets`, but says that it has charged.
    States,
}

struct Charge {
    books: Arc<Books>,
    kind: Kind,
}

fn away(refused: Refused) -> StepError {
    StepError::retryable(refused.to_string())
}

impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";

    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        let key = match self.kind {
            Kind::NewKeys => format!("{}-{}", cx.idempotency_key(), cx.attempt()),
            _ => cx.idempotency_key().to_owned(),
        };
        self.books.charge(&key).map_err(away)?;
        if self.kind == Kind::States {
            cx.effect_acknowledged("a charge");
        }
        if matches!(self.kind, Kind::Forgets | Kind::States) {
            self.books.pay().map_err(away)?;
        }
        Ok(*cx.input())
    }

    async fn compensate(&self, cx: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        if self.kind != Kind::LazyUndo {
            self.books.void(&cx.execute_key())?;
        }
        Ok(Evidence::new("voided"))
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().when_unknown(WhenUnknown::Compensate)
    }
}

fn explored(kind: Kind) -> Result<Report, Explored> {
    let saga = |books: &Arc<Books>| {
        Saga::named("explored").step(Charge { books: books.clone(), kind }).step(Ship).build()
    };
    explore_with(1_u32, Books::new, saga, |books, saga| books.check(saga))
}

fn found(kind: Kind) -> String {
    match explored(kind) {
        Err(Explored::Broken(broken)) => broken.to_string(),
        other => panic!("nothing was found: {other:?}"),
    }
}

#[test]
fn a_step_that_makes_a_new_key_for_each_attempt_is_found() {
    let found = found(Kind::NewKeys);
    assert!(found.contains("charges stand"), "{found}");
}

#[test]
fn an_undo_that_does_nothing_is_found() {
    let found = found(Kind::LazyUndo);
    assert!(found.contains("1 charges stand, and the saga is compensated"), "{found}");
}

// proves: S-12
#[test]
fn a_charge_forgotten_by_a_clean_failure_is_found_with_the_refused_call() {
    let found = found(Kind::Forgets);
    assert!(found.contains("1 charges stand, and the saga is compensated"), "{found}");
    assert!(found.contains("call 2 of the fakes is refused"), "{found}");
}

// proves: S-12, S-13
#[test]
fn a_stated_charge_is_undone_for_every_refused_call() {
    let report = explored(Kind::States).unwrap();
    assert!(report.completed > 0 && report.compensated > 0, "{report}");
}

#[test]
fn a_correct_step_passes() {
    let report = explored(Kind::Right).unwrap();
    assert!(report.completed > 0 && report.compensated > 0, "{report}");
}

/// A pivot that can be asked what became of it.
struct PayOut(Arc<Books>);
impl ForwardStep for PayOut {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "PayOut";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.charge(cx.idempotency_key()).map_err(away)?;
        Ok(*cx.input())
    }
    async fn probe(&self, cx: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
        let there = self.0.charges.lock().unwrap().contains_key(cx.idempotency_key());
        Ok(if there { Probe::Applied(*cx.input()) } else { Probe::NotSeenYet })
    }
}

// proves: S-5, S-14
#[test]
fn a_saga_whose_pivot_happened_is_never_compensated_by_any_request() {
    let saga = |books: &Arc<Books>| Saga::named("explored").step(Ship).pivot(PayOut(books.clone())).build();
    let report = explore_with(1_u32, Books::new, saga, |books, saga| books.check(saga)).unwrap();
    assert!(report.completed > 0 && report.compensated > 0, "{report}");
}

/// A pivot without a probe.
struct Mute;
impl ForwardStep for Mute {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Mute";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Ok(*cx.input())
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

#[test]
fn the_report_shows_the_first_schedule_that_waits_for_a_person_and_why() {
    let report = explore(1_u32, || Saga::named("explored").pivot(Mute).build()).unwrap();
    let first = report.first_waiting.clone().unwrap();
    assert!(report.waiting > 0 && matches!(first.status, Status::Stuck | Status::Paused), "{report}");
    assert!(!first.reason.is_empty() && first.schedule.contains("point"), "{report}");
    assert!(report.to_string().contains(&first.schedule), "{report}");
}
