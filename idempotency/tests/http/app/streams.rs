//! Bodies of unknown length: the client does not wait for an end that may never come.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, sleep};

use super::*;

/// One piece at once, and the end after `pause`; a client that counts says of what length it is.
fn pausing(pause: Duration, content_type: &'static str) -> Response<Body> {
    let first = stream::once(async { Ok::<_, Infallible>("first ") });
    let last = stream::once(async move {
        sleep(pause).await;
        Ok("last")
    });
    Response::builder()
        .header("content-type", content_type)
        .body(Body::from_stream(first.chain(last)))
        .unwrap()
}

/// The same with its length.
struct Sized10(Body);

impl http_body::Body for Sized10 {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(10)
    }
}

// proves: I-10
#[tokio::test(start_paused = true)]
async fn a_stream_reaches_its_client_at_once() {
    let minute = Duration::from_secs(60);
    for content_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "application/octet-stream"]
    {
        let count = Count::default();
        // A stream of events goes out at once, even through a layer with patience.
        let patient = if content_type.contains("octet") { Duration::ZERO } else { minute * 2 };
        let app = answering(layer().stream_patience(patient), &count, move || pausing(minute, content_type));
        let asked = Instant::now();
        let answer = app.clone().oneshot(request(Some("k"), "{}")).await.unwrap();
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "first ");
        assert_eq!(asked.elapsed(), Duration::ZERO, "{content_type}");
        let meanwhile = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(problem(&meanwhile), "not-replayable", "{content_type}");
        assert_eq!(body.next().await.unwrap().unwrap(), "last", "the client gets all of it");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_in_time_is_recorded() {
    let second = Duration::from_secs(1);
    let ready =
        || Response::new(Body::from_stream(stream::iter([Ok::<_, Infallible>("first "), Ok("last")])));
    let short = move || pausing(second, "text/plain");
    let sized = move || short().map(|body| Body::new(Sized10(body)));
    for app in [
        // The body has an unknown length but is complete: no caller has to wait.
        answering(layer(), &Count::default(), ready),
        answering(layer().stream_patience(second * 2), &Count::default(), short),
        answering(layer(), &Count::default(), sized),
    ] {
        assert_eq!(call(&app, request(Some("k"), "{}")).await.body(), "first last");
        let again = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(
            (&again.body()[..], &again.headers()["idempotency-status"]),
            (&b"first last"[..], &"replayed".parse().unwrap())
        );
    }
}
