//! The body of an answer: kept, passed through, or kept in part and passed through for the rest.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// The bodies on both sides of the layer: a recorded or buffered one, another body as it is, or a buffered beginning and
/// the rest of another body.
///
/// The inner service gets one with each request, for any type of body that the layer got, and the layer answers with
/// one.
pub struct ReplayBody<B: Body> {
    /// Comes first. Most answers are nothing else, and need no queue.
    whole: Bytes,
    start: VecDeque<Frame<Bytes>>,
    rest: Option<Rest<B>>,
}

/// The part that follows the buffered beginning.
enum Rest<B: Body> {
    Inner(Pin<Box<B>>),
    Broken(B::Error),
}

impl<B: Body> ReplayBody<B> {
    /// A body as it is.
    pub fn new(body: B) -> Self {
        Self::inner(body)
    }

    /// A complete body.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { whole: bytes, start: VecDeque::new(), rest: None }
    }

    /// A complete body and its trailers.
    pub(crate) fn whole(bytes: Bytes, trailers: HeaderMap) -> Self {
        let mut body = Self::full(bytes);
        if !trailers.is_empty() {
            body.start.push_back(Frame::trailers(trailers));
        }
        body
    }

    /// The inner service's body, untouched.
    pub(crate) fn inner(body: B) -> Self {
        Self { whole: Bytes::new(), start: VecDeque::new(), rest: Some(Rest::Inner(Box::pin(body))) }
    }

    /// Joins the frames that were read of a body and the rest of it.
    pub(crate) fn resumed(start: VecDeque<Frame<Bytes>>, rest: Pin<Box<B>>) -> Self {
        Self { whole: Bytes::new(), start, rest: Some(Rest::Inner(rest)) }
    }

    /// Joins the frames that were read of a body and the error with which it broke off. The client must see that it
    /// did.
    pub(crate) fn broken(start: VecDeque<Frame<Bytes>>, error: B::Error) -> Self {
        Self { whole: Bytes::new(), start, rest: Some(Rest::Broken(error)) }
    }
}

impl<B: Body> Default for ReplayBody<B> {
    /// An empty body.
    fn default() -> Self {
        Self::full(Bytes::new())
    }
}

impl<B: Body> From<Bytes> for ReplayBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

// The inner body is boxed and the error is only ever moved out, so nothing here is structurally pinned.
impl<B: Body> Unpin for ReplayBody<B> {}

impl<B: Body<Data = Bytes>> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.whole.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.whole)))));
        }
        if let Some(frame) = self.start.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.rest.take() {
            Some(Rest::Inner(mut inner)) => {
                let polled = inner.as_mut().poll_frame(cx);
                self.rest = Some(Rest::Inner(inner));
                polled
            }
            Some(Rest::Broken(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty()
            && self.start.is_empty()
            && match &self.rest {
                Some(Rest::Inner(inner)) => inner.is_end_stream(),
                Some(Rest::Broken(_)) => false,
                None => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let start = self.start.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let start = start + self.whole.len() as u64;
        let inner = match &self.rest {
            Some(Rest::Inner(inner)) => inner.size_hint(),
            Some(Rest::Broken(_)) => SizeHint::new(),
            // An exact size would be sent as a length, and leave no room for trailers.
            None if self.start.iter().any(Frame::is_trailers) => SizeHint::new(),
            None => return SizeHint::with_exact(start),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(start.saturating_add(inner.lower()));
        if let Some(upper) = inner.upper() {
            hint.set_upper(start.saturating_add(upper));
        }
        hint
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("whole", &self.whole.len())
            .field("buffered", &self.start.len())
            .field("rest", &self.rest.is_some())
            .finish()
    }
}
