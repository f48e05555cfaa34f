//! hyper and a `tower::ServiceBuilder`, nothing else.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use probity_idempotency::layer::{ReplayBody, Tasks};
use probity_idempotency::testing::HistoryStore;
use probity_idempotency::*;
use tokio::net::TcpListener;
use tower::ServiceBuilder;

use super::client::{self, Answer};

/// The body that reaches the handler: hyper's body, or the bytes that the layer has read.
pub(crate) type Incoming1 = ReplayBody<Incoming>;

pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) runs: Arc<AtomicU32>,
    panics: Arc<AtomicU32>,
    history: Arc<HistoryStore>,
}

impl Server {
    /// Serves `handler` behind a layer that `configure` may change. Merchants say who they are in `x-merchant`.
    pub(crate) async fn start<H, F, B, E>(
        configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer,
        handler: H,
    ) -> Self
    where
        H: Fn(u32, Request<Incoming1>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let history = Arc::new(HistoryStore::new(Arc::new(MemoryStore::new())));
        let layer = configure(IdempotencyLayer::new(history.clone()).scope(|parts| {
            let merchant = parts.headers.get("x-merchant").map_or(&b"m-1"[..], |value| value.as_bytes());
            Ok(Scope::new(String::from_utf8_lossy(merchant))?)
        }));
        let (tasks, runs, panics) = (layer.tasks(), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (counter, effects) = (Arc::clone(&runs), Arc::clone(&history));
        let service = ServiceBuilder::new().layer(layer).service_fn(move |request: Request<Incoming1>| {
            effects.effect(request.extensions().get::<Lease>().unwrap().record());
            handler(counter.fetch_add(1, Ordering::SeqCst) + 1, request)
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (at, panicked) = (listener.local_addr().unwrap(), Arc::clone(&panics));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
                let (connection, panicked) = (tokio::spawn(connection), Arc::clone(&panicked));
                tokio::spawn(async move {
                    if connection.await.is_err() {
                        panicked.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { at, tasks, runs, panics, history }
    }

    /// A server that pays: 201 and the number of the run.
    pub(crate) async fn paying(configure: impl FnOnce(IdempotencyLayer) -> IdempotencyLayer) -> Self {
        Self::start(configure, async |run, request: Request<Incoming1>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(Full::from(format!("run {run} of {} bytes", body.len())));
            *response.status_mut() = http::StatusCode::CREATED;
            Ok::<_, Infallible>(response)
        })
        .await
    }

    /// The answer to a request that must have one.
    pub(crate) async fn answers(&self, request: &[u8]) -> Answer {
        client::send(self.at, request).await.unwrap()
    }

    pub(crate) fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) fn panics(&self) -> u32 {
        self.panics.load(Ordering::SeqCst)
    }

    /// Checks, after whatever was sent, that this server still pays, a key pays once, another merchant's does not replay it,
    /// and no answer of the store was impossible.
    pub(crate) async fn is_sound(&self, runs: u32) {
        assert_eq!((self.runs(), self.panics()), (runs, 0));
        let first = self.answers(&client::post("afterwards", "{}")).await;
        let again = self.answers(&client::post("afterwards", "{}")).await;
        assert_eq!((first.status, &first.body), (again.status, &again.body));
        let other =
            client::raw(b"x-merchant: m-2\r\nidempotency-key: afterwards\r\ncontent-length: 2\r\n", b"{}");
        assert_ne!(self.answers(&other).await.body, first.body);
        assert_eq!(self.runs(), runs + 2);
        self.history.check().unwrap();
    }

    /// No key took effect twice, and no answer of the store was impossible.
    pub(crate) fn is_possible(&self) {
        self.history.check().unwrap();
    }
}
