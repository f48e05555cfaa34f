//! Any store, failing on demand: before a call reaches it, or after it was applied and before the answer arrived.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::error::StoreError;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, LocalTransaction, LocalVerdict, SagaStore, StartStatement};

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Call {
    Heartbeat,
    Retire,
    Define,
    Insert,
    Claim,
    Owned,
    Asked,
    Apply,
    Intervene,
    Load,
    Find,
    List,
    Settled,
    OpenCounts,
    /// The begin of the transaction of a local step.
    Begin,
    /// The commit of the transaction of a local step.
    Commit,
}

/// The place where a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The call never arrives. The caller cannot tell.
    Before,
    /// The call is applied, and its answer is lost. The caller cannot tell.
    After,
    /// The call never arrives, and after this time it is answered so: provably not applied.
    Away(Duration),
    /// The call is applied, and answered this much later.
    Late(Duration),
    /// The call panics before it arrives.
    Panics,
}

/// A call on its way to the store, or on its way back.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The call.
    pub call: Call,
    /// The records that [`Call::Apply`] or [`Call::Commit`] writes.
    pub records: &'a [Record],
    /// The answer, once there is one. A call that the store answers by an error is not observed on its way back.
    pub answer: Option<Answered<'a>>,
}

/// An answer of the store.
#[derive(Debug, Clone, Copy)]
pub enum Answered<'a> {
    /// The answer to [`Call::Heartbeat`].
    Heartbeat(Heartbeat),
    /// The answer to [`Call::Claim`].
    Claim(&'a [Journal]),
    /// The answer to [`Call::Apply`].
    Apply(&'a [Verdict]),
    /// The answer to any other call.
    Other,
}

type Hook = dyn Fn(Observed<'_>) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync;

/// Fails planned calls, asks hooks about all calls, and passes everything else on. It also covers the transactions of
/// local steps if the store has some.
///
/// # Examples
///
/// A fault of the next call, one of each call until [`mend`](Self::mend), and a hook that holds results back:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use probity_saga::MemoryStore;
/// use probity_saga::testing::{Call, FaultyStore, Side};
/// use tokio::sync::Semaphore;
///
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()));
/// store.fail(Call::Insert, Side::After); // the next start is written, and its answer is lost
/// store.fail_each(Call::Heartbeat, Side::Away(Duration::from_secs(10)));
///
/// let gate = Arc::new(Semaphore::new(0));
/// let waits = Arc::clone(&gate);
/// store.hook(move |seen| {
///     let held = (seen.call == Call::Apply && seen.answer.is_none()).then(|| Arc::clone(&waits));
///     async move {
///         if let Some(gate) = held
///             && let Ok(permit) = gate.acquire().await
///         {
///             permit.forget();
///         }
///         Ok(())
///     }
/// });
/// gate.add_permits(1); // one batch of results may pass
/// ```
pub struct FaultyStore {
    inner: Arc<dyn SagaStore>,
    faults: Arc<Faults>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (next, each) = (lock(&self.faults.next), lock(&self.faults.each));
        f.debug_struct("FaultyStore").field("next", &*next).field("each", &*each).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Faults {
    next: Mutex<Vec<(Call, Side)>>,
    each: Mutex<Vec<(Call, Side)>>,
    hooks: Mutex<Vec<Arc<Hook>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyStore {
    /// A store that does not fail yet.
    #[must_use]
    pub fn new(inner: Arc<dyn SagaStore>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// Plans one more failure of `call`.
    pub fn fail(&self, call: Call, side: Side) {
        lock(&self.faults.next).push((call, side));
    }

    /// Lets each `call` fail, after those that are planned one by one, until [`mend`](Self::mend).
    pub fn fail_each(&self, call: Call, side: Side) {
        lock(&self.faults.each).push((call, side));
    }

    /// Forgets all faults; hooks stay.
    pub fn mend(&self) {
        lock(&self.faults.next).clear();
        lock(&self.faults.each).clear();
    }

    /// Adds a hook. It sees each call before it reaches the store, and once more with its answer; the call waits for the
    /// future that the hook returned. An error on the way to the store is the answer to the call; one on the way back
    /// takes the place of the store's answer.
    pub fn hook<F>(&self, hook: impl Fn(Observed<'_>) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        lock(&self.faults.hooks).push(Arc::new(move |observed| hook(observed).boxed()));
    }
}

impl Faults {
    fn side(&self, call: Call) -> Option<Side> {
        let mut next = lock(&self.next);
        if let Some(at) = next.iter().position(|(planned, _)| *planned == call) {
            return Some(next.remove(at).1);
        }
        lock(&self.each).iter().find(|(planned, _)| *planned == call).map(|(_, side)| *side)
    }

    fn hooks(&self) -> Vec<Arc<Hook>> {
        lock(&self.hooks).clone()
    }

    async fn pass<T>(
        &self,
        call: Call,
        records: &[Record],
        applied: impl Future<Output = Result<T, StoreError>> + Send,
        answered: impl Fn(&T) -> Answered<'_> + Send,
    ) -> Result<T, StoreError> {
        let fault = "a planned fault";
        for hook in self.hooks() {
            hook(Observed { call, records, answer: None }).await?;
        }
        let side = self.side(call);
        match side {
            Some(Side::Before) => return Err(StoreError::ambiguous(fault, "the call was lost")),
            Some(Side::Away(after)) => {
                sleep(after).await;
                return Err(StoreError::not_applied(fault, "no connection"));
            }
            #[expect(clippy::panic, reason = "it was planned")]
            Some(Side::Panics) => panic!("a planned panic"),
            Some(Side::After | Side::Late(_)) | None => {}
        }
        let answer = applied.await?;
        for hook in self.hooks() {
            let observed = hook(Observed { call, records, answer: Some(answered(&answer)) });
            observed.await?;
        }
        match side {
            Some(Side::After) => return Err(StoreError::ambiguous(fault, "the answer was lost")),
            Some(Side::Late(by)) => sleep(by).await,
            _ => {}
        }
        Ok(answer)
    }
}

macro_rules! passes {
    ($self:ident, $call:ident, $applied:expr) => {
        $self.faults.pass(Call::$call, &[], $applied, |_| Answered::Other).await
    };
}

#[async_trait]
impl SagaStore for FaultyStore {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        self.inner.local().map(|_| self as &dyn LocalStore)
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        let beat = self.inner.heartbeat(worker);
        self.faults.pass(Call::Heartbeat, &[], beat, |answer| Answered::Heartbeat(*answer)).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        passes!(self, Retire, self.inner.retire(worker))
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        passes!(self, Define, self.inner.define(definitions))
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        passes!(self, Insert, self.inner.insert(sagas))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let claim = self.inner.claim(request);
        self.faults.pass(Call::Claim, &[], claim, |answer| Answered::Claim(answer)).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        passes!(self, Owned, self.inner.owned(worker))
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        passes!(self, Asked, self.inner.asked(worker))
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        let apply = self.inner.apply(records);
        self.faults.pass(Call::Apply, records, apply, |answer| Answered::Apply(answer)).await
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        passes!(self, Intervene, self.inner.intervene(intervention))
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        passes!(self, Load, self.inner.load(ids))
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        passes!(self, Find, self.inner.find(saga_type, business_id))
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        passes!(self, List, self.inner.list(filter))
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        passes!(self, Settled, self.inner.settled(ids))
    }

    fn start_statement(&self) -> Option<StartStatement> {
        self.inner.start_statement()
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        passes!(self, OpenCounts, self.inner.open_counts(runnable))
    }
}

struct FaultyTransaction {
    inner: Box<dyn LocalTransaction>,
    faults: Arc<Faults>,
}

#[async_trait]
impl LocalStore for FaultyStore {
    async fn begin(&self, limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError> {
        let local = self.inner.local();
        let local = local.ok_or_else(|| StoreError::not_applied("begin a local step", "no transactions"))?;
        let inner = passes!(self, Begin, local.begin(limit))?;
        Ok(Box::new(FaultyTransaction { inner, faults: Arc::clone(&self.faults) }))
    }
}

#[async_trait]
impl LocalTransaction for FaultyTransaction {
    fn connection(&mut self) -> &mut (dyn Any + Send) {
        self.inner.connection()
    }

    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError> {
        let Self { inner, faults } = *self;
        let records = std::slice::from_ref(record);
        faults.pass(Call::Commit, records, inner.commit(record), |_| Answered::Other).await
    }
}
