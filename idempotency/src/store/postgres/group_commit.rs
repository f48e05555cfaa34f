//! Group commit: concurrent calls of one process share a statement, and with it a flush.
//!
//! No timer and no task lives without a call: an idle group flushes a call at once, a busy one takes everything
//! that queued in that time, and each call gets its own answer.
//!
//! Invariant: a shared statement waits for no lock for long, and its failure is no call's answer unless nothing can
//! be said about any of its calls. A call that it did not settle is sent again in a statement of its own, one per
//! record at a time. No statement is waited for without limit: behind a connection that died without a word there are
//! others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{PgConnection, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout, timeout_at};

use super::classify::spends_the_session;
use crate::core::identity::RecordId;
use crate::error::{Effect, ErrorKind, StoreError};
use crate::store::sql::SqlStore;
use crate::store::sql::connection::Own;
use crate::store::sql::names::Set;

/// The most calls of one statement. A statement of more is no cheaper per call, and loses more when it fails.
const BATCH: usize = 256;
/// The most payload of one statement, unless a single call has more.
const BYTES: usize = 1024 * 1024;
/// The number of calls that may wait; the next ones wait for room.
const ROOM: usize = 4 * BATCH;
/// The number of statements that run at once. The second starts only when a full one waits: on a slow disk their
/// flushes queue behind each other.
const WIDTH: usize = 2;
/// The time that a statement may take, with getting its connection. Less than the 5 s that the layer waits for a store,
/// so that a call queued behind a dead connection is still sent; more than the 2 s that a statement of its own waits
/// for a lock.
const LIMIT: Duration = Duration::from_secs(3);

/// A call that can share a statement with others of its kind.
pub(crate) trait Job: Send + Sync + 'static {
    type Answer: Send + 'static;
    /// The result of the shared statement for one record.
    type Outcome: Send;

    fn record(&self) -> RecordId;

    /// About how many bytes it adds to the statement.
    fn payload(&self) -> usize;

    /// Runs the statement for `jobs`, which are on different records, in the order of their records.
    fn run(
        on: &mut PgConnection,
        set: &'static Set,
        jobs: &[&Self],
    ) -> impl Future<Output = Result<HashMap<RecordId, Self::Outcome>, StoreError>> + Send;

    /// The answer that follows from what was done to its record, by itself or, if it does not lead, by an equal.
    fn answer(&self, outcome: &Self::Outcome, leads: bool) -> Option<Self::Answer>;

    /// The same call as a statement of its own.
    fn run_alone(
        &self,
        store: &SqlStore<Postgres>,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// A queue of calls that share statements.
pub(crate) struct GroupCommit<J: Job>(Arc<Shared<J>>);

impl<J: Job> Clone for GroupCommit<J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<J: Job> {
    store: SqlStore<Postgres>,
    room: Arc<Semaphore>,
    /// For statements of their own: they may wait for locks, and must leave connections to the others.
    alone: Semaphore,
    queue: Mutex<Queue<J>>,
}

struct Queue<J: Job> {
    waiting: VecDeque<Waiting<J>>,
    running: usize,
    /// Records that a statement of its own is busy with, perhaps waiting for a lock: sharing would make others wait.
    /// The calls that came in that time wait here, without a connection.
    aside: HashMap<RecordId, Vec<Waiting<J>>>,
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
}

impl<J: Job> GroupCommit<J> {
    /// A group over `store`, which sends each call as a statement of its own.
    pub(crate) fn new(store: SqlStore<Postgres>) -> Self {
        let queue = Queue { waiting: VecDeque::new(), running: 0, aside: HashMap::new() };
        let queue = Mutex::new(queue);
        let quarter = store.pool.options().get_max_connections() / 4;
        let alone = Semaphore::new(usize::try_from(quarter).unwrap_or(1).max(1));
        Self(Arc::new(Shared { store, room: Arc::new(Semaphore::new(ROOM)), alone, queue }))
    }

    /// Waits for room, then for the answer. A call whose caller has gone is not sent, if it still waits.
    pub(crate) async fn submit(&self, job: J) -> Result<J::Answer, StoreError> {
        let room = Arc::clone(&self.0.room).acquire_owned().await;
        let room = room.map_err(|closed| StoreError::not_applied(ErrorKind::Unavailable, closed))?;
        let (answer, reply) = oneshot::channel();
        self.0.push(Waiting { job, answer, _room: room });
        reply.await.unwrap_or_else(|cut_off| Err(StoreError::unknown(ErrorKind::Unavailable, cut_off)))
    }
}

impl<J: Job> Shared<J> {
    fn queue(&self) -> MutexGuard<'_, Queue<J>> {
        // The state is consistent between any two statements of this module, so a panic of another thread leaves it consistent.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, waiting: Waiting<J>) {
        self.queue().waiting.push_back(waiting);
        self.start_runner();
    }

    fn start_runner(self: &Arc<Self>) {
        let mut queue = self.queue();
        let (running, waiting) = (queue.running, queue.waiting.len());
        let start = (running == 0 && waiting > 0) || (running < WIDTH && waiting >= BATCH);
        queue.running += usize::from(start);
        // A runtime that shuts down drops the runner here, which locks the state.
        drop(queue);
        if start {
            tokio::spawn(Runner { shared: Arc::clone(self), ended: false }.run());
        }
    }

    async fn flush(self: &Arc<Self>, batch: Batch<J>, kept: &mut Option<Own<Postgres>>) {
        let Batch { mut leaders, mut followers } = batch;
        let deadline = Instant::now() + LIMIT;
        let mut connection = match self.connection(kept.take(), deadline).await {
            Ok(connection) => connection,
            Err(error) => return refuse(leaders.into_iter().chain(followers), error),
        };
        // The wait may have been long. A call must not be sent after its caller has left and made other calls.
        leaders.retain(Waiting::is_wanted);
        followers.retain(Waiting::is_wanted);
        let jobs: Vec<&J> = leaders.iter().map(|waiting| &waiting.job).collect();
        let outcomes = if jobs.is_empty() {
            Ok(HashMap::new())
        } else {
            let asking = async {
                let answer = J::run(connection.begin().await?, self.store.set, &jobs).await;
                connection.end(answer).await
            };
            // A connection that does not answer in time is closed, not returned.
            let answer = timeout_at(deadline, asking).await;
            answer.unwrap_or_else(|elapsed| Err(StoreError::unknown(ErrorKind::Timeout, elapsed)))
        };
        // Keep the connection for the next statement, which saves the pool's test, unless others need it.
        *kept = Some(connection).filter(|_| outcomes.is_ok() && self.others_find_connections());
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            // The server takes no writes, so a statement for each call would meet the same.
            Err(error) if spends_the_session(&error) => {
                return refuse(leaders.into_iter().chain(followers), error);
            }
            // One call may have failed the statement: a lock that was not granted, a value that was refused.
            Err(error) if error.effect() == Effect::NotApplied => HashMap::new(),
            Err(error) => return refuse(leaders.into_iter().chain(followers), error),
        };
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
                self.set_aside(unsettled);
            }
        }
        let again: Vec<_> = followers.into_iter().filter_map(|waiting| settle(waiting, false)).collect();
        self.queue().put_back(again);
    }

    /// The connection that was kept, or one of the pool's.
    async fn connection(
        &self,
        kept: Option<Own<Postgres>>,
        deadline: Instant,
    ) -> Result<Own<Postgres>, StoreError> {
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let connection = timeout_at(deadline, self.store.connection()).await;
        connection.unwrap_or_else(|elapsed| Err(StoreError::not_applied(ErrorKind::Timeout, elapsed)))
    }

    fn others_find_connections(&self) -> bool {
        let pool = &self.store.pool;
        pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections()
    }

    /// Sends a call as a statement of its own, and keeps its record out of shared ones until it is answered.
    fn set_aside(self: &Arc<Self>, waiting: Waiting<J>) {
        let record = waiting.job.record();
        let mut queue = self.queue();
        if let Some(behind) = queue.aside.get_mut(&record) {
            return behind.push(waiting);
        }
        queue.aside.insert(record, Vec::new());
        drop(queue);
        let aside = Aside { shared: Arc::clone(self), record };
        tokio::spawn(async move { aside.run(waiting).await });
    }
}

impl<J: Job> Queue<J> {
    fn take(&mut self) -> Option<Batch<J>> {
        let mut batch = Batch { leaders: Vec::new(), followers: Vec::new() };
        let (mut records, mut payload) = (HashSet::new(), 0);
        while let Some(next) = self.waiting.front() {
            let taken = batch.leaders.len() + batch.followers.len();
            if taken == BATCH || (taken > 0 && payload + next.job.payload() > BYTES) {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else { break };
            let record = waiting.job.record();
            if !waiting.is_wanted() {
                continue;
            }
            if let Some(behind) = self.aside.get_mut(&record) {
                behind.push(waiting);
                continue;
            }
            payload += waiting.job.payload();
            if records.insert(record) {
                batch.leaders.push(waiting);
            } else {
                batch.followers.push(waiting);
            }
        }
        // All statements lock rows in the same order.
        batch.leaders.sort_by_key(|waiting| waiting.job.record());
        (!batch.leaders.is_empty()).then_some(batch)
    }

    fn put_back(&mut self, waiting: Vec<Waiting<J>>) {
        waiting.into_iter().rev().for_each(|waiting| self.waiting.push_front(waiting));
    }
}

/// A task that flushes until nothing waits.
struct Runner<J: Job> {
    shared: Arc<Shared<J>>,
    ended: bool,
}

impl<J: Job> Runner<J> {
    async fn run(mut self) {
        let mut kept = None;
        while let Some(batch) = self.take() {
            self.shared.flush(batch, &mut kept).await;
            // The callers that were just answered can ask again before the next statement takes the waiting calls.
            yield_now().await;
        }
    }

    fn take(&mut self) -> Option<Batch<J>> {
        let mut queue = self.shared.queue();
        let batch = queue.take();
        if batch.is_none() {
            queue.running -= 1;
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
        // A panic or the end of the runtime cut the runner off. No other task may serve the waiting calls.
        let mut queue = self.shared.queue();
        queue.running -= 1;
        let cut_off = if queue.running == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
        drop(queue);
        drop(cut_off);
    }
}

/// A record that is kept out of shared statements.
struct Aside<J: Job> {
    shared: Arc<Shared<J>>,
    record: RecordId,
}

impl<J: Job> Aside<J> {
    async fn run(self, mut waiting: Waiting<J>) {
        let turn = tokio::select! {
            turn = self.shared.alone.acquire() => turn.ok(),
            () = waiting.answer.closed() => None,
        };
        if turn.is_none() || !waiting.is_wanted() {
            return;
        }
        let answer = timeout(LIMIT, waiting.job.run_alone(&self.shared.store)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(StoreError::unknown(ErrorKind::Timeout, elapsed)));
        drop(turn);
        let error = match answer {
            Ok(answer) => {
                let _ = waiting.answer.send(Ok(answer));
                return;
            }
            Err(error) => error,
        };
        if error.effect() == Effect::NotApplied && error.kind() == ErrorKind::Unavailable {
            // Another transaction holds the row. The calls behind would wait as long, one after the other.
            let behind = self.shared.queue().aside.get_mut(&self.record).map(std::mem::take);
            refuse(std::iter::once(waiting).chain(behind.unwrap_or_default()), error);
        } else {
            let _ = waiting.answer.send(Err(error));
        }
    }
}

impl<J: Job> Drop for Aside<J> {
    /// The record is as any other again, and those who waited for that are sent together.
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        let behind = queue.aside.remove(&self.record).unwrap_or_default();
        if tokio::runtime::Handle::try_current().is_err() {
            drop(queue);
            return drop(behind);
        }
        queue.put_back(behind);
        drop(queue);
        self.shared.start_runner();
    }
}

impl<J: Job> Waiting<J> {
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }
}

fn refuse<J: Job>(waiting: impl Iterator<Item = Waiting<J>>, error: StoreError) {
    let error = error.shared();
    for waiting in waiting {
        let _ = waiting.answer.send(Err(error.again()));
    }
}
