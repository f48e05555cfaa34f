//! The remains of a finished run: a recording that can be replayed byte for byte, or a tombstone that cannot.
//!
//! Invariant: header values are bytes in the order they were recorded; nothing is parsed, folded or re-encoded (I-2).

use std::fmt;

use bytes::Bytes;

use crate::error::{StoreError, Unreadable};

/// The first byte of encoded headers; it changes when the format does.
const HEADERS_V1: u8 = 1;

/// A finished answer: status, ordered header bytes, body. A job's result has status 0 and no headers.
///
/// ```
/// use probity_idempotency::Recording;
/// let recording = Recording::new(201).header("content-type", "application/json").body(r#"{"id":1}"#);
/// assert_eq!(recording.status(), 201);
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Recording {
    status: u16,
    headers: Vec<(Bytes, Bytes)>,
    body: Bytes,
}

impl Recording {
    /// An answer with this status, no headers and an empty body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The result of a job or message, as bytes.
    #[must_use]
    pub fn payload(body: impl Into<Bytes>) -> Self {
        Self::new(0).body(body)
    }

    /// A recording with these parts.
    #[must_use]
    pub fn from_parts(status: u16, headers: Vec<(Bytes, Bytes)>, body: Bytes) -> Self {
        Self { status, headers, body }
    }

    /// Appends a header; repeated names stay repeated.
    #[must_use]
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The status; 0 for results that are not HTTP answers.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The headers in their order.
    #[must_use]
    pub fn headers(&self) -> &[(Bytes, Bytes)] {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The number of bytes that the recording occupies in a store, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len() + self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>()
    }

    /// The headers as stores keep them.
    #[must_use]
    pub fn encode_headers(&self) -> Vec<u8> {
        let mut out = vec![HEADERS_V1];
        for part in self.headers.iter().flat_map(|(name, value)| [name, value]) {
            out.extend_from_slice(&(part.len() as u64).to_le_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    /// Rebuilds a recording from what a store kept: the reverse of [`encode_headers`](Self::encode_headers).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the headers do not follow the format.
    pub fn decode(status: u16, headers: &[u8], body: Bytes) -> Result<Self, StoreError> {
        let Some((&HEADERS_V1, mut rest)) = headers.split_first() else {
            return Err(Unreadable("header version").into());
        };
        let mut decoded = Vec::new();
        while !rest.is_empty() {
            decoded.push((take(&mut rest)?, take(&mut rest)?));
        }
        Ok(Self { status, headers: decoded, body })
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

fn take(rest: &mut &[u8]) -> Result<Bytes, Unreadable> {
    let (length, tail) = rest.split_first_chunk::<8>().ok_or(Unreadable("header length"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| Unreadable("header length"))?;
    let (part, tail) = tail.split_at_checked(length).ok_or(Unreadable("header bytes"))?;
    *rest = tail;
    Ok(Bytes::copy_from_slice(part))
}

/// The mark of a finished run that has no recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TombstoneReason {
    /// The answer was larger than the cap.
    TooLarge,
    /// The answer was a stream or an upgrade, or went on after its trailers.
    Streaming,
    /// The answer's body was compressed; another client could not read it.
    Encoded,
    /// The body broke off while it was read.
    Broken,
    /// The handler asked not to store it.
    NotStored,
}

impl TombstoneReason {
    /// The name that stores keep.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Streaming => "streaming",
            Self::Encoded => "encoded",
            Self::Broken => "broken",
            Self::NotStored => "not_stored",
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
    pub(crate) fn parse(name: &[u8]) -> Result<Self, Unreadable> {
        [Self::TooLarge, Self::Streaming, Self::Encoded, Self::Broken, Self::NotStored]
            .into_iter()
            .find(|reason| reason.as_str().as_bytes() == name)
            .ok_or(Unreadable("tombstone reason"))
    }
}

/// The run finished, but its answer cannot be replayed. It is not run again either (I-10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The reason why there is no recording.
    pub reason: TombstoneReason,
    /// The status the first caller got.
    pub status: u16,
    /// The `Location` the first caller got, if any: where the result can be read.
    pub location: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // proves: I-2
        #[test]
        fn every_recording_survives_its_stored_form(
            status in 0u16..1000,
            headers in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let headers = headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let recording = Recording::from_parts(status, headers, body.into());
            let decoded = Recording::decode(status, &recording.encode_headers(), recording.bytes().clone());
            prop_assert_eq!(decoded.expect("decodes"), recording);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Recording::decode(200, &garbage, Bytes::new());
        }
    }

    #[test]
    fn debug_shows_sizes_and_no_payload() {
        let recording = Recording::new(200).header("x", "secret").body("secret");
        let shown = format!("{recording:?}");
        assert!(shown.starts_with("Recording") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn the_size_counts_the_body_and_each_header_with_its_lengths() {
        assert_eq!(Recording::new(200).header("a", "bc").header("d", "").body("xyz").size(), 3 + 11 + 9);
    }
}
