//! The body of an answer: kept, passed through, or kept in part and passed through for the rest.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// What the layer answers with: a recorded or buffered body, the inner service's own, or a buffered beginning followed
/// by the rest of the inner service's.
pub struct ReplayBody<B> {
    start: VecDeque<Frame<Bytes>>,
    rest: Option<Pin<Box<B>>>,
}

impl<B> ReplayBody<B> {
    /// A complete body.
    pub(crate) fn full(bytes: Bytes) -> Self {
        let start = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([Frame::data(bytes)]) };
        Self { start, rest: None }
    }

    /// The inner service's body, untouched.
    pub(crate) fn inner(body: B) -> Self {
        Self { start: VecDeque::new(), rest: Some(Box::pin(body)) }
    }

    /// What was read of a body, and the rest of it.
    pub(crate) fn resumed(start: VecDeque<Frame<Bytes>>, rest: Pin<Box<B>>) -> Self {
        Self { start, rest: Some(rest) }
    }
}

impl<B: Body<Data = Bytes>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(frame) = self.start.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let start = self.start.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let Some(rest) = &self.rest else { return SizeHint::with_exact(start) };
        let inner = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(start.saturating_add(inner.lower()));
        if let Some(upper) = inner.upper() {
            hint.set_upper(start.saturating_add(upper));
        }
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("buffered", &self.start.len())
            .field("rest", &self.rest.is_some())
            .finish()
    }
}
