//! Instrumented steps: each call is a point, each effect is on a ledger, and promises about
//! the moment of a call are checked at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::fate::Fate;
use super::gate::Gate;
use super::promise::Promise;
use crate::core::{Shape, StepShape};
use crate::definition::{Answer, AnyInput, AnyLocal, AnyStep, Saga};
use crate::policy::{Backoff, StepPolicy};
use crate::record::{Document, Journal, Record, StepRow};
use crate::status::{Status, StepStatus};
use crate::step::context::Frame;
use crate::step::{Evidence, Probe, StepError};
use crate::store::SagaStore;

/// The world outlives the workers of a schedule.
pub(super) struct World {
    pub(super) store: Arc<dyn SagaStore>,
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) fate: Fate,
    /// A step that reads what it did not list.
    unlisted: Arc<OnceLock<String>>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    effects: BTreeMap<usize, Effect>,
    /// The last answer of each step, also if it was lost.
    outputs: BTreeMap<usize, Document>,
    broken: Option<String>,
    promise: Option<Promise>,
    /// The calls that began since the promise: steps, and whether to undo them.
    begun: BTreeSet<(usize, bool)>,
}

/// The other side of a step: one key to do, one to undo.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effect {
    pub(super) present: bool,
    undone: bool,
    called: bool,
    undo_called: bool,
    /// A call of it began, and neither its answer nor a probe said that nothing happened.
    doubtful: bool,
    /// A probe said that no call under this key takes effect any more.
    ruled_out: bool,
}

impl World {
    pub(super) fn new(store: Arc<dyn SagaStore>, name: &str, fate: Fate, shape: Shape) -> Self {
        let (unlisted, ledger) = (Arc::default(), Mutex::default());
        Self { store, name: name.into(), shape, fate, unlisted, ledger }
    }

    /// The saga as it is stored. A store that cannot be asked shows none, and is said to be the reason.
    pub(super) async fn journal(&self) -> Option<Journal> {
        let found = self.store.find(&self.name, "explored").await;
        found.unwrap_or_else(|error| {
            self.breaks(format!("the store could not be asked for the saga: {error}"));
            None
        })
    }

    pub(super) fn effect(&self, at: usize) -> Effect {
        self.lock().effects.get(&at).copied().unwrap_or_default()
    }

    pub(super) fn broken_promise(&self) -> Option<String> {
        self.unlisted.get().cloned().or_else(|| self.lock().broken.clone())
    }

    /// The frame of a step under observation.
    pub(super) fn watches(&self, mut frame: Frame) -> Frame {
        frame.uses.told = Some(Arc::clone(&self.unlisted));
        frame
    }

    pub(super) fn breaks(&self, promise: String) {
        self.lock().broken.get_or_insert(promise);
    }

    pub(super) fn output(&self, at: usize) -> Option<Document> {
        self.lock().outputs.get(&at).cloned()
    }

    pub(super) fn is_proven_absent(&self, at: usize) {
        self.change(at, |effect| effect.doubtful = false);
    }

    /// A person sees to it that there is no effect, and will be none.
    pub(super) fn ends(&self, at: usize) {
        self.change(at, |effect| (effect.present, effect.undone) = (false, true));
    }

    pub(super) fn promise(&self, promise: Promise) {
        let mut ledger = self.lock();
        (ledger.promise, ledger.begun) = (Some(promise), BTreeSet::new());
    }

    pub(super) fn promised(&self) -> Option<Promise> {
        self.lock().promise
    }

    pub(super) fn forget_promises(&self) {
        self.lock().promise = None;
    }

    /// S-8, at the moment something begins: a driver hears of a request with its next result, so one call may still
    /// begin after it.
    fn check_promise(&self, at: usize, undo: bool, status: Status) {
        let mut ledger = self.lock();
        let (most, asked) = match ledger.promise {
            Some(Promise::Pauses) => (1, "pause"),
            Some(Promise::Turns) if !undo && status == Status::InProgress => (1, "turn back"),
            Some(Promise::TurnsForCertain) if !undo && status == Status::InProgress => (0, "turn back"),
            _ => return,
        };
        ledger.begun.insert((at, undo));
        if ledger.begun.len() > most {
            let broken = format!("S-8: the saga goes on to step {} after it was asked to {asked}", at + 1);
            ledger.broken.get_or_insert(broken);
        }
    }

    /// Takes the effects of a local step from the record that its transaction was committed with.
    pub(super) fn committed(&self, record: &Record) {
        for row in &record.change.steps {
            let at = (row.order as usize).saturating_sub(1);
            match row.status {
                StepStatus::Succeeded => self.change(at, |effect| effect.present = true),
                StepStatus::Compensated => {
                    self.change(at, |effect| (effect.present, effect.undone) = (false, true));
                }
                _ => {}
            }
        }
    }

    fn answers(&self, at: usize, output: Option<&Document>) {
        let Some(output) = output else { return };
        self.change(at, |effect| effect.present = true);
        self.lock().outputs.insert(at, output.clone());
    }

    pub(super) fn is_first_call(&self, at: usize) -> bool {
        self.change(at, |effect| !std::mem::replace(&mut effect.called, true))
    }

    pub(super) fn is_first_undo(&self, at: usize) -> bool {
        self.change(at, |effect| !std::mem::replace(&mut effect.undo_called, true))
    }

    fn change<T>(&self, at: usize, change: impl FnOnce(&mut Effect) -> T) -> T {
        change(self.lock().effects.entry(at).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// S-1 and S-2, at the moment an effect is about to start.
    pub(super) async fn check_execute(&self, at: usize, idempotent: bool) {
        if !idempotent && self.effect(at).doubtful {
            self.breaks(format!("S-2: step {} must not run twice, and runs again without a proof", at + 1));
        }
        let Some(journal) = self.journal().await else {
            return self.breaks(format!("S-1: step {} starts before its saga is stored", at + 1));
        };
        self.check_promise(at, false, journal.instance.status);
        let status = |at: usize| journal.steps.get(at).map(|row| row.status);
        if (0..at).any(|before| status(before) != Some(StepStatus::Succeeded)) {
            self.breaks(format!("S-1: step {} starts before the results before it are stored", at + 1));
        }
        if matches!(status(at), Some(StepStatus::Succeeded | StepStatus::Compensated)) {
            self.breaks(format!("S-2: step {} is executed again after its result was stored", at + 1));
        }
    }

    /// S-3 and S-4, at the moment an undo is about to start.
    pub(super) async fn check_compensate(&self, at: usize) {
        let Some(journal) = self.journal().await else {
            return self.breaks("S-3: an undo starts without a saga".into());
        };
        self.check_promise(at, true, journal.instance.status);
        if journal.instance.status != Status::Compensating {
            self.breaks(format!(
                "S-3: step {} is undone while the saga is {}",
                at + 1,
                journal.instance.status
            ));
        }
        let past =
            (0..self.shape.steps.len()).find(|at| self.shape.is_final(*at) && self.effect(*at).present);
        if let Some(past) = past {
            let step = self.shape.steps[past].name;
            self.breaks(format!(
                "S-14: step {} is undone although {step}, after which there is no way back, happened",
                at + 1
            ));
        }
        let failed = |(row, step): (&StepRow, &StepShape)| {
            row.status == StepStatus::CompensationFailed && step.holds_undo
        };
        if journal.steps.iter().zip(&self.shape.steps).skip(at + 1).any(failed) {
            self.breaks(format!("S-13: step {} is undone although the undo of a later one failed", at + 1));
        }
        let open = |row: &StepStatus| matches!(row, StepStatus::Succeeded | StepStatus::Unknown);
        let later = journal.steps.iter().skip(at + 1).zip(&self.shape.steps[at + 1..]);
        if later.into_iter().any(|(row, step)| step.undo && open(&row.status)) {
            self.breaks(format!("S-4: step {} is undone before a later one", at + 1));
        }
    }
}

/// Replaces every step of a saga by one that is instrumented.
pub(super) fn instrument(mut saga: Saga, world: &Arc<World>, gate: &Arc<Gate>) -> Saga {
    let instrument = |(at, inner)| -> Box<dyn AnyStep> {
        Box::new(InstrumentedStep { inner, at, world: Arc::clone(world), gate: Arc::clone(gate) })
    };
    saga.definition.saga_type.clone_from(&world.name);
    saga.name = world.name.as_str().into();
    saga.steps = saga.steps.into_iter().enumerate().map(instrument).collect();
    saga
}

pub(super) struct InstrumentedStep {
    pub(super) inner: Box<dyn AnyStep>,
    pub(super) at: usize,
    pub(super) world: Arc<World>,
    pub(super) gate: Arc<Gate>,
}

impl AnyStep for InstrumentedStep {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn uses(&self) -> &'static [&'static str] {
        self.inner.uses()
    }

    /// Eighteen tries of an hour show nothing that three do not.
    fn policy(&self) -> StepPolicy {
        let short = Backoff::doubling(3, Duration::from_secs(2), Duration::from_secs(8));
        self.inner.policy().patience(short)
    }

    fn check_output(&self, plain: &Document) -> Result<(), String> {
        self.inner.check_output(plain)
    }

    fn local(&self) -> Option<&dyn AnyLocal> {
        self.inner.local().map(|_| self as &dyn AnyLocal)
    }

    fn execute(&self, input: AnyInput, frame: Frame) -> Answer<'_, Document> {
        Box::pin(async move {
            self.gate.write_point("before a step").await;
            if !self.gate.is_zombie() {
                self.world.check_execute(self.at, self.inner.policy().idempotent).await;
            }
            self.world.change(self.at, |effect| effect.doubtful = true);
            let effect = self.world.effect(self.at);
            let first = self.world.is_first_call(self.at);
            let last = self.at + 1 == self.world.shape.steps.len();
            let mut stated = false;
            let answered = match self.world.fate {
                _ if effect.undone => Err(StepError::rejected("this key was undone")),
                // The call was on its way when the probe ruled it out.
                _ if effect.ruled_out && self.gate.is_zombie() => {
                    Err(StepError::rejected("this key was ruled out"))
                }
                Fate::Refused(at) if at == self.at => Err(StepError::rejected("refused")),
                Fate::UndoLost(_) | Fate::UndoRefused(_) if last => Err(StepError::rejected("refused")),
                Fate::RequestLost(at) if at == self.at && first => {
                    Err(StepError::unknown("the request was lost"))
                }
                fate => {
                    let effects = frame.effects.clone();
                    let answer = self.inner.execute(input, self.world.watches(frame)).await;
                    self.world.answers(self.at, answer.as_ref().ok());
                    stated = effects.stated().is_some();
                    match fate {
                        Fate::AnswerLost(at) if at == self.at && first => {
                            Err(StepError::unknown("the answer was lost"))
                        }
                        _ => answer,
                    }
                }
            };
            if stated {
                self.world.change(self.at, |effect| effect.present = true);
            } else if let Err(StepError::Rejected(_) | StepError::Retryable(_)) = answered {
                self.world.change(self.at, |effect| effect.doubtful = false);
            }
            self.gate.write_point("after a step").await;
            answered
        })
    }

    fn probe(&self, input: AnyInput, frame: Frame) -> Answer<'_, Probe<Document>> {
        Box::pin(async move {
            self.gate.read_point("before a probe").await;
            let answer = self.inner.probe(input, self.world.watches(frame)).await;
            if let Ok(Probe::NotApplied) = answer {
                self.world.change(self.at, |effect| (effect.doubtful, effect.ruled_out) = (false, true));
            }
            self.gate.read_point("after a probe").await;
            answer
        })
    }

    fn compensate(&self, input: AnyInput, frame: Frame, done: Option<Document>) -> Answer<'_, Evidence> {
        Box::pin(async move {
            self.gate.write_point("before an undo").await;
            if !self.gate.is_zombie() {
                self.world.check_compensate(self.at).await;
            }
            let first = self.world.is_first_undo(self.at);
            let mut answered = match self.world.fate {
                Fate::UndoRefused(at) if at == self.at && first => Err(StepError::rejected("refused")),
                _ => self.inner.compensate(input, self.world.watches(frame), done).await,
            };
            if answered.is_ok() {
                self.world.change(self.at, |effect| (effect.present, effect.undone) = (false, true));
            }
            if self.world.fate == Fate::UndoLost(self.at) && first {
                answered = Err(StepError::unknown("the answer of the undo was lost"));
            }
            self.gate.write_point("after an undo").await;
            answered
        })
    }
}
