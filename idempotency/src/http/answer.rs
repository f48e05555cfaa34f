//! Turning an answer into a recording or a tombstone, and a recording back into an answer.
//!
//! Invariant: an answer that cannot be kept whole leaves a tombstone, never cut and never forgotten (I-10).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_LOCATION, CONTENT_TYPE, ETAG, LAST_MODIFIED, LINK, LOCATION, RETRY_AFTER, TRAILER,
};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Instant, timeout_at};

use super::body::ReplayBody;
use super::config::Config;
use super::problem::{REPLAYED_HEADER, STATUS_HEADER};
use super::trailers;
use super::verdict::Verdict;
use crate::core::claim::Effects;
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::deadline::deadline;
use crate::error::{ErrorKind, StoreError};

/// The headers that belong to the answer itself. Cookies, challenges, dates and framing belong to one delivery of it.
static KEPT: [HeaderName; 14] = [
    CONTENT_TYPE,
    CONTENT_LANGUAGE,
    CONTENT_DISPOSITION,
    LOCATION,
    CONTENT_LOCATION,
    ETAG,
    LAST_MODIFIED,
    LINK,
    RETRY_AFTER,
    TRAILER,
    // Without these a gRPC client cannot read the answer; they are headers or trailers.
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];

/// The treatment of an answer, decided by verdict, status and effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Record,
    Tombstone,
    Release,
    Expire,
    /// Leave the record open: the answer is not final.
    Leave,
}

/// Tells whether the status of an answer says that the request was turned away before anything was done. `at_once` says that
/// the answer was there without waiting, as it is where nothing outside of the process was asked.
pub(crate) fn is_turned_away<B: Body>(
    config: &Config,
    response: &Response<B>,
    no_route: bool,
    at_once: bool,
) -> bool {
    let headers = response.headers();
    // A router gives these answers at once and without a body. axum adds a length to the answers of its routes, and none to
    // its own; outside of a router it also names the allowed methods.
    let bare = || at_once && response.body().size_hint().exact() == Some(0);
    let no_length = || !headers.contains_key(CONTENT_LENGTH);
    match response.status().as_u16() {
        401 | 403 | 407 | 421 | 425 | 429 => true,
        404 if no_route && (config.policy.effects != Effects::Opaque || (bare() && no_length())) => true,
        405 if bare() && (no_length() || headers.contains_key(ALLOW)) => true,
        _ => config.released.contains(&response.status()),
    }
}

/// Decides an answer's fate. `marked`: an external effect was announced, so the key cannot be released any more.
pub(crate) fn fate(
    verdict: Option<Verdict>,
    status: StatusCode,
    turned_away: bool,
    effects: Effects,
    marked: bool,
) -> Fate {
    match (verdict, status.as_u16()) {
        (Some(Verdict::Final), _) => Fate::Record,
        (Some(Verdict::Unknown), _) => Fate::Expire,
        (Some(Verdict::NoStore), _) => Fate::Tombstone,
        (Some(Verdict::Pending), _) if marked || effects == Effects::Opaque => Fate::Leave,
        (Some(Verdict::Retryable), _) if !marked => Fate::Release,
        (None, _) if turned_away && !marked => Fate::Release,
        (None, 100..200) => Fate::Tombstone,
        // Not an answer of the work but of a time limit around it: the effect may be on its way.
        (None, 408) if marked || effects == Effects::Opaque => Fate::Expire,
        (None, 408) => Fate::Release,
        (None, 500..) if !marked && effects != Effects::Opaque => Fate::Release,
        _ => Fate::Record,
    }
}

/// An answer, read as far as it could be, and what to keep of it.
pub(crate) enum Kept<B: Body> {
    Recording(Recording, Response<ReplayBody<B>>),
    Tombstone(Tombstone, Response<ReplayBody<B>>),
}

/// Reads the body up to the cap. The first caller gets the whole answer in every case.
pub(crate) async fn keep<B>(config: &Config, response: Response<B>, only_tombstone: bool) -> Kept<B>
where
    B: Body<Data = Bytes>,
{
    let (parts, body) = response.into_parts();
    let unreadable = if only_tombstone {
        Some(TombstoneReason::NotStored)
    } else if parts.status.is_informational() || is_event_stream(&parts.headers) {
        Some(TombstoneReason::Streaming)
    } else if parts.headers.contains_key(CONTENT_ENCODING) {
        Some(TombstoneReason::Encoded)
    } else if body.size_hint().lower() > config.response_cap as u64 {
        Some(TombstoneReason::TooLarge)
    } else {
        None
    };
    if let Some(reason) = unreadable {
        let tombstone = tombstone(&parts, reason);
        return Kept::Tombstone(tombstone, Response::from_parts(parts, ReplayBody::inner(body)));
    }
    // A body of unknown length may have no end.
    let sized = body.size_hint().exact().is_some();
    let patience = if sized { config.response_patience } else { config.stream_patience };
    match read(body, config.response_cap, patience).await {
        Ok((bytes, trailers)) => {
            let recording = recording(config, &parts, bytes.clone(), &trailers);
            Kept::Recording(recording, Response::from_parts(parts, ReplayBody::whole(bytes, trailers)))
        }
        Err((reason, body)) => {
            let tombstone = tombstone(&parts, reason);
            Kept::Tombstone(tombstone, Response::from_parts(parts, body))
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes()).trim_ascii_start();
    value.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME))
}

/// The next frame, if it comes in time: at once, if there is no time.
async fn next<B: Body>(
    mut body: Pin<&mut B>,
    until: Option<Instant>,
) -> Option<Option<Result<Frame<B::Data>, B::Error>>> {
    match until {
        Some(until) => timeout_at(until, poll_fn(|cx| body.as_mut().poll_frame(cx))).await.ok(),
        None => {
            poll_fn(|cx| match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(Some(frame)),
                Poll::Pending => Poll::Ready(None),
            })
            .await
        }
    }
}

/// Data and trailers, if they are no more than the cap; otherwise what was read, and the rest.
async fn read<B>(
    body: B,
    cap: usize,
    patience: Duration,
) -> Result<(Bytes, HeaderMap), (TombstoneReason, ReplayBody<B>)>
where
    B: Body<Data = Bytes>,
{
    let until = (!patience.is_zero()).then(|| deadline(Instant::now(), patience));
    let mut body = Box::pin(body);
    let (mut frames, mut length, mut ended) = (VecDeque::new(), 0, false);
    let reason = loop {
        match next(body.as_mut(), until).await {
            None => break TombstoneReason::Streaming,
            Some(None) => {
                let trailers = if ended { frames.pop_back() } else { None };
                let trailers = trailers.and_then(|frame: Frame<Bytes>| frame.into_trailers().ok());
                return Ok((join(frames, length), trailers.unwrap_or_default()));
            }
            Some(Some(Err(error))) => {
                return Err((TombstoneReason::Broken, ReplayBody::broken(frames, error)));
            }
            Some(Some(Ok(frame))) => {
                // Trailers end a body; frames after them could not be replayed.
                let out_of_order = std::mem::replace(&mut ended, frame.is_trailers());
                length += frame.data_ref().map_or(0, Bytes::len);
                length += frame.trailers_ref().map_or(0, |trailers| {
                    trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
                });
                frames.push_back(frame);
                if out_of_order {
                    break TombstoneReason::Streaming;
                }
                if length > cap {
                    break TombstoneReason::TooLarge;
                }
            }
        }
    };
    Err((reason, ReplayBody::resumed(frames, body)))
}

fn join(mut frames: VecDeque<Frame<Bytes>>, length: usize) -> Bytes {
    if frames.len() == 1 {
        return frames.pop_front().and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(length);
    for data in frames.into_iter().filter_map(|frame| frame.into_data().ok()) {
        joined.extend_from_slice(&data);
    }
    joined.freeze()
}

fn recording(config: &Config, parts: &Parts, body: Bytes, trailers: &HeaderMap) -> Recording {
    let name_kept = |name: &HeaderName| match KEPT.iter().find(|kept| *kept == name) {
        Some(kept) => Some(Bytes::from_static(kept.as_str().as_bytes())),
        None if config.extra_headers.contains(name) => Some(Bytes::copy_from_slice(name.as_str().as_bytes())),
        None => None,
    };
    let kept = |headers: &HeaderMap| -> Vec<(Bytes, Bytes)> {
        let pair = |(name, value): (_, &HeaderValue)| {
            Some((name_kept(name)?, Bytes::copy_from_slice(value.as_bytes())))
        };
        headers.iter().filter_map(pair).collect()
    };
    let mut headers = kept(&parts.headers);
    trailers::append(&mut headers, kept(trailers));
    Recording::from_parts(parts.status.as_u16(), headers, body)
}

fn tombstone(parts: &Parts, reason: TombstoneReason) -> Tombstone {
    let location = parts.headers.get(LOCATION).map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Tombstone { reason, status: parts.status.as_u16(), location }
}

/// The answer of an earlier attempt under this `status`, and its trailers.
pub(crate) fn replay(
    recording: &Recording,
    status: &'static str,
) -> Result<(Response<Bytes>, HeaderMap), StoreError> {
    let (mut response, trailers) = answer(recording)?;
    let headers = response.headers_mut();
    headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    headers.insert(STATUS_HEADER, HeaderValue::from_static(status));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((response, trailers))
}

/// A recording as the answer it is, without the marks of a replay, and its trailers.
pub(crate) fn answer(recording: &Recording) -> Result<(Response<Bytes>, HeaderMap), StoreError> {
    let mut response = Response::new(recording.bytes().clone());
    *response.status_mut() = StatusCode::from_u16(recording.status())
        .map_err(|error| StoreError::not_applied(ErrorKind::Corrupt, error.to_string()))?;
    let (headers, trailers) = trailers::split(recording);
    let mut headers = trailers::map(headers)?;
    headers.remove(CONTENT_LENGTH);
    *response.headers_mut() = headers;
    Ok((response, trailers::map(trailers)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_settled_by_verdict_then_status_then_effects() {
        use Effects::{Local, Marked, Opaque};
        for (verdict, status, effects, marked, expected) in [
            (None, 200, Opaque, false, Fate::Record),
            (None, 303, Opaque, false, Fate::Record),
            (None, 402, Local, false, Fate::Record),
            (None, 429, Opaque, false, Fate::Release),
            (None, 429, Marked, true, Fate::Record),
            (None, 408, Opaque, false, Fate::Expire),
            (None, 408, Marked, true, Fate::Expire),
            (None, 408, Marked, false, Fate::Release),
            (None, 408, Local, false, Fate::Release),
            (None, 500, Opaque, false, Fate::Record),
            (None, 503, Opaque, false, Fate::Record),
            (None, 500, Local, false, Fate::Release),
            (None, 500, Marked, false, Fate::Release),
            (None, 500, Marked, true, Fate::Record),
            (None, 101, Opaque, false, Fate::Tombstone),
            (Some(Verdict::Retryable), 503, Opaque, false, Fate::Release),
            (Some(Verdict::Retryable), 503, Opaque, true, Fate::Record),
            (Some(Verdict::Unknown), 504, Opaque, false, Fate::Expire),
            (Some(Verdict::NoStore), 200, Opaque, false, Fate::Tombstone),
            (Some(Verdict::Final), 429, Opaque, false, Fate::Record),
            (Some(Verdict::Pending), 202, Opaque, false, Fate::Leave),
            (Some(Verdict::Pending), 202, Marked, true, Fate::Leave),
            (Some(Verdict::Pending), 202, Marked, false, Fate::Record),
            (Some(Verdict::Pending), 503, Local, false, Fate::Record),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            assert_eq!(
                fate(verdict, status, status == 429, effects, marked),
                expected,
                "{verdict:?} {status} {effects:?} {marked}"
            );
        }
    }

    #[test]
    fn a_replay_keeps_repeated_and_non_utf8_headers_in_order() {
        let recording = Recording::new(201)
            .header("link", "</a>; rel=next")
            .header("x-raw", &b"\xff\xfe"[..])
            .header("link", "</b>; rel=prev")
            .body("x");
        let (response, _) = replay(&recording, "replayed").expect("valid headers");
        let links: Vec<_> = response.headers().get_all(LINK).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(links, [&b"</a>; rel=next"[..], b"</b>; rel=prev"]);
        assert_eq!(response.headers()["x-raw"].as_bytes(), b"\xff\xfe");
    }

    #[test]
    fn a_damaged_recording_is_an_error() {
        assert!(replay(&Recording::new(42), "replayed").is_err());
        assert!(replay(&Recording::new(200).header("bad name", "v"), "replayed").is_err());
        assert!(replay(&Recording::new(200).header("name", "bad\nvalue"), "replayed").is_err());
        let many = (0..40_000).map(|number| (format!("x-{number}").into(), Bytes::new())).collect();
        assert!(replay(&Recording::from_parts(200, many, Bytes::new()), "replayed").is_err());
    }
}
