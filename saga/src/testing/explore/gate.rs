//! Points at which a worker can be stopped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::record::WorkerId;

/// The place at which a worker is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// At this of all its points.
    Point(usize),
    /// At this of those where something is written or done.
    WritePoint(usize),
}

/// Counts the points of one worker, and does something at one of them.
pub(super) struct Gate {
    cut: Option<At>,
    at_cut: AtCut,
    /// It stops before, or after, it gives its sagas back.
    stops_leaving: Option<Side>,
    passed: AtomicUsize,
    write_points: Mutex<Vec<usize>>,
    /// The calls that it was about to make, or had just made, where it was reached.
    reached: Mutex<Vec<&'static str>>,
    worker: OnceLock<WorkerId>,
    state: watch::Sender<State>,
}

/// Before a call, or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

enum AtCut {
    /// The worker stops here, and everywhere else, for ever or until the gate is opened.
    Stop,
    /// The same as `Stop`, until a person has done something.
    Wait,
    /// The worker is seen to be here, and goes on.
    Show,
    /// A stopped worker goes on.
    Release(Arc<Gate>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Seen,
    Tripped,
    Open,
}

impl Gate {
    fn new(cut: Option<At>, at_cut: AtCut) -> Self {
        Self {
            cut,
            at_cut,
            stops_leaving: None,
            passed: AtomicUsize::new(0),
            write_points: Mutex::default(),
            reached: Mutex::default(),
            worker: OnceLock::new(),
            state: watch::Sender::new(State::Running),
        }
    }

    pub(super) fn stopping_at(at: At) -> Self {
        Self::new(Some(at), AtCut::Stop)
    }

    pub(super) fn waiting_at(at: At) -> Self {
        Self::new(Some(at), AtCut::Wait)
    }

    pub(super) fn leaving_at(at: At, stops: Option<Side>) -> Self {
        Self { stops_leaving: stops, ..Self::new(Some(at), AtCut::Show) }
    }

    pub(super) fn releasing_at(at: At, stopped: Arc<Self>) -> Self {
        Self::new(Some(at), AtCut::Release(stopped))
    }

    pub(super) fn open_to_all() -> Self {
        Self::new(None, AtCut::Stop)
    }

    /// A point where something is written or done.
    pub(super) async fn write_point(&self, label: &'static str) {
        self.arrive(true, label).await;
        self.hold().await;
    }

    /// A point where something is only asked, or where a lease is renewed.
    pub(super) async fn read_point(&self, label: &'static str) {
        self.arrive(false, label).await;
        self.hold().await;
    }

    /// A write point at which a worker that stops loses what it holds.
    pub(super) async fn write_point_holding<T: Send>(&self, held: T, label: &'static str) -> Option<T> {
        self.arrive(true, label).await;
        if *self.state.borrow() == State::Tripped {
            drop(held);
            self.hold().await;
            return None;
        }
        Some(held)
    }

    /// The point at which a worker that leaves gives its sagas back.
    pub(super) async fn leave(&self, side: Side) {
        let label = if side == Side::Before { "before `retire`" } else { "after `retire`" };
        if self.stops_leaving == Some(side) {
            self.reached.lock().unwrap_or_else(PoisonError::into_inner).push(label);
            self.state.send_replace(State::Tripped);
        }
        self.read_point(label).await;
    }

    async fn arrive(&self, write_point: bool, label: &'static str) {
        let point = self.passed.fetch_add(1, Ordering::SeqCst);
        let mut at = self.cut == Some(At::Point(point));
        if write_point {
            let mut write_points = self.write_points.lock().unwrap_or_else(PoisonError::into_inner);
            at |= self.cut == Some(At::WritePoint(write_points.len()));
            write_points.push(point);
        }
        if !at {
            return;
        }
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).push(label);
        match &self.at_cut {
            AtCut::Release(stopped) => {
                stopped.open();
                // Let it reach its next point before this worker goes on.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            AtCut::Show => self.become_first(State::Seen),
            AtCut::Stop | AtCut::Wait => self.become_first(State::Tripped),
        }
    }

    fn become_first(&self, next: State) {
        self.state.send_if_modified(|state| {
            let running = *state == State::Running;
            if running {
                *state = next;
            }
            running
        });
    }

    /// Not a point of its own, but a stopped worker does not get past it.
    async fn hold(&self) {
        self.until(|state| state != State::Tripped).await;
    }

    /// Until the worker is at its cut.
    pub(super) async fn at_its_cut(&self) {
        self.until(|state| matches!(state, State::Tripped | State::Seen)).await;
    }

    /// Until the worker stands still.
    pub(super) async fn stopped(&self) {
        self.until(|state| state == State::Tripped).await;
    }

    async fn until(&self, is_reached: impl Fn(State) -> bool) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| is_reached(*state)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Tells whether this worker was stopped and goes on now: what it does is late by design.
    pub(super) fn is_zombie(&self) -> bool {
        let stops = self.cut.is_some() && matches!(self.at_cut, AtCut::Stop);
        stops && *self.state.borrow() == State::Open
    }

    pub(super) fn points(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// The numbers of its points that are write points.
    pub(super) fn write_points(&self) -> Vec<usize> {
        self.write_points.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reached(&self) -> Vec<&'static str> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The worker behind it, as soon as it has told the store.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        self.worker.get().copied()
    }

    pub(super) fn is_passed_by(&self, worker: WorkerId) {
        let _ = self.worker.set(worker);
    }
}
