//! Reading a request: its key, its scope, its whole body, its fingerprint. Nothing is claimed here.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri};
use http_body::Body;
use http_body_util::BodyExt;

use super::config::Config;
use super::problem::Problem;
use crate::{Fingerprint, IdempotencyKey};

pub(crate) const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The key, if there is one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            IdempotencyKey::from_header(value.as_bytes()).map(Some).map_err(Problem::KeyMalformed)
        }
        (Some(_), Some(_)) => Err(Problem::KeyRepeated),
    }
}

/// The whole body, or a refusal; it is never truncated.
pub(crate) async fn body<B>(headers: &HeaderMap, body: B, cap: usize) -> Result<Bytes, Problem>
where
    B: Body,
{
    let declared =
        match headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap_or_default().parse::<u64>()) {
            None => None,
            Some(Ok(length)) => Some(length),
            Some(Err(_)) => return Err(Problem::BodyIncomplete),
        };
    if declared.unwrap_or_default().max(body.size_hint().lower()) > cap as u64 {
        return Err(Problem::BodyTooLarge(cap));
    }
    // A body in one piece, as most are, is not copied.
    let (mut piece, mut joined) = (Bytes::new(), BytesMut::new());
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.as_mut().frame().await {
        let Ok(frame) = frame else { return Err(Problem::BodyIncomplete) };
        let Ok(mut data) = frame.into_data() else { continue };
        let (held, more) = (piece.len() + joined.len(), data.remaining());
        if more > cap - held {
            return Err(Problem::BodyTooLarge(cap));
        }
        if held == 0 {
            piece = data.copy_to_bytes(more);
        } else {
            joined.put(std::mem::take(&mut piece));
            joined.put(data);
        }
    }
    let body = if joined.is_empty() { piece } else { joined.freeze() };
    if declared.is_some_and(|length| length != body.len() as u64) {
        return Err(Problem::BodyIncomplete);
    }
    Ok(body)
}

/// Method, path and query, content type and encoding, body: what makes a retry the same request. Trace headers and
/// the like differ between retries and do not count. The path counts as the client sent it and as it is here: a router
/// may have cut a prefix off, and with it the resource.
pub(crate) fn fingerprint(config: &Config, parts: &Parts, body: &Bytes) -> Fingerprint {
    let header = |name: HeaderName| parts.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
    Fingerprint::of(
        &config.hash,
        &[
            parts.method.as_str().as_bytes(),
            target(sent(parts)),
            target(&parts.uri),
            header(CONTENT_TYPE),
            header(CONTENT_ENCODING),
            body,
        ],
    )
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes()
}

/// The target as the client sent it, as far as anybody kept it.
fn sent(parts: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    &parts.uri
}
