//! The trace in which a saga was started, in a form that only the program knows: the crate stores the text.

use std::sync::Arc;

use tracing::Span;

/// The longest text that is stored; the `traceparent` of W3C has 55 bytes.
const LONGEST: usize = 255;

type Current = dyn Fn() -> Option<String> + Send + Sync;
type Join = dyn Fn(&Span, &str, bool) + Send + Sync;

/// Two functions of the program: one names the trace of the caller, the other joins a span to a named trace.
#[derive(Clone)]
pub(crate) struct TraceContext {
    pub(crate) current: Arc<Current>,
    pub(crate) join: Arc<Join>,
}

impl Default for TraceContext {
    fn default() -> Self {
        Self { current: Arc::new(|| None), join: Arc::new(|_, _, _| ()) }
    }
}

impl TraceContext {
    /// The trace of the caller, unless its text is one that a store would refuse.
    pub(crate) fn current(&self) -> Option<String> {
        (self.current)().filter(|text| text.len() <= LONGEST && !text.contains('\0'))
    }
}
