//! Reading a request: its key and its whole body. This file claims no key.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName};
use http_body::Body;
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::core::key::IdempotencyKey;

/// The key in the header `name`, if there is one.
pub(crate) fn key(headers: &HeaderMap, name: &HeaderName) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(name).iter();
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
