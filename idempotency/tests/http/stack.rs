//! The layer among the layers that stand around it in real services: each stack compiles, and pays once.
#![cfg(feature = "axum")]
#![cfg_attr(
    feature = "axum",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderName, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use probity_idempotency::*;
use tonic::server::NamedService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::{DecompressionBody, RequestDecompressionLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant()
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_methods([Method::POST])
        .expose_headers([HeaderName::from_static("idempotency-status")])
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(60))
}

fn request<B: From<Bytes>>() -> Request<B> {
    let body = B::from(Bytes::from_static(b"{}"));
    Request::post("/pay")
        .header("idempotency-key", "k")
        .header("origin", "https://shop.example")
        .body(body)
        .unwrap()
}

/// Sends one request twice, and says what the second one was told.
async fn paid_once<S, B, R>(service: S, request: impl Fn() -> Request<B>) -> Response<Bytes>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
    R: Body<Data = Bytes>,
    R::Error: std::fmt::Debug,
{
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (parts, body) = service.clone().oneshot(request()).await.unwrap().into_parts();
        answers.push(Response::from_parts(parts, body.collect().await.unwrap().to_bytes()));
    }
    let [first, second] = <[_; 2]>::try_from(answers).unwrap();
    assert_eq!(
        (first.headers()["idempotency-status"].as_bytes(), first.status().as_u16()),
        (&b"created"[..], 200)
    );
    assert_eq!(second.headers()["idempotency-status"], "replayed");
    assert_eq!((second.status(), second.body()), (first.status(), first.body()));
    second
}

/// A service that takes any body, and counts.
#[derive(Clone, Default)]
struct Pays(Arc<AtomicU32>);

impl<B> Service<Request<B>> for Pays
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let run = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            let Ok(body) = request.into_body().collect().await else { panic!("the layer has read it") };
            Ok(Response::new(Full::from(format!("run {run} of {:?}", body.to_bytes()))))
        })
    }
}

#[tokio::test]
async fn one_stack_of_body_limit_cors_compression_time_limit_and_decompression() {
    let stack = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(1024))
        .layer(cors())
        .layer(CompressionLayer::new())
        .layer(timeout())
        .layer(RequestDecompressionLayer::new())
        .layer(layer())
        .service(Pays::default());
    let replay = paid_once(stack, request::<Full<Bytes>>).await;
    assert_eq!(
        replay.headers()["access-control-expose-headers"],
        "idempotency-status",
        "replays have CORS headers"
    );
}

#[tokio::test]
async fn the_same_stack_around_the_routes_of_axum() {
    let app = Router::new().route("/pay", post(async |body: Bytes| body)).layer(
        ServiceBuilder::new()
            .layer(RequestBodyLimitLayer::new(1024))
            .layer(cors())
            .layer(CompressionLayer::new())
            .layer(timeout())
            .layer(RequestDecompressionLayer::new())
            .layer(layer()),
    );
    paid_once(app, request::<axum::body::Body>).await;
}

#[tokio::test]
async fn cors_and_a_time_limit_inside_and_outside() {
    let stack = ServiceBuilder::new()
        .layer(timeout())
        .layer(cors())
        .layer(layer())
        .layer(cors())
        .layer(timeout())
        .service(Pays::default());
    paid_once(stack, request::<Full<Bytes>>).await;
    // The time limit of tower is an error, not an answer.
    let stack =
        ServiceBuilder::new().timeout(Duration::from_secs(60)).layer(layer()).service(Pays::default());
    paid_once(stack, request::<Full<Bytes>>).await;
}

#[tokio::test]
async fn a_layer_of_axum_that_takes_one_type_of_body() {
    let passes =
        axum::middleware::from_fn(async |request: axum::extract::Request, next: axum::middleware::Next| {
            next.run(request).await
        });
    let app = Router::new().route("/pay", post(async || "paid")).layer(
        ServiceBuilder::new()
            .layer(layer())
            .map_request(|request: Request<_>| request.map(axum::body::Body::new))
            .layer(passes),
    );
    paid_once(app, request::<axum::body::Body>).await;
}

/// Bodies that a test cannot make: it compiles services for them.
#[test]
fn bodies_that_cannot_be_made_from_bytes_fit() {
    fn fits<B>(_: impl Service<Request<B>>) {}
    let service = layer().layer(Pays::default());
    fits::<Incoming>(service.clone());
    fits::<DecompressionBody<Limited<Incoming>>>(service.clone());
    fits::<tonic::body::Body>(service.clone());
    fits::<axum::body::Body>(service);
}

/// A gRPC service as tonic generates it.
#[derive(Clone)]
struct Payments(Pays);

impl NamedService for Payments {
    const NAME: &'static str = "pay.Payments";
}

impl<B> Service<Request<B>> for Payments
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + std::fmt::Debug + Send + 'static,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let paying = self.0.call(request);
        Box::pin(async move { paying.await.map(|response| response.map(tonic::body::Body::new)) })
    }
}

#[tokio::test]
async fn the_services_of_tonic() {
    let pays = Pays::default();
    let routes = tonic::service::Routes::new(Payments(pays.clone())).prepare();
    let service = ServiceBuilder::new().layer(cors()).layer(timeout()).layer(layer()).service(routes);
    paid_once(service, || {
        Request::post("/pay.Payments/Pay")
            .header("idempotency-key", "k")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(Full::from("{}").map_err(|never: Infallible| match never {})))
            .unwrap()
    })
    .await;
    assert_eq!(pays.0.load(Ordering::SeqCst), 1);
    // tonic's server takes the layer in this way.
    let _server = tonic::transport::Server::builder().layer(layer()).add_service(Payments(pays));
}
