//! A layer around a layer.

use std::time::Duration;

use axum::handler::Handler;
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::{IdempotencyManager, Lease};

use super::*;

fn status(response: &Response<bytes::Bytes>) -> &str {
    response.headers()["idempotency-status"].to_str().unwrap()
}

fn over(store: Arc<dyn IdempotencyManager>, scope: &'static str) -> IdempotencyLayer {
    IdempotencyLayer::new(store).scope(move |_| Ok(Scope::new(scope)?))
}

/// The handler, with `inner` around the route, `middle` around that, and `outer` around the router.
fn layered(layers: [Option<IdempotencyLayer>; 3], count: &Count) -> Router {
    let count = Arc::clone(count);
    let [inner, middle, outer] = layers;
    let mut route = post(move |lease: Lease| async move {
        count.fetch_add(1, Ordering::SeqCst);
        lease.record_id()
    });
    for layer in [inner, middle].into_iter().flatten() {
        route = route.layer(layer);
    }
    let router = Router::new().route("/payments", route);
    outer.into_iter().fold(router, Router::layer)
}

// proves: I-2
#[tokio::test]
async fn a_layer_on_the_router_and_again_on_the_route_is_one_layer() {
    let layer = layer();
    let record =
        call(&layered([Some(layer.clone()), None, None], &Count::default()), request(Some("k"), "{}"))
            .await
            .into_body();
    let (store, twin) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    // Given the same store, or a wrapper around it, or with another layer in between.
    let wrapped = |store: &Arc<MemoryStore>| -> Arc<dyn IdempotencyManager> {
        Arc::new(FaultyStore::new(Arc::clone(store) as Arc<dyn IdempotencyManager>))
    };
    for (index, layers) in [
        [Some(layer.clone()), None, Some(layer.clone())],
        [Some(layer.clone().retention(Duration::from_secs(60))), None, Some(layer.clone())],
        [Some(over(wrapped(&store), "m-1")), None, Some(over(wrapped(&store), "m-1"))],
        [Some(over(twin.clone(), "m-1")), Some(over(twin.clone(), "in between")), Some(over(twin, "m-1"))],
    ]
    .into_iter()
    .enumerate()
    {
        let count = Count::default();
        let app = layered(layers, &count);
        for (key, expected) in [("k-1", "created"), ("k-1", "replayed"), ("k-2", "created")] {
            let answer = call(&app, request(Some(&format!("{index}-{key}")), "{}")).await;
            assert_eq!((answer.status().as_u16(), status(&answer)), (200, expected), "{index} {key}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
        let again = call(&app, request(Some("k"), "{}")).await.into_body();
        assert_eq!(again, record, "the handler holds the record of the layer that is next to it");
    }
}

// proves: I-8
#[tokio::test]
async fn layers_over_two_stores_or_of_two_scopes_stay_two() {
    let stores = || -> [Arc<dyn IdempotencyManager>; 2] {
        [Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())]
    };
    let [one, two] = stores();
    let [three, _] = stores();
    for (inner, outer) in
        [(over(one.clone(), "m-1"), over(two, "m-1")), (over(three.clone(), "inner"), over(three, "outer"))]
    {
        let count = Count::default();
        let app = layered([Some(inner.clone()), None, Some(outer)], &count);
        assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), "created");
        assert_eq!(status(&call(&app, request(Some("k"), "{}")).await), "replayed");
        // The inner one has a record of its own.
        let alone = layered([Some(inner), None, None], &count);
        assert_eq!(status(&call(&alone, request(Some("k"), "{}")).await), "replayed");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

/// The outer layer must not keep the refusal of the inner one: nothing ran.
#[tokio::test]
async fn a_refusal_of_the_inner_layer_is_not_recorded_by_the_outer_one() {
    let inner = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let count = Count::default();
    let app = layered(
        [Some(over(inner.clone(), "inner")), None, Some(over(Arc::new(MemoryStore::new()), "outer"))],
        &count,
    );
    inner.fail(Call::Claim, Side::Refused);
    let refused = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((refused.status().as_u16(), status(&refused)), (503, "released"));
    let retry = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((retry.status().as_u16(), status(&retry)), (200, "created"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

// proves: I-5
#[tokio::test]
async fn a_route_that_declares_more_effects_than_the_router_is_not_run_again() {
    for (outer, runs) in [(Effects::Local, 1), (Effects::Marked, 1), (Effects::Opaque, 1)] {
        let (layer, count) = (layer(), Count::default());
        let counted = Arc::clone(&count);
        let handler = move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let inner = layer.clone().effects(Effects::Opaque);
        let app = Router::new().route("/payments", post(handler.layer(inner))).layer(layer.effects(outer));
        for expected in ["created", "replayed"] {
            let answer = call(&app, request(Some("k"), "{}")).await;
            assert_eq!((answer.status().as_u16(), status(&answer)), (500, expected), "{outer:?}");
        }
        assert_eq!(count.load(Ordering::SeqCst), runs, "{outer:?}");
    }
}

#[tokio::test]
async fn a_request_that_the_inner_layer_cannot_mark_does_not_run() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let count = Count::default();
    let layer = over(store.clone(), "m-1");
    let app = layered(
        [Some(layer.clone().effects(Effects::Opaque)), None, Some(layer.effects(Effects::Local))],
        &count,
    );
    // This is the number of tries of a mark.
    for _ in 0..3 {
        store.fail(Call::MarkEffect, Side::Before);
    }
    let refused = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((refused.status().as_u16(), problem(&refused).as_str()), (503, "store-unavailable"));
    let retry = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(count.load(Ordering::SeqCst), 1, "{retry:?}");
}
