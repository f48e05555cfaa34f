//! Routing does not change the fingerprint of a request, and frees the key if no handler was reached.

use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use probity_idempotency::OrRelease;
use tower::ServiceBuilder;

use super::*;

fn to(path: &str, key: Option<&str>) -> Request<Body> {
    let mut request = request(key, "{}");
    *request.uri_mut() = path.parse().unwrap();
    request
}

fn status(response: &Response<bytes::Bytes>) -> (u16, String) {
    let status = response.headers().get("idempotency-status").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), status.unwrap_or_default())
}

/// Every place in which the layer can stand around one route.
fn deployments(layer: &IdempotencyLayer, count: &Count) -> Vec<(&'static str, Router)> {
    let handler = || {
        let count = Arc::clone(count);
        post(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            "paid"
        })
    };
    let at = |path: &str| Router::new().route(path, handler());
    let layer = || layer.clone();
    vec![
        ("route", at("/api/payments").layer(layer())),
        ("route_layer", at("/api/payments").route_layer(layer())),
        ("method router", Router::new().route("/api/payments", handler().layer(layer()))),
        ("inside the nest", Router::new().nest("/api", at("/payments").layer(layer()))),
        ("outside the nest", Router::new().nest("/api", at("/payments")).layer(layer())),
        ("nested service", Router::new().nest_service("/api", at("/payments").layer(layer()))),
        (
            "service in a nest",
            Router::new().nest_service("/api", ServiceBuilder::new().layer(layer()).service(at("/payments"))),
        ),
        (
            "around the router",
            Router::new().fallback_service(ServiceBuilder::new().layer(layer()).service(at("/api/payments"))),
        ),
        ("two nests", Router::new().nest("/api", Router::new().nest("/payments", at("/").layer(layer())))),
    ]
}

// proves: I-2
// proves: I-3
#[tokio::test]
async fn a_deploy_that_moves_the_prefix_or_the_layer_changes_no_fingerprint() {
    let (layer, count) = (layer(), Count::default());
    let apps = deployments(&layer, &count);
    let first = call(&apps[0].1, to("/api/payments?a=1", Some("k"))).await;
    assert_eq!(status(&first), (200, "created".to_owned()));
    for (place, app) in &apps {
        let retry = call(app, to("/api/payments?a=1", Some("k"))).await;
        assert_eq!(status(&retry), (200, "replayed".to_owned()), "{place}");
        // The path that the client sent still counts.
        let other = call(app, to("/api/payments?a=2", Some("k"))).await;
        assert_eq!((other.status().as_u16(), problem(&other).as_str()), (422, "mismatch"), "{place}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_missing_key_on_a_missing_route_is_404_and_runs_nothing() {
    let (layer, count) = (layer(), Count::default());
    let counted = Arc::clone(&count);
    let fallback = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        "a fallback that acts"
    };
    let paying = || Router::new().route("/payments", post(|| async { "paid" }));
    for app in [
        paying().layer(layer.clone()),
        paying().fallback(fallback).layer(layer.clone()),
        Router::new().nest("/api", paying()).layer(layer.clone()),
    ] {
        let answer = call(&app, to("/nowhere", None)).await;
        assert_eq!((answer.status().as_u16(), problem(&answer).as_str()), (404, "no-route"));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing runs without a key");
    // A known route needs a key, also one of a service that is nested as a whole.
    for (app, path) in [
        (paying().layer(layer.clone()), "/payments"),
        (Router::new().nest("/api", paying()).layer(layer.clone()), "/api/payments"),
        (Router::new().nest_service("/api", paying()).layer(layer.clone()), "/api/payments"),
        (Router::new().nest_service("/api", paying().layer(layer.clone())), "/api/payments"),
    ] {
        let answer = call(&app, to(path, None)).await;
        assert_eq!((answer.status().as_u16(), problem(&answer).as_str()), (400, "key-missing"), "{path}");
    }
    // With `route_layer` the layer is not even asked, and axum answers.
    let app = paying().route_layer(layer);
    assert_eq!(call(&app, to("/nowhere", None)).await.status(), 404);
}

#[tokio::test]
async fn a_router_that_turns_a_request_away_leaves_its_key_free() {
    let layer = layer();
    let before = Router::new().route("/payments", get(|| async { "a list" })).layer(layer.clone());
    let after = Router::new()
        .route("/payments", post(|| async { "paid" }))
        .route("/refunds", post(|| async { "refunded" }))
        .layer(layer);
    for (key, path, turned_away) in [("k-1", "/payments", 405), ("k-2", "/refunds", 404)] {
        for _ in 0..2 {
            let answer = call(&before, to(path, Some(key))).await;
            assert_eq!(status(&answer), (turned_away, "released".to_owned()));
        }
        // The route is deployed, and the retry runs.
        assert_eq!(status(&call(&after, to(path, Some(key))).await), (200, "created".to_owned()));
    }
}

// proves: I-5
#[tokio::test]
async fn a_404_or_405_of_a_handler_is_recorded() {
    let not_found = || async { StatusCode::NOT_FOUND };
    let told = |status: StatusCode| move || async move { (status, "no such order") };
    for (place, app, path) in [
        ("a handler", Router::new().route("/payments", post(not_found)).layer(layer()), "/payments"),
        (
            "a handler that says it is not allowed",
            Router::new().route("/payments", post(told(StatusCode::METHOD_NOT_ALLOWED))).layer(layer()),
            "/payments",
        ),
        ("a nested service", Router::new().nest_service("/a", any(not_found)).layer(layer()), "/a/b"),
        (
            "a service behind the layer",
            Router::new().nest_service("/a", any(not_found).layer(layer())),
            "/a/b",
        ),
        (
            "a fallback that says more",
            Router::new().fallback(told(StatusCode::NOT_FOUND)).layer(layer()),
            "/x",
        ),
    ] {
        assert_eq!(status(&call(&app, to(path, Some("k"))).await).1, "created", "{place}");
        assert_eq!(status(&call(&app, to(path, Some("k"))).await).1, "replayed", "{place}");
    }
    // Declared effects prove that nothing happened before the mark.
    let app = Router::new().fallback(told(StatusCode::NOT_FOUND)).layer(layer().effects(Effects::Marked));
    assert_eq!(status(&call(&app, to("/x", Some("k"))).await), (404, "released".to_owned()));
}

// proves: I-5
#[tokio::test]
async fn a_service_chooses_the_statuses_that_free_the_key() {
    let marked = |lease: Lease| async move {
        lease.effect_starting().await.unwrap();
        StatusCode::SERVICE_UNAVAILABLE
    };
    let said = || async { (StatusCode::SERVICE_UNAVAILABLE, axum::Extension(Verdict::Final)) };
    let layer = || layer().release_on([StatusCode::SERVICE_UNAVAILABLE, StatusCode::REQUEST_TIMEOUT]);
    for (handler, again) in [
        (post(|| async { StatusCode::SERVICE_UNAVAILABLE }), "released"),
        (post(|| async { StatusCode::REQUEST_TIMEOUT }), "released"),
        (post(|| async { StatusCode::BAD_GATEWAY }), "replayed"),
        (post(marked), "replayed"),
        (post(said), "replayed"),
    ] {
        let app = Router::new().route("/payments", handler).layer(layer());
        let _ = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(status(&call(&app, request(Some("k"), "{}")).await).1, again);
    }
}

#[test]
#[should_panic(expected = "does not say that nothing was done")]
fn a_success_status_cannot_free_the_key() {
    let _ = layer().release_on([StatusCode::CREATED]);
}

#[tokio::test]
async fn an_extractor_that_refuses_frees_the_key() {
    async fn pay(lease: Lease, OrRelease(Json(body)): OrRelease<Json<Value>>) -> String {
        format!("{} {body}", lease.attempt())
    }
    let app = Router::new().route("/payments", post(pay)).layer(layer());
    let refused = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(status(&refused), (415, "released".to_owned()), "no content type");
    let mut good = request(Some("k"), "{}");
    good.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let paid = call(&app, good).await;
    assert_eq!((status(&paid), &paid.body()[..]), ((200, "created".to_owned()), &b"2 {}"[..]));
}

/// A layer inside that answers by itself, whatever it is, has not been asked to prove anything: only what it says counts.
#[tokio::test]
async fn an_inner_middleware_with_a_retryable_verdict_frees_the_key() {
    let busy = from_fn(async |_: axum::extract::Request, _: axum::middleware::Next| {
        (StatusCode::SERVICE_UNAVAILABLE, axum::Extension(Verdict::Retryable)).into_response()
    });
    let app = Router::new().route("/payments", post(|| async { "paid" }).layer(busy)).layer(layer());
    assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), (503, "released".to_owned()));
    assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), (503, "released".to_owned()));
}

/// Answers with this status and nothing else, as a router does, after it has run and, if it `waits`, waited.
fn bare(status: StatusCode, waits: bool, count: &Count) -> axum::routing::MethodRouter {
    let count = Arc::clone(count);
    any(move || async move {
        count.fetch_add(1, Ordering::SeqCst);
        if waits {
            tokio::task::yield_now().await;
        }
        status
    })
}

// proves: I-5
#[tokio::test]
async fn a_router_behind_the_fallback_of_another_is_not_a_missing_route() {
    let behind = |layer: IdempotencyLayer, inner: Router| {
        Router::new().fallback_service(ServiceBuilder::new().layer(layer).service(inner))
    };
    let given = |layer: IdempotencyLayer, inner: Router| Router::new().fallback_service(inner).layer(layer);
    for (place, around) in [("behind it", behind as fn(_, _) -> _), ("given to the outer router", given)] {
        for (status, waits) in [(404, false), (404, true), (405, false), (405, true)] {
            let count = Count::default();
            let answer = bare(StatusCode::from_u16(status).unwrap(), waits, &count);
            let app = around(layer(), Router::new().route("/payments", answer));
            for expected in ["created", "replayed"] {
                let told = call(&app, request(Some("k"), "{}")).await;
                assert_eq!(self::status(&told), (status, expected.to_owned()), "{place} {status} {waits}");
            }
            assert_eq!(count.load(Ordering::SeqCst), 1, "{place}: an opaque handler runs once");
        }
        // The inner router's own 405 is known by the methods that it names.
        let app = around(layer(), Router::new().route("/payments", get(|| async { "a list" })));
        let told = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(self::status(&told), (405, "released".to_owned()), "{place}");
    }
    // A declared effect is no proof that nothing was reached: this is the answer of a handler like any other.
    let app = behind(
        layer().effects(Effects::Marked),
        Router::new().route("/payments", bare(StatusCode::NOT_FOUND, false, &Count::default())),
    );
    assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), (404, "created".to_owned()));
    // And its routes need a key.
    let told = call(&behind(layer(), app), request(None, "{}")).await;
    assert_eq!((told.status().as_u16(), problem(&told).as_str()), (400, "key-missing"));
}

// proves: I-5
#[tokio::test]
async fn an_answer_after_a_wait_is_not_taken_for_a_routers() {
    let count = Count::default();
    let not_allowed = bare(StatusCode::METHOD_NOT_ALLOWED, true, &count);
    let waiting = Arc::clone(&count);
    let fallback = move || async move {
        waiting.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        StatusCode::NOT_FOUND
    };
    for (app, path) in [
        (Router::new().route("/payments", not_allowed).layer(layer()), "/payments"),
        (Router::new().fallback(fallback).layer(layer()), "/nowhere"),
    ] {
        count.store(0, Ordering::SeqCst);
        for expected in ["created", "replayed"] {
            assert_eq!(status(&call(&app, to(path, Some("k"))).await).1, expected, "{path}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 1, "{path}");
    }
    // On the method router itself, too, where axum has not named the allowed methods yet.
    let app = Router::new().route("/payments", get(|| async { "a list" }).layer(layer()));
    assert_eq!(status(&call(&app, to("/payments", Some("k"))).await), (405, "released".to_owned()));
}
