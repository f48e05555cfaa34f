//! The refusals that no stored record is needed for. Those of stored records are in `v1/answers.txt`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, StatusCode};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::{IdempotencyLayer, MemoryStore, Refusal, Scope};
use tower::ServiceExt;

use super::payments::shown;
use super::v1;

#[tokio::test]
async fn every_refusal_is_the_document_that_clients_know() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let layer = IdempotencyLayer::new(store.clone()).request_cap(8).scope(|parts| {
        match parts.headers.get("authorization") {
            Some(_) => Ok(Scope::new("merchant:M-1")?),
            None => Err(Refusal::unauthenticated()),
        }
    });
    let router = Router::new().route("/payments", post(async || StatusCode::CREATED)).layer(layer);
    let with_keys = |keys: &[&str]| {
        let request = Request::post("/payments").header("authorization", "m");
        keys.iter().fold(request, |request, key| request.header("idempotency-key", *key))
    };
    let truncated = || {
        Body::new(http_body_util::StreamBody::new(futures_util::stream::iter([
            Ok(http_body::Frame::data(bytes::Bytes::from_static(b"12"))),
            Err(std::io::Error::other("reset")),
        ])))
    };
    let long = "k".repeat(256);
    let requests = [
        ("no key", with_keys(&[]).body(Body::empty())),
        ("no route", Request::post("/nowhere").header("authorization", "m").body(Body::empty())),
        ("an empty key", with_keys(&[""]).body(Body::empty())),
        ("a long key", with_keys(&[&long]).body(Body::empty())),
        ("a key with a space", with_keys(&["a b"]).body(Body::empty())),
        ("a key with a parameter", with_keys(&["a;b=1"]).body(Body::empty())),
        ("two keys", with_keys(&["a", "b"]).body(Body::empty())),
        ("nobody", Request::post("/payments").header("idempotency-key", "a").body(Body::empty())),
        ("a large body", with_keys(&["a"]).body(Body::from("123456789"))),
        ("half a body", with_keys(&["a"]).body(truncated())),
        ("no store", with_keys(&["a"]).body(Body::empty())),
    ];
    // The layer asks again and gets no answer.
    (0..8).for_each(|_| store.fail(Call::Claim, Side::Before));
    let mut documents = String::new();
    for (title, request) in requests {
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        write!(documents, "## {title}\n{}\n", shown(response).await).unwrap();
    }
    testkit::golden(v1!("problems.txt"), &documents);
}
