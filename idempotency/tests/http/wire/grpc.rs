//! Bodies as tonic has them: a type of their own with an error of its own, data and then trailers; and the number of
//! bytes of a body that the layer holds.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use probity_idempotency::{IdempotencyLayer, MemoryStore, layer::ReplayBody};
use tower::{ServiceBuilder, ServiceExt};

use super::client::raw;
use super::server::{Incoming1, Server};

/// The error of the body; like tonic's, it is no `std::io::Error`.
#[derive(Debug)]
struct Status;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("status: internal")
    }
}

impl std::error::Error for Status {}

/// The end of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Trailers,
    Error,
    Never,
}

/// Frames of a kilobyte, counted as they are asked for.
struct Message {
    data: usize,
    end: Option<End>,
    polled: Arc<AtomicUsize>,
}

impl Body for Message {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.polled.fetch_add(1, Ordering::SeqCst);
        if self.data > 0 || self.end == Some(End::Never) {
            self.data = self.data.saturating_sub(1);
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'm'; 1024])))));
        }
        let end = self.end.take();
        Poll::Ready(end.map(|end| match end {
            End::Error => Err(Status),
            _ => {
                let status = HeaderValue::from_static("0");
                Ok(Frame::trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    status,
                )])))
            }
        }))
    }
}

/// A unary call as gRPC sends it, over HTTP/1.1.
fn unary() -> Vec<u8> {
    raw(
        b"te: trailers\r\nidempotency-key: k\r\ncontent-type: application/grpc\r\ncontent-length: 2\r\n",
        b"{}",
    )
}

// proves: I-2
#[tokio::test]
async fn a_call_is_replayed_with_its_trailers() {
    let server = Server::start(
        |layer| layer,
        async |_, _: Request<Incoming1>| {
            let mut response =
                Response::new(Message { data: 2, end: Some(End::Trailers), polled: Arc::default() });
            response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
            Ok::<_, Infallible>(response)
        },
    )
    .await;
    let first = server.answers(&unary()).await;
    assert_eq!((first.status, first.body.len()), (200, 2048));
    assert!(first.trailers.starts_with(b"grpc-status: 0"), "{:?}", first.trailers);
    let second = server.answers(&unary()).await;
    assert_eq!((second.status, &second.body, &second.trailers), (200, &first.body, &first.trailers));
    assert_eq!(second.header("idempotent-replayed"), Some(&b"true"[..]));
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

// proves: I-10
#[tokio::test]
async fn an_error_of_the_body_cuts_the_answer_off_and_is_not_run_again() {
    let server = Server::start(
        |layer| layer,
        async |_, _: Request<Incoming1>| {
            Ok::<_, Infallible>(Response::new(Message {
                data: 2,
                end: Some(End::Error),
                polled: Arc::default(),
            }))
        },
    )
    .await;
    if let Some(first) = super::client::send(server.at, &unary()).await {
        assert!(first.body.len() <= 2048 && first.trailers.is_empty());
    }
    assert_eq!(server.answers(&unary()).await.problem(), "not-replayable");
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

// proves: I-2
#[tokio::test]
async fn a_call_that_failed_at_once_is_replayed_with_its_status() {
    let server = Server::start(
        |layer| layer,
        async |_, _: Request<Incoming1>| {
            let mut response = Response::new(Message { data: 0, end: None, polled: Arc::default() });
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("9"));
            response.headers_mut().insert("grpc-message", HeaderValue::from_static("no%20funds"));
            Ok::<_, Infallible>(response)
        },
    )
    .await;
    let (first, second) = (server.answers(&unary()).await, server.answers(&unary()).await);
    for answer in [&first, &second] {
        assert_eq!(answer.header("grpc-status"), Some(&b"9"[..]));
        assert_eq!(answer.header("grpc-message"), Some(&b"no%20funds"[..]));
    }
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

#[tokio::test]
async fn the_layer_holds_no_more_bytes_than_its_caps() {
    let held = Arc::new(AtomicUsize::new(0));
    let polled = Arc::clone(&held);
    let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant();
    let service =
        ServiceBuilder::new().layer(layer.request_cap(8 * 1024).response_cap(16 * 1024)).service_fn(
            move |_: Request<ReplayBody<Message>>| {
                let polled = Arc::clone(&polled);
                async move {
                    Ok::<_, Infallible>(Response::new(Message { data: 0, end: Some(End::Never), polled }))
                }
            },
        );
    let request = |data, end| {
        let polled = Arc::new(AtomicUsize::new(0));
        let body = Message { data, end, polled: Arc::clone(&polled) };
        (Request::post("/").header("idempotency-key", "k").body(body).unwrap(), polled)
    };
    let (endless, read) = request(0, Some(End::Never));
    assert_eq!(service.clone().oneshot(endless).await.unwrap().status(), 413);
    assert_eq!(read.load(Ordering::SeqCst), 9, "frames of a kilobyte, until one is too many");
    let (whole, read) = request(8, Some(End::Trailers));
    let answer = service.oneshot(whole).await.unwrap();
    assert_eq!(read.load(Ordering::SeqCst), 10, "all of it");
    assert_eq!(held.load(Ordering::SeqCst), 17, "frames of a kilobyte, until one is too many");
    let mut body = answer.into_body();
    for _ in 0..100 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1024);
    }
    assert_eq!(held.load(Ordering::SeqCst), 100, "the rest passes through as it is asked for");
}
