//! The way of one request through the layers, and how a layer further in proves that it reached no handler.
//!
//! Invariant: "not reached" is believed only of the very request that the believing layer has passed on, and only if that
//! request was never copied: the copies may have run (I-5). A handler that sends requests of its own, and answers with
//! the refusal of one of them, frees nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Extensions, Response};

use super::verdict::Verdict;

/// The mark of a request that a layer has passed on. It is kept in the extensions, so a copy of the request has it too.
struct Passed(Passage);

impl Clone for Passed {
    fn clone(&self) -> Self {
        self.0.0.copied.store(true, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

/// One request, as a layer has passed it on.
#[derive(Clone)]
pub(crate) struct Passage(Arc<Seen>);

/// The facts that all copies of a request share.
#[derive(Default)]
struct Seen {
    copied: AtomicBool,
    /// A layer further in has passed it on under the claim of the layer further out.
    used: AtomicBool,
}

impl Passage {
    /// The passage of a request on its way to the service behind this layer.
    pub(crate) fn begin(extensions: &mut Extensions) -> Self {
        let passage = Self(Arc::default());
        extensions.insert(Passed(passage.clone()));
        passage
    }

    /// The passage by which a request came here, if a layer stands further out.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Passed>().map(|passed| passed.0.clone())
    }

    /// Tells whether this is the first use of the outer claim; of several copies one is the first.
    pub(crate) fn use_once(&self) -> bool {
        !self.0.used.swap(true, Ordering::SeqCst)
    }

    /// The verdict on an answer to the request that went this way.
    pub(crate) fn verdict<B>(&self, response: &Response<B>) -> Option<Verdict> {
        let proven = |not_reached: &NotReached| {
            Arc::ptr_eq(&not_reached.0.0, &self.0) && !self.0.copied.load(Ordering::SeqCst)
        };
        let said = response.extensions().get::<Verdict>().copied();
        said.or_else(|| response.extensions().get().is_some_and(proven).then_some(Verdict::Retryable))
    }
}

/// Copies the extensions without the mark: what is asked with such a copy is not the request.
#[cfg(feature = "axum")]
pub(crate) fn copy_unmarked(extensions: &mut Extensions) -> Extensions {
    let passed = extensions.remove::<Passed>();
    let copy = extensions.clone();
    if let Some(passed) = passed {
        extensions.insert(passed);
    }
    copy
}

/// Says in an answer that the request with this passage reached no handler.
#[derive(Clone)]
struct NotReached(Passage);

/// Tells the layer further out, if there is one, that the request which `came` from it reached no handler.
///
/// A `Verdict::Retryable` that the answer carries was for the layer that is done with it, and goes no further.
pub(crate) fn tell_not_reached<B>(response: &mut Response<B>, came: Option<Passage>) {
    let extensions = response.extensions_mut();
    extensions.remove::<Verdict>();
    extensions.remove::<NotReached>();
    if let Some(came) = came {
        extensions.insert(NotReached(came));
    }
}

/// Lets go out what an answer said to a layer that took it for anything but "not reached": nothing that frees a key.
pub(crate) fn clear_not_reached<B>(response: &mut Response<B>) {
    let extensions = response.extensions_mut();
    extensions.remove::<NotReached>();
    if extensions.get() == Some(&Verdict::Retryable) {
        extensions.remove::<Verdict>();
    }
}
