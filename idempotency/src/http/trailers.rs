//! Trailers in a recording.
//!
//! Invariant: stores keep one list of names and values. Trailers follow the headers in it, after a pair with an empty
//! name, which no header can have; so every store keeps them, and a reader that does not know them refuses to replay.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::core::recording::Recording;
use crate::error::{ErrorKind, StoreError};

type Pair = (Bytes, Bytes);

/// Appends trailers to headers.
pub(crate) fn append(headers: &mut Vec<Pair>, trailers: Vec<Pair>) {
    if !trailers.is_empty() {
        headers.push(Pair::default());
        headers.extend(trailers);
    }
}

/// Splits the headers of a recording into those before and those after its body.
pub(crate) fn split(recording: &Recording) -> (&[Pair], &[Pair]) {
    let headers = recording.headers();
    match headers.iter().position(|(name, _)| name.is_empty()) {
        Some(at) => (&headers[..at], &headers[at + 1..]),
        None => (headers, &[]),
    }
}

/// Stored pairs as a map again.
pub(crate) fn map(pairs: &[Pair]) -> Result<HeaderMap, StoreError> {
    let corrupt = |source: String| StoreError::not_applied(ErrorKind::Corrupt, source);
    // Room for what marks a replay too. Most recordings have no trailers, and a map of nothing is not allocated.
    let room = if pairs.is_empty() { 0 } else { pairs.len() + 4 };
    let mut map = HeaderMap::try_with_capacity(room).map_err(|error| corrupt(error.to_string()))?;
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name).map_err(|error| corrupt(error.to_string()))?;
        let value =
            HeaderValue::from_maybe_shared(value.clone()).map_err(|error| corrupt(error.to_string()))?;
        map.try_append(name, value).map_err(|error| corrupt(error.to_string()))?;
    }
    Ok(map)
}
