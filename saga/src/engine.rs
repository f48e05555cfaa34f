//! The shell: takes what the machine says is next, does it, writes the result, waits for the
//! acknowledgement, and only then goes on.
//!
//! Invariant: no effect starts before the write that precedes it was acknowledged, nor while the
//! worker cannot be sure of its lease. `start.rs` inserts a saga, `drive.rs` drives one, `attempt.rs`
//! makes the tries of one step, `drive/local.rs` those of a local step, `park.rs` stops sagas that
//! cannot be driven, `writer.rs` batches writes by `group_commit.rs`, `heartbeat.rs` renews the lease
//! of `lease.rs`, `recover.rs` finds lost sagas, `notifier.rs` notifies waiting callers, `trace_context.rs`
//! names traces, and `requests.rs` reads the
//! requests of operators for waiting sagas.

mod attempt;
mod catch_panic;
mod drive;
mod group_commit;
mod heartbeat;
mod lease;
mod nested;
pub(crate) mod notifier;
mod open_counts;
mod park;
mod providers;
mod recover;
mod requests;
pub(crate) mod start;
pub(crate) mod trace_context;
pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use crate::codec::Sealer;
use crate::definition::Saga;
use crate::error::{SagaError, StoreError};
use crate::metrics;
use crate::record::{Intervened, Intervention, Journal, SagaId, WorkerId};
use crate::store::SagaStore;
use catch_panic::CatchPanic;
use drive::Taken;
use lease::{Lease, LeaseTerm};
use notifier::{Notification, Notifier};
use providers::Providers;
use requests::OperatorRequests;
use trace_context::TraceContext;
use writer::Writer;

/// The settings of an orchestrator.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
    pub(crate) in_flight: usize,
    pub(crate) start_patience: Duration,
    /// The most calls that a provider may have at once, by its name.
    pub(crate) provider_limits: BTreeMap<String, usize>,
    pub(crate) provider_pause: Duration,
    pub(crate) grace: Duration,
    pub(crate) park_after: Duration,
    pub(crate) stalled_max: u32,
    pub(crate) suspect_at: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            in_flight: 1024,
            start_patience: Duration::from_secs(30),
            provider_limits: BTreeMap::new(),
            provider_pause: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            park_after: Duration::from_secs(10),
            stalled_max: 5,
            suspect_at: 2,
        }
    }
}

/// Everything one worker shares between its tasks.
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn SagaStore>,
    pub(crate) worker: WorkerId,
    pub(crate) settings: Settings,
    pub(crate) sealer: Sealer,
    pub(crate) tracing: TraceContext,
    /// By name, then fingerprint: old and new definitions side by side.
    pub(crate) plans: BTreeMap<String, BTreeMap<String, Arc<Saga>>>,
    /// The fingerprint that new sagas of a name start with.
    pub(crate) newest: BTreeMap<String, String>,
    pub(crate) notifier: Notifier,
    pub(crate) permits: Arc<Semaphore>,
    /// The right to drive sagas here that may have killed their workers; see `recover.rs`.
    suspects: Arc<Semaphore>,
    pub(crate) lease: Lease,
    pub(crate) writer: Writer,
    active: Mutex<BTreeSet<SagaId>>,
    /// Sagas whose drive ended without rest: their next step may have been started.
    left: Mutex<BTreeSet<SagaId>>,
    requests: OperatorRequests,
    providers: Providers,
    stop: watch::Sender<Stop>,
    /// Read while a heartbeat is under way.
    beats: RwLock<()>,
}

/// The stage of a worker on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    Running,
    /// Start nothing new; leave at the next safe point.
    Draining,
    /// All background work ends.
    Stopped,
}

/// The right of one task to drive one saga in this process.
pub(crate) struct Reservation {
    engine: Arc<Engine>,
    id: SagaId,
    /// Held until it makes progress.
    suspect: Option<OwnedSemaphorePermit>,
    /// The count of the ends of sagas that were taken over together.
    ended: Option<Arc<Semaphore>>,
}

impl Reservation {
    fn id(&self) -> SagaId {
        self.id
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.engine.active().remove(&self.id);
        if let Some(ended) = &self.ended {
            ended.add_permits(1);
        }
        metrics::drive_ended();
    }
}

impl Engine {
    pub(crate) fn new(
        store: Arc<dyn SagaStore>,
        worker: WorkerId,
        settings: Settings,
        sealer: Sealer,
        sagas: Vec<Saga>,
        tracing: TraceContext,
    ) -> Arc<Self> {
        let (mut plans, mut newest) = (BTreeMap::<_, BTreeMap<_, _>>::new(), BTreeMap::new());
        let mut versions = BTreeMap::new();
        for saga in sagas {
            let (name, print) = (saga.name().to_owned(), saga.fingerprint().to_owned());
            if versions.get(&name).is_none_or(|version| *version < saga.version) {
                versions.insert(name.clone(), saga.version);
                newest.insert(name.clone(), print.clone());
            }
            plans.entry(name).or_default().insert(print, Arc::new(saga));
        }
        let lease = Lease::new(settings.lease);
        let providers =
            Providers::new(settings.provider_limits.clone(), settings.in_flight, settings.provider_pause);
        let store: Arc<dyn SagaStore> = Arc::new(CatchPanic(store));
        Arc::new(Self {
            writer: Writer::start(Arc::clone(&store), lease.clone()),
            lease,
            permits: Arc::new(Semaphore::new(settings.in_flight)),
            suspects: Arc::new(Semaphore::new(recover::SUSPECTS)),
            store,
            worker,
            settings,
            sealer,
            tracing,
            plans,
            newest,
            notifier: Notifier::default(),
            active: Mutex::default(),
            left: Mutex::default(),
            requests: OperatorRequests::default(),
            providers,
            stop: watch::Sender::new(Stop::Running),
            beats: RwLock::default(),
        })
    }

    pub(crate) fn plan(&self, saga_type: &str, fingerprint: &str) -> Option<Arc<Saga>> {
        self.plans.get(saga_type)?.get(fingerprint).cloned()
    }

    pub(crate) fn newest(&self, saga_type: &str) -> Option<Arc<Saga>> {
        self.plan(saga_type, self.newest.get(saga_type)?)
    }

    /// Every definition of this worker, as (type, fingerprint).
    fn runnable(&self) -> Vec<(String, String)> {
        let of = |(name, prints): (&String, &BTreeMap<String, Arc<Saga>>)| {
            prints.keys().map(|print| (name.clone(), print.clone())).collect::<Vec<_>>()
        };
        self.plans.iter().flat_map(of).collect()
    }

    /// Sends the first heartbeat, and starts the tasks of this worker beside driving.
    pub(crate) async fn begin_work(self: &Arc<Self>) -> Result<(), StoreError> {
        heartbeat::beat(self).await?;
        tokio::spawn(heartbeat::keep_lease(Arc::clone(self)));
        tokio::spawn(recover::recover(Arc::clone(self)));
        tokio::spawn(notifier::watch_others(Arc::clone(self)));
        tokio::spawn(requests::listen_for_requests(Arc::clone(self)));
        tokio::spawn(open_counts::show_open_sagas(Arc::clone(self)));
        Ok(())
    }

    /// Pauses a task of this worker. Answers false when the worker stops.
    async fn pause_unless_stopped(&self, pause: Duration) -> bool {
        let mut stop = self.stop_signal();
        tokio::select! {
            () = sleep(pause) => self.stopping() < Stop::Stopped,
            _ = stop.wait_for(|stop| *stop == Stop::Stopped) => false,
        }
    }

    /// At most one task of this process drives a saga.
    pub(crate) fn reserve(self: &Arc<Self>, id: SagaId) -> Option<Reservation> {
        let fresh = self.active().insert(id);
        fresh.then(|| {
            metrics::drive_began();
            Reservation { engine: Arc::clone(self), id, suspect: None, ended: None }
        })
    }

    pub(crate) fn is_active(&self, id: SagaId) -> bool {
        self.active().contains(&id)
    }

    pub(crate) fn active_count(&self) -> usize {
        self.active().len()
    }

    pub(crate) fn stop(&self, stop: Stop) {
        if stop == Stop::Stopped {
            self.lease.revoke();
        }
        self.stop.send_if_modified(|now| {
            let further = *now < stop;
            *now = (*now).max(stop);
            further
        });
    }

    pub(crate) fn stopping(&self) -> Stop {
        *self.stop.borrow()
    }

    pub(crate) fn stop_signal(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    /// The right to drive one saga, for a start.
    pub(crate) async fn room_to_start(&self) -> Result<OwnedSemaphorePermit, SagaError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let began = Instant::now();
        let mut stop = self.stop_signal();
        let permit = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop >= Stop::Draining) => Err(SagaError::NotStarted),
            permit = Arc::clone(&self.permits).acquire_owned() => permit.map_err(|_| SagaError::NotStarted),
            () = sleep(self.settings.start_patience) => {
                metrics::start_refused_as_busy();
                Err(SagaError::Busy { in_flight: self.settings.in_flight, waited: self.settings.start_patience })
            }
        };
        metrics::start_waited(began.elapsed());
        permit
    }

    /// Drives a saga to its next resting place, in a task of its own (the caller may go away).
    ///
    /// `term` was read before the store confirmed that this worker owns the saga: from then on a lapse may have given
    /// it to another worker, also while this waits for a permit.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        mut reservation: Reservation,
        permit: Option<OwnedSemaphorePermit>,
        journal: Journal,
        clean: bool,
        term: LeaseTerm,
    ) {
        let engine = Arc::clone(self);
        let (read, suspect) = (Instant::now(), reservation.suspect.take());
        let (id, saga_type) = (journal.instance.id, journal.instance.saga_type.as_str());
        let span = tracing::info_span!("saga", saga_id = %id, saga_type);
        if let Some(trace) = &journal.instance.trace {
            // A claim and a decision begin an epoch.
            (self.tracing.join)(&span, trace, journal.instance.epoch > 1);
        }
        let driving = async move {
            let _permit = match permit {
                Some(permit) => Some(permit),
                // No code closes this semaphore.
                None => Arc::clone(&engine.permits).acquire_owned().await.ok(),
            };
            let epoch = journal.instance.epoch;
            let taken = Taken { journal, read, clean, term, suspect };
            let driven = AssertUnwindSafe(drive::drive(&engine, taken)).catch_unwind().await;
            let news = match driven {
                Ok(news) => news,
                Err(panic) => park::park_after_panic(&engine, id, epoch, panic).await,
            };
            if !matches!(news, Some(Notification::Settled { .. })) {
                engine.left().insert(id);
            }
            drop(reservation);
            if let Some(news) = news {
                engine.notifier.notify(id, news);
            }
        };
        tokio::spawn(driving.instrument(span));
    }

    /// Writes an operator's decision in a task of its own: the caller may go away, a transaction
    /// that has begun must not be dropped.
    pub(crate) async fn intervene(&self, intervention: Intervention) -> Result<Intervened, StoreError> {
        let store = Arc::clone(&self.store);
        let written = tokio::spawn(async move { store.intervene(&intervention).await }).await;
        written.unwrap_or_else(|error| Err(StoreError::ambiguous("apply an operator's decision", error)))
    }

    /// Gives everything back and removes the worker; in a task of its own, as `intervene`. A heartbeat that reached the
    /// store afterwards would bring the worker back, so the one under way may end first.
    pub(crate) async fn retire(&self) -> Result<u64, StoreError> {
        let _no_heartbeat = timeout(self.settings.lease / 3, self.beats.write()).await;
        let (store, worker) = (Arc::clone(&self.store), self.worker);
        let retired = tokio::spawn(async move { store.retire(worker).await }).await;
        retired.unwrap_or_else(|error| Err(StoreError::ambiguous("retire a worker", error)))
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<SagaId>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, BTreeSet<SagaId>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
