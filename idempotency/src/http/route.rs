//! Asks axum's routers whether a request has met a route.
//!
//! Invariant: "missing" is proven or not said. It is said only inside an axum router that has matched neither a route nor
//! a nested service, and only by a layer which that router was given: what stands behind is then its fallback. A service
//! that was put behind the layer by hand may be a router, and find the route that the one around the layer did not.

use http::Extensions;

#[cfg(feature = "axum")]
use super::passage;

/// Tells whether an axum router around this layer has found no route for the request. `S` is the service behind the layer:
/// a router that is given a layer puts it around its `Route`s.
#[cfg(feature = "axum")]
pub(crate) async fn is_missing<S: 'static>(extensions: &mut Extensions) -> bool {
    use std::any::TypeId;

    use axum::extract::{MatchedPath, NestedPath, OriginalUri};
    use axum::routing::Route;

    TypeId::of::<S>() == TypeId::of::<Route>()
        && extensions.get::<OriginalUri>().is_some()
        && extensions.get::<MatchedPath>().is_none()
        && extensions.get::<NestedPath>().is_none()
        && !is_nested(extensions).await
}

/// Returns `false`: without axum there is no router to ask.
#[cfg(not(feature = "axum"))]
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "with axum, the type of the service says who was given the layer"
)]
pub(crate) async fn is_missing<S>(_: &mut Extensions) -> bool {
    false
}

/// Tells whether a nested service was matched. axum keeps a private note of that, which its own router reads: a route that
/// is matched inside has a path that begins with the nest's.
#[cfg(feature = "axum")]
async fn is_nested(extensions: &mut Extensions) -> bool {
    use std::sync::LazyLock;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::MatchedPath;
    use axum::routing::any;
    use http::Request;
    use http_body_util::BodyExt;
    use tower_service::Service;

    static ECHO: LazyLock<Router> =
        LazyLock::new(|| Router::new().route("/", any(async |path: MatchedPath| path.as_str().to_owned())));

    let mut request = Request::new(Body::empty());
    *request.extensions_mut() = passage::copy_unmarked(extensions);
    let answer = match ECHO.clone().call(request).await {
        Ok(answer) => answer.into_body().collect().await,
        Err(never) => match never {},
    };
    // Every other path counts as nested, which proves nothing and changes nothing.
    answer.map_or(true, |body| body.to_bytes() != "/")
}
