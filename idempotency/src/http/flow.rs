//! One guarded request: claim, run the handler, settle, answer.
//!
//! Invariant: from the claim on, nothing here is cancelled by the connection. The client may leave, an outer timeout
//! may fire; the handler runs on in a task of its own, its answer is recorded, and shutdown waits for it (I-6).

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_service::Service;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span, error, warn};

use super::answer::{self, Fate, Kept};
use super::body::ReplayBody;
use super::config::{Config, Shared};
use super::outer;
use super::passage::{self, Passage};
use super::problem::{Problem, STATUS_HEADER};
use super::verdict::Verdict;
use super::wait::Asked;
use crate::core::claim::{Answer, Claim, State, Written};
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::RecordId;
use crate::core::recording::{Tombstone, TombstoneReason};
use crate::error::{ErrorKind, StoreError};
use crate::lease::guard::{LeaseGuard, Settlement};
use crate::lease::inquiry::{self, Claimed};
use crate::lease::renew::renewing;
use crate::metrics;
use crate::shield::Shield;
use crate::token::OwnerToken;

/// The claim of one request, and the facts that its flow needs.
pub(crate) struct Run {
    claim: Claim,
    payload: Bytes,
    origin: Origin,
}

/// The facts about a request that are known before it runs.
#[derive(Clone)]
pub(crate) struct Origin {
    /// A router around the layer has found no route.
    pub(crate) no_route: bool,
    /// The passage by which the request came from a layer further out.
    pub(crate) came: Option<Passage>,
}

impl Run {
    pub(crate) fn new(
        config: &Config,
        record: RecordId,
        fingerprint: Fingerprint,
        payload: &Bytes,
        origin: Origin,
    ) -> Result<Self, Problem> {
        let token = OwnerToken::generate().map_err(refuse_without_store)?;
        let (effects, terms) = (config.policy.effects, config.policy.terms);
        let claim = Claim { record, token, fingerprint, effects, terms };
        Ok(Self { claim, payload: payload.clone(), origin })
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs the request where it is awaited, and to its end if it no longer is.
pub(crate) async fn run_to_completion<S, ReqB, ResB>(
    shared: Arc<Shared>,
    inner: S,
    request: Request<ReqB>,
    run: Run,
) -> Result<Response<ReplayBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Send + 'static,
    ResB: Body<Data = Bytes> + Send + 'static,
    ResB::Error: Send,
{
    let (record, origin) = (run.claim.record, run.origin.clone());
    let span = debug_span!(parent: Span::current(), "idempotency", ?record, attempt = Empty, status = Empty);
    // Only a waiting duplicate needs to know that its client has left: `_awaited` is dropped then.
    let (_awaited, gone) = shared.config.waiting.is_some().then(oneshot::channel).unzip();
    let counted = shared.config.tasks.0.token();
    let mut asking = Box::pin(claim_or_wait(Arc::clone(&shared), run, gone).instrument(span.clone()));
    // An answer at the first poll, such as a replay from memory, needs no shield.
    let work: Pin<Box<dyn Future<Output = _> + Send>> =
        match poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await {
            Poll::Ready(Ok(Claimed::Answer(Answer::Acquired(guard)))) => {
                Box::pin(run_handler(shared, inner, request, (guard, origin), counted).instrument(span))
            }
            Poll::Ready(answer) => {
                return Ok(span.in_scope(|| answer_without_running(&shared.config, answer, origin.came)));
            }
            Poll::Pending => {
                let later = async move {
                    match asking.await {
                        Ok(Claimed::Answer(Answer::Acquired(guard))) => {
                            run_handler(shared, inner, request, (guard, origin), counted).await
                        }
                        answer => Ok(answer_without_running(&shared.config, answer, origin.came)),
                    }
                };
                Box::pin(later.instrument(span))
            }
        };
    Shield::new(work).await
}

/// Resolves when the client has left.
type Gone = Option<oneshot::Receiver<Infallible>>;

/// Asks the store, and again if the request is to wait for one that is running.
async fn claim_or_wait(shared: Arc<Shared>, run: Run, gone: Gone) -> Asked {
    let config = &shared.config;
    let ask = || inquiry::claim(&config.manager, &run.claim, &config.policy, &run.payload);
    let answer = ask().await;
    let in_flight = matches!(answer, Ok(Claimed::Answer(Answer::InFlight { .. })));
    if let (true, Some(waiting), Some(gone)) = (in_flight, &config.waiting, gone) {
        let gone = async { drop(gone.await) };
        // A client that has left gets no answer and holds no claim.
        let left = || Ok(Claimed::Answer(Answer::InFlight { retry_after: Duration::ZERO }));
        return waiting.follow(run.claim.record, answer, ask, gone).await.unwrap_or_else(left);
    }
    answer
}

/// Runs what the store has granted.
async fn run_handler<S, ReqB, ResB>(
    shared: Arc<Shared>,
    inner: S,
    mut request: Request<ReqB>,
    (guard, origin): (LeaseGuard, Origin),
    _counted: TaskTrackerToken,
) -> Result<Response<ReplayBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body<Data = Bytes>,
{
    let lease = guard.lease();
    let _running = shared.config.waiting.as_ref().map(|waiting| waiting.register(lease.record()));
    Span::current().record("attempt", lease.attempt());
    outer::announce(&shared, request.extensions_mut(), &lease);
    renewing(lease, call_and_settle(&shared, inner, request, (guard, origin))).await
}

/// Calls the service, and settles by what it did.
async fn call_and_settle<S, ReqB, ResB>(
    shared: &Arc<Shared>,
    mut inner: S,
    mut request: Request<ReqB>,
    (guard, origin): (LeaseGuard, Origin),
) -> Result<Response<ReplayBody<ResB>>, S::Error>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body<Data = Bytes>,
{
    let passage = Passage::begin(request.extensions_mut());
    let (answer, at_once) = catch_panic(AssertUnwindSafe(|| inner.call(request))).await;
    match answer {
        Ok(Ok(response)) => {
            let turned_away = answer::is_turned_away(&shared.config, &response, origin.no_route, at_once);
            let verdict = passage.verdict(&response).map(|verdict| believe(&shared.config, verdict));
            let said = Said { verdict, turned_away };
            Ok(finish(&shared.config, guard, response, said, origin.came).await)
        }
        Ok(Err(error)) => {
            release_or_expire(guard).await;
            Err(error)
        }
        Err(panic) => {
            error!("the handler panicked; its record is settled by the declared effects");
            release_or_expire(guard).await;
            resume_unwind(panic)
        }
    }
}

/// The answers that need no handler.
fn answer_without_running<B: Body>(
    config: &Config,
    asked: Asked,
    came: Option<Passage>,
) -> Response<ReplayBody<B>> {
    let problem = match asked {
        Ok(Claimed::Answer(answer)) => match answer {
            Answer::Replay(recording) => match answer::replay(&recording, "replayed") {
                Ok((response, trailers)) => {
                    Span::current().record("status", "replayed");
                    return response.map(|bytes| ReplayBody::whole(bytes, trailers));
                }
                Err(error) => {
                    error!(%error, "the recording cannot be decoded; the request is answered not-replayable");
                    let (reason, status) = (TombstoneReason::Broken, recording.status());
                    Problem::NotReplayable(Tombstone { reason, status, location: None })
                }
            },
            Answer::InFlight { retry_after } => Problem::InFlight(retry_after),
            Answer::Mismatch => Problem::Mismatch,
            Answer::NotReplayable(tombstone) => Problem::NotReplayable(tombstone),
            // A guard in this place would be a bug of the caller; dropping it settles the record by its effects.
            Answer::Indeterminate(_) | Answer::Acquired(_) => Problem::OutcomeUnknown,
        },
        Ok(Claimed::Pending(recording)) => match answer::replay(&recording, "pending") {
            Ok((mut response, trailers)) => {
                Span::current().record("status", "pending");
                // A layer further out must not record it either.
                response.extensions_mut().insert(Verdict::Pending);
                return response.map(|bytes| ReplayBody::whole(bytes, trailers));
            }
            Err(error) => {
                error!(%error, "the answer that the hook rendered is no HTTP answer");
                Problem::OutcomeUnknown
            }
        },
        Err(error) => refuse_without_store(error),
    };
    Span::current().record("status", problem.idempotency_status());
    config.refusals.response(&problem, came).map(ReplayBody::full)
}

/// Calls the service and awaits it, turning a panic at either point into a value. Tells whether it had the answer at once,
/// without waiting for anything.
async fn catch_panic<Fut: Future>(
    call: AssertUnwindSafe<impl FnOnce() -> Fut>,
) -> (Result<Fut::Output, Panic>, bool) {
    let mut future = match catch_unwind(call) {
        Ok(future) => pin!(future),
        Err(panic) => return (Err(panic), true),
    };
    let mut at_once = true;
    let output = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => {
            at_once = false;
            Poll::Pending
        }
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await;
    (output, at_once)
}

async fn release_or_expire(mut guard: LeaseGuard) {
    if let Err(error) = guard.release_or_expire().await {
        warn!(%error, "the lease could not be settled; it expires by itself");
    }
}

/// Takes an answer for final if no hook can render the last one.
fn believe(config: &Config, verdict: Verdict) -> Verdict {
    if verdict == Verdict::Pending && config.policy.recover.is_none() {
        warn!("an answer is not final, and no Recover hook can render the last one: it is recorded as it is");
        return Verdict::Final;
    }
    verdict
}

/// The grounds on which a key may be given back.
struct Said {
    verdict: Option<Verdict>,
    turned_away: bool,
}

/// Settles by what the handler answered, then answers. If the store is down the client is not kept waiting: it gets
/// the answer, marked as unrecorded, and recording is tried again for as long as the lease would have lasted.
async fn finish<B>(
    config: &Config,
    mut guard: LeaseGuard,
    mut response: Response<B>,
    Said { verdict, turned_away }: Said,
    came: Option<Passage>,
) -> Response<ReplayBody<B>>
where
    B: Body<Data = Bytes>,
{
    let lease = guard.lease();
    passage::clear_not_reached(&mut response);
    if lease.0.recorded_in() == Some(response.status().as_u16()) {
        guard.settled_in_transaction();
        return with_status(response.map(ReplayBody::inner), "created");
    }
    let fate = answer::fate(verdict, response.status(), turned_away, lease.0.effects, lease.0.is_marked());
    if fate == Fate::Release && verdict == Some(Verdict::Retryable) {
        passage::tell_not_reached(&mut response, came);
    }
    let (settlement, mut response) = match fate {
        Fate::Expire => {
            if let Err(error) = guard.expire().await {
                warn!(%error, "the lease could not be ended; it expires by itself");
            }
            return with_status(response.map(ReplayBody::inner), "indeterminate");
        }
        Fate::Leave => {
            if let Err(error) = guard.leave_open().await {
                warn!(%error, "the lease could not be ended; until it ends by itself, retries are in flight");
            }
            return with_status(response.map(ReplayBody::inner), "pending");
        }
        Fate::Release => (Settlement::Release, response.map(ReplayBody::inner)),
        fate => match answer::keep(config, response, fate == Fate::Tombstone).await {
            Kept::Recording(recording, response) => (Settlement::Record(recording), response),
            Kept::Tombstone(tombstone, response) => (Settlement::Tombstone(tombstone), response),
        },
    };
    let written = guard.settle(&settlement).await;
    let status = match (&written, &settlement) {
        // A driver may send a call again by itself.
        (Ok(Written::Applied | Written::AlreadyApplied | Written::Missing), Settlement::Release) => {
            "released"
        }
        (Ok(Written::AlreadyApplied), _) if !lease.0.has_recorded_in() => "created",
        (Ok(Written::Refused(State::Completed) | Written::AlreadyApplied), _) => {
            // `complete_in` was committed after all: what it recorded is the answer every retry gets, so give it now.
            if let Some((recorded, trailers)) = read_recorded(&lease).await {
                response = recorded.map(|bytes| ReplayBody::whole(bytes, trailers));
            }
            "created"
        }
        (Ok(Written::Applied), Settlement::Record(_) | Settlement::Tombstone(_)) => "created",
        _ => {
            report_unrecorded(&written);
            "unrecorded"
        }
    };
    if written.is_err() {
        config.tasks.0.spawn(renewing(lease, record_later(guard, settlement)).instrument(Span::current()));
    }
    with_status(response, status)
}

/// Goes on recording what could not be recorded at once.
async fn record_later(mut guard: LeaseGuard, settlement: Settlement) {
    if let Err(error) = guard.settle_persistently(&settlement).await {
        let left =
            if guard.lease().0.may_have_had_effect() { "indeterminate" } else { "free when the lease ends" };
        error!(%error, left, "the answer could not be recorded before the lease ended");
    }
}

fn report_unrecorded(written: &Result<Written, StoreError>) {
    metrics::count_unrecorded();
    match written {
        Ok(written) => warn!(?written, "the answer is sent but not recorded"),
        // The error itself may quote the row.
        Err(error) => warn!(kind = ?error.kind(), "the answer is sent but not recorded"),
    }
}

async fn read_recorded(lease: &crate::lease::handle::Lease) -> Option<(Response<Bytes>, HeaderMap)> {
    let snapshot = lease.0.manager.get(lease.record()).await.ok().flatten()?;
    answer::answer(&snapshot.recording?).ok()
}

fn with_status<B>(mut response: Response<B>, status: &'static str) -> Response<B> {
    Span::current().record("status", status);
    response.headers_mut().insert(STATUS_HEADER, HeaderValue::from_static(status));
    response
}

/// Logs the kind of the failure. The message of a refused statement can quote the row, so only the message of a broken
/// connection is logged.
#[expect(clippy::needless_pass_by_value, reason = "the error ends here")]
fn refuse_without_store(error: StoreError) -> Problem {
    let (kind, effect) = (error.kind(), error.effect());
    let connection = match kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            std::error::Error::source(&error).map(ToString::to_string)
        }
        _ => None,
    };
    error!(?kind, ?effect, connection, "the idempotency store failed; nothing was run");
    Problem::StoreUnavailable
}
