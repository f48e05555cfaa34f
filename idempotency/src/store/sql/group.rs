//! Group commit: concurrent calls of one process share a statement, and with it a flush.
//!
//! No timer and no task that lives when nobody calls: an idle lane flushes a call at once, a busy one takes everything
//! that queued meanwhile, and each call gets its own answer.
//!
//! Invariant: a shared statement waits for nobody's lock for long, and its failure is nobody's answer unless nothing can
//! be said about any of its calls. What it did not settle is asked again by a statement of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;

use super::PostgresStore;
use crate::{Effect, ErrorKind, RecordId, StoreError};

/// The most calls of one statement. A statement of more is no cheaper per call, and loses more when it fails.
const ROWS: usize = 256;
/// The most payload of one statement, unless a single call has more.
const BYTES: usize = 1024 * 1024;
/// How many calls may wait; the next ones wait for room.
const ROOM: usize = 4 * ROWS;
/// How many statements run at once. The second starts only when a full one waits: on a slow disk their flushes queue
/// behind each other.
const RUNNERS: usize = 2;

/// A call that can share a statement with others of its kind.
pub(crate) trait Job: Send + Sync + 'static {
    type Answer: Send + 'static;
    /// What the shared statement did to one record.
    type Outcome: Send;

    fn record(&self) -> RecordId;

    /// About how many bytes it adds to the statement.
    fn payload(&self) -> usize;

    /// Runs the statement for `jobs`, which are on different records, in the order of their records.
    fn run(
        on: &mut PgConnection,
        jobs: &[&Self],
    ) -> impl Future<Output = Result<HashMap<RecordId, Self::Outcome>, StoreError>> + Send;

    /// The answer that follows from what was done to its record, by itself or, if it does not lead, by an equal.
    fn answer(&self, outcome: &Self::Outcome, leads: bool) -> Option<Self::Answer>;

    /// The same call as a statement of its own.
    fn run_alone(
        &self,
        store: &PostgresStore,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// A queue of calls that share statements.
pub(crate) struct Lane<J: Job>(Arc<Shared<J>>);

struct Shared<J: Job> {
    store: PostgresStore,
    room: Arc<Semaphore>,
    state: Mutex<State<J>>,
}

struct State<J: Job> {
    queue: VecDeque<Waiting<J>>,
    runners: usize,
    /// Records that a statement of its own is busy with, perhaps waiting for a lock: sharing would make others wait.
    aside: HashMap<RecordId, usize>,
}

struct Waiting<J: Job> {
    job: J,
    answer: oneshot::Sender<Result<J::Answer, StoreError>>,
    _room: OwnedSemaphorePermit,
}

struct Batch<J: Job> {
    /// Different records, in order.
    leaders: Vec<Waiting<J>>,
    /// Calls on a record that a leader is about.
    followers: Vec<Waiting<J>>,
    /// Calls on records that are aside.
    aside: Vec<Waiting<J>>,
}

impl<J: Job> Lane<J> {
    /// A lane over `store`, which sends each call as a statement of its own.
    pub(crate) fn new(store: PostgresStore) -> Self {
        let state = State { queue: VecDeque::new(), runners: 0, aside: HashMap::new() };
        Self(Arc::new(Shared { store, room: Arc::new(Semaphore::new(ROOM)), state: Mutex::new(state) }))
    }

    /// Waits for room, then for the answer. A call whose caller has gone is not sent, if it still waits.
    pub(crate) async fn call(&self, job: J) -> Result<J::Answer, StoreError> {
        let room = Arc::clone(&self.0.room).acquire_owned().await;
        let room = room.map_err(|closed| StoreError::not_applied(ErrorKind::Unavailable, closed))?;
        let (answer, reply) = oneshot::channel();
        if self.0.queue(Waiting { job, answer, _room: room }) {
            let runner = Runner { shared: Arc::clone(&self.0), ended: false };
            tokio::spawn(runner.run());
        }
        reply.await.unwrap_or_else(|cut_off| Err(StoreError::unknown(ErrorKind::Unavailable, cut_off)))
    }
}

impl<J: Job> Shared<J> {
    fn state(&self) -> MutexGuard<'_, State<J>> {
        // The state is consistent between any two statements of this module, so a panic elsewhere cannot have torn it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call, and says whether the caller has to start a runner.
    fn queue(&self, waiting: Waiting<J>) -> bool {
        let mut state = self.state();
        state.queue.push_back(waiting);
        let start = state.runners == 0 || (state.runners < RUNNERS && state.queue.len() >= ROWS);
        state.runners += usize::from(start);
        start
    }

    async fn flush(self: &Arc<Self>, batch: Batch<J>) {
        let Batch { leaders, followers, aside } = batch;
        for waiting in aside {
            self.run_aside(waiting);
        }
        if leaders.is_empty() {
            return;
        }
        let mut connection = match self.store.connection().await {
            Ok(connection) => connection,
            Err(error) => return refuse(leaders.into_iter().chain(followers), error),
        };
        let jobs: Vec<&J> = leaders.iter().map(|waiting| &waiting.job).collect();
        let outcomes = match J::run(&mut connection, &jobs).await {
            Ok(outcomes) => outcomes,
            // One call may have spoilt it for the others: a lock that was not given, a value that was refused.
            Err(error) if error.effect() == Effect::NotApplied => HashMap::new(),
            Err(error) => return refuse(leaders.into_iter().chain(followers), error),
        };
        drop(connection);
        let settle = |waiting: Waiting<J>, leads| {
            let outcome = outcomes.get(&waiting.job.record());
            match outcome.and_then(|outcome| waiting.job.answer(outcome, leads)) {
                Some(answer) => {
                    // A caller that is gone does not need its answer.
                    let _ = waiting.answer.send(Ok(answer));
                    None
                }
                None => Some(waiting),
            }
        };
        for waiting in leaders {
            if let Some(unsettled) = settle(waiting, true) {
                self.run_aside(unsettled);
            }
        }
        let again: Vec<_> = followers.into_iter().filter_map(|waiting| settle(waiting, false)).collect();
        let mut state = self.state();
        again.into_iter().rev().for_each(|waiting| state.queue.push_front(waiting));
    }

    /// Sends a call as a statement of its own, and keeps its record out of shared ones meanwhile.
    fn run_aside(self: &Arc<Self>, waiting: Waiting<J>) {
        let aside = Aside::new(Arc::clone(self), waiting.job.record());
        tokio::spawn(async move {
            let answer = waiting.job.run_alone(&aside.shared.store).await;
            let _ = waiting.answer.send(answer);
            drop(aside);
        });
    }
}

impl<J: Job> State<J> {
    fn take(&mut self) -> Option<Batch<J>> {
        let mut batch = Batch { leaders: Vec::new(), followers: Vec::new(), aside: Vec::new() };
        let (mut records, mut payload) = (HashSet::new(), 0);
        while let Some(next) = self.queue.front() {
            let taken = batch.leaders.len() + batch.followers.len() + batch.aside.len();
            if taken == ROWS || (taken > 0 && payload + next.job.payload() > BYTES) {
                break;
            }
            let Some(waiting) = self.queue.pop_front() else { break };
            let record = waiting.job.record();
            if waiting.answer.is_closed() {
                continue;
            }
            payload += waiting.job.payload();
            if self.aside.contains_key(&record) {
                batch.aside.push(waiting);
            } else if records.insert(record) {
                batch.leaders.push(waiting);
            } else {
                batch.followers.push(waiting);
            }
        }
        // Everybody locks rows in the same order.
        batch.leaders.sort_by_key(|waiting| waiting.job.record());
        (!batch.leaders.is_empty() || !batch.aside.is_empty()).then_some(batch)
    }
}

/// A task that flushes until nothing waits.
struct Runner<J: Job> {
    shared: Arc<Shared<J>>,
    ended: bool,
}

impl<J: Job> Runner<J> {
    async fn run(mut self) {
        while let Some(batch) = self.take() {
            self.shared.flush(batch).await;
            // Those who were just answered ask again before the next statement takes what waits.
            yield_now().await;
        }
    }

    fn take(&mut self) -> Option<Batch<J>> {
        let mut state = self.shared.state();
        let batch = state.take();
        if batch.is_none() {
            state.runners -= 1;
            self.ended = true;
        }
        batch
    }
}

impl<J: Job> Drop for Runner<J> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Cut off by a panic or the end of the runtime. Nobody else may come for those who wait.
        let mut state = self.shared.state();
        state.runners -= 1;
        let cut_off = if state.runners == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        drop(state);
        drop(cut_off);
    }
}

struct Aside<J: Job> {
    shared: Arc<Shared<J>>,
    record: RecordId,
}

impl<J: Job> Aside<J> {
    fn new(shared: Arc<Shared<J>>, record: RecordId) -> Self {
        *shared.state().aside.entry(record).or_default() += 1;
        Self { shared, record }
    }
}

impl<J: Job> Drop for Aside<J> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(busy) = state.aside.get_mut(&self.record) {
            *busy -= 1;
            if *busy == 0 {
                state.aside.remove(&self.record);
            }
        }
    }
}

fn refuse<J: Job>(waiting: impl Iterator<Item = Waiting<J>>, error: StoreError) {
    let error = error.shared();
    for waiting in waiting {
        let _ = waiting.answer.send(Err(error.again()));
    }
}
