//! The service behind the layer: readiness, and which requests are guarded at all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::ReplayBody;
use super::config::Shared;
use super::flow::{self, Origin, Run};
use super::passage::{self, Passage};
use super::problem::Problem;
use super::verdict::Verdict;
use super::{outer, request, route};
use crate::core::identity::RecordId;

/// A service behind an [`IdempotencyLayer`](crate::IdempotencyLayer). Its error type is the inner service's.
///
/// It takes any body of bytes, and hands the inner service a [`ReplayBody`] of it: the bytes that were read of a guarded
/// request, the body itself of any other.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> IdempotencyService<S> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

type Answering<B, E> = Pin<Box<dyn Future<Output = Result<Response<ReplayBody<B>>, E>> + Send>>;

impl<S, ReqB, ResB> Service<Request<ReqB>> for IdempotencyService<S>
where
    S: Service<Request<ReplayBody<ReqB>>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body<Data = Bytes> + Send + 'static,
    ReqB::Error: Send,
    ResB: Body<Data = Bytes> + Send + 'static,
    ResB::Error: Send,
{
    type Response = Response<ReplayBody<ResB>>;
    type Error = S::Error;
    type Future = Answering<ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        // The instance that was polled ready is the one that may be called; its clone is made ready next time.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        let guarded = shared.config.methods.contains(request.method());
        let has_key = request.headers().contains_key(&shared.config.refusals.key_header);
        if !guarded || (!has_key && !shared.config.key_required) {
            return pass_on(&mut inner, request.map(ReplayBody::new));
        }
        Box::pin(async move {
            let came = Passage::of(request.extensions());
            match prepare::<S, _>(&shared, request, came.as_ref()).await {
                Ok((request, Some(run))) => flow::run_to_completion(shared, inner, request, run).await,
                Ok((mut request, None)) => {
                    let passage = Passage::begin(request.extensions_mut());
                    let mut response = pass_on(&mut inner, request).await?;
                    match passage.verdict(&response) {
                        Some(Verdict::Retryable) => passage::tell_not_reached(&mut response, came),
                        _ => passage::clear_not_reached(&mut response),
                    }
                    Ok(response)
                }
                Err(problem) => Ok(shared.config.refusals.response(&problem, came).map(ReplayBody::full)),
            }
        })
    }
}

/// Hands a request on as it came, and the answer back as it comes.
fn pass_on<S, ReqB, ResB>(inner: &mut S, request: Request<ReplayBody<ReqB>>) -> Answering<ResB, S::Error>
where
    S: Service<Request<ReplayBody<ReqB>>, Response = Response<ResB>>,
    S::Future: Send + 'static,
    ReqB: Body,
    ResB: Body,
{
    let answer = inner.call(request);
    Box::pin(async move { answer.await.map(|response| response.map(ReplayBody::inner)) })
}

/// Everything that can be refused before the store is asked. Without a `Run` the request goes on without a claim: a layer
/// further out holds its record.
async fn prepare<S, B>(
    shared: &Shared,
    request: Request<B>,
    came: Option<&Passage>,
) -> Result<(Request<ReplayBody<B>>, Option<Run>), Problem>
where
    S: 'static,
    B: Body<Data = Bytes>,
{
    let config = &shared.config;
    let (mut parts, body) = request.into_parts();
    let no_route = route::is_missing::<S>(&mut parts.extensions).await;
    let missing = if no_route { Problem::NoRoute } else { Problem::KeyMissing };
    let key = request::key(&parts.headers, &config.refusals.key_header)?.ok_or(missing)?;
    let scope = (shared.scope)(&parts).map_err(Problem::Refused)?;
    let record = RecordId::derive(&config.hash, &scope, &key);
    if outer::holds(shared, &mut parts.extensions, record, came).await? {
        return Ok((Request::from_parts(parts, ReplayBody::new(body)), None));
    }
    let body = request::body(&parts.headers, body, config.request_cap).await?;
    let fingerprint = config.rules.apply(&config.hash, &parts, &body);
    let origin = Origin { no_route, came: came.cloned() };
    let run = Run::new(config, record, fingerprint, &body, origin)?;
    Ok((Request::from_parts(parts, ReplayBody::from(body)), Some(run)))
}
