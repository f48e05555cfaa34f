//! Notices a run inside a run.
//!
//! A second transaction would need a second connection while the first is held, would not see the
//! first one's writes, and could wait for its locks for ever: with a pool of one it always does.

use std::future::Future;

tokio::task_local! {
    static OPEN: &'static str;
}

/// The label of the transaction whose closure this task is running.
pub(crate) fn open_label() -> Option<&'static str> {
    OPEN.try_with(|label| *label).ok()
}

/// Runs `body` as the closure of the transaction `label`.
pub(crate) fn inside<F: Future>(label: &'static str, body: F) -> impl Future<Output = F::Output> + use<F> {
    OPEN.scope(label, body)
}
