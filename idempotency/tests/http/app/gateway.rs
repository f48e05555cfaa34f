//! A handler that sends requests of its own through inner layers: their answers do not count as the handler's.

use std::sync::Mutex;

use axum::Extension;
use axum::extract::Request as AxumRequest;
use axum::response::IntoResponse;
use probity_idempotency::OrRelease;

use super::*;

fn status(response: &Response<bytes::Bytes>) -> (u16, &str) {
    (response.status().as_u16(), response.headers()["idempotency-status"].to_str().unwrap())
}

fn scoped(scope: &'static str) -> IdempotencyLayer {
    IdempotencyLayer::new(Arc::new(MemoryStore::new())).scope(move |_| Ok(Scope::new(scope)?))
}

/// The services behind the handler; each but the first refuses.
fn behind(count: &Count) -> Router {
    let count = Arc::clone(count);
    let pay = move || async move {
        count.fetch_add(1, Ordering::SeqCst);
        "paid"
    };
    let picky = async |OrRelease(Json(amount)): OrRelease<Json<u64>>| amount.to_string();
    let retryable = || async { (StatusCode::CONFLICT, Extension(Verdict::Retryable)) };
    Router::new()
        .route("/pay", post(pay))
        .route("/keyless", post(|| async { "never reached" }))
        .route("/retryable", post(retryable))
        .layer(scoped("inner"))
        .route("/picky", post(picky))
}

/// The way in which the handler makes its second request.
#[derive(Clone, Copy, Debug)]
enum Second {
    New,
    Copied,
    /// The request itself, after a copy of it has paid.
    Original,
}

/// Pays by one request, and answers what a second one to `path` is told.
async fn pay_twice(
    services: &Router,
    path: &str,
    second: Second,
    request: AxumRequest,
) -> axum::response::Response {
    let (parts, _) = request.into_parts();
    let mut first = match second {
        Second::New => Request::post("/").body(Body::empty()).unwrap(),
        Second::Copied | Second::Original => Request::from_parts(parts.clone(), Body::empty()),
    };
    *first.uri_mut() = "/pay".parse().unwrap();
    first.headers_mut().insert("idempotency-key", "first".parse().unwrap());
    let paid = services.clone().oneshot(first).await.unwrap();
    assert_eq!(paid.status(), 200);
    let mut next = match second {
        Second::New => Request::post("/").body(Body::from("{}")).unwrap(),
        Second::Copied => Request::from_parts(parts.clone(), Body::from("{}")),
        Second::Original => Request::from_parts(parts, Body::from("{}")),
    };
    *next.uri_mut() = path.parse().unwrap();
    next.headers_mut().remove("idempotency-key");
    if path == "/retryable" {
        next.headers_mut().insert("idempotency-key", "second".parse().unwrap());
    }
    services.clone().oneshot(next).await.unwrap_or_else(|never: Infallible| match never {}).into_response()
}

// proves: I-5
#[tokio::test]
async fn a_refusal_of_one_of_several_inner_requests_does_not_free_the_senders_key() {
    for second in [Second::New, Second::Copied, Second::Original] {
        for (path, refusal) in [("/keyless", 400), ("/retryable", 409), ("/picky", 415)] {
            let (count, sent) = (Count::default(), Count::default());
            let (services, counted) = (behind(&count), Arc::clone(&sent));
            let handler = move |request: AxumRequest| async move {
                counted.fetch_add(1, Ordering::SeqCst);
                pay_twice(&services, path, second, request).await
            };
            let app = Router::new().route("/payments", post(handler)).layer(scoped("outer"));
            for expected in ["created", "replayed"] {
                let answer = call(&app, request(Some("k"), "{}")).await;
                assert_eq!(status(&answer), (refusal, expected), "{path} {second:?}");
            }
            assert_eq!(
                (sent.load(Ordering::SeqCst), count.load(Ordering::SeqCst)),
                (1, 1),
                "{path} {second:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_request_itself_frees_its_key() {
    for (path, refusal) in [("/retryable", 409), ("/picky", 415)] {
        let services = behind(&Count::default());
        let handler = move |mut request: AxumRequest| async move {
            *request.uri_mut() = path.parse().unwrap();
            services.oneshot(request).await
        };
        let app = Router::new().route("/payments", post(handler)).layer(scoped("outer"));
        for _ in 0..2 {
            let answer = call(&app, request(Some("k"), "{}")).await;
            assert_eq!(status(&answer), (refusal, "released"), "{path}");
        }
    }
}

// proves: I-1
#[tokio::test]
async fn one_of_several_copies_of_a_request_passes_under_its_claim() {
    for copies_first in [true, false] {
        let (count, layer) = (Count::default(), layer());
        let counted = Arc::clone(&count);
        let pay = move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() };
        let inner = Router::new().route("/payments", post(pay).layer(layer.clone()));
        let twice = move |request: AxumRequest| async move {
            let (parts, _) = request.into_parts();
            let copy = Request::from_parts(parts.clone(), Body::from("{}"));
            let original = Request::from_parts(parts, Body::from("{}"));
            let (one, other) = if copies_first { (copy, original) } else { (original, copy) };
            let paid = inner.clone().oneshot(one).await.unwrap();
            assert_eq!(paid.status(), 200);
            inner.oneshot(other).await
        };
        let app = Router::new().route("/payments", post(twice)).layer(layer);
        for expected in ["created", "replayed"] {
            let answer = call(&app, request(Some("k"), "{}")).await;
            assert_eq!(status(&answer), (409, expected), "{copies_first}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

// proves: I-5
#[tokio::test]
async fn a_refusal_of_another_request_frees_no_key() {
    let (services, waiting) = (behind(&Count::default()), Arc::new(Mutex::new(None)));
    let handler = move |request: AxumRequest| async move {
        // The first request waits for the second one, whose handler answers what the first one is told.
        let earlier = waiting.lock().unwrap().replace(request);
        let Some(mut earlier) = earlier else { return StatusCode::ACCEPTED.into_response() };
        *earlier.uri_mut() = "/picky".parse().unwrap();
        services.oneshot(earlier).await.unwrap_or_else(|never: Infallible| match never {}).into_response()
    };
    let app = Router::new().route("/payments", post(handler)).layer(scoped("outer"));
    assert_eq!(status(&call(&app, request(Some("first"), "{}")).await), (202, "created"));
    for expected in ["created", "replayed"] {
        assert_eq!(status(&call(&app, request(Some("second"), "{}")).await), (415, expected));
    }
}

// proves: I-5
#[tokio::test]
async fn a_retryable_answer_after_a_mark_frees_no_key_further_out() {
    let pay = async |lease: Lease| {
        lease.effect_starting().await.unwrap();
        (StatusCode::CONFLICT, Extension(Verdict::Retryable))
    };
    let inner = Router::new().route("/payments", post(pay)).layer(scoped("inner").effects(Effects::Marked));
    let app = Router::new().fallback_service(inner).layer(scoped("outer"));
    for expected in ["created", "replayed"] {
        assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), (409, expected));
    }
}

#[tokio::test]
async fn a_missing_route_further_in_frees_the_key_further_out() {
    let other_key = scoped("inner").key_header("x-inner-key".parse().unwrap());
    let inner = Router::new().route("/payments", post(async || "paid")).layer(other_key);
    let app = Router::new().fallback_service(inner).layer(scoped("outer"));
    for _ in 0..2 {
        let mut request = request(Some("k"), "{}");
        *request.uri_mut() = "/nowhere".parse().unwrap();
        let answer = call(&app, request).await;
        assert_eq!((status(&answer), problem(&answer).as_str()), ((404, "released"), "no-route"));
    }
}
