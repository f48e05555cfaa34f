//! Notices a run inside a run.
//!
//! A second transaction would need a second connection while the first is held, would not see the
//! first one's writes, and could wait for its locks for ever: with a pool of one it always does.
//!
//! Invariant: a refused run makes the run around it fail as well, also if its closure swallows the refusal: a mistake
//! in the code must not look like an answer of the database.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;

use crate::error::Misuse;

/// The transaction whose closure a task is running.
struct OpenRun {
    label: &'static str,
    /// The label of a run that was started inside it.
    refused: Cell<Option<&'static str>>,
}

tokio::task_local! {
    static OPEN: OpenRun;
}

/// Refuses the run `inner` if this task is inside the closure of another one, and remembers that.
pub(crate) fn refuse_nested(inner: &'static str) -> Result<(), Misuse> {
    let refused = OPEN.try_with(|open| {
        open.refused.set(Some(inner));
        Misuse::Nested { outer: open.label, inner }
    });
    refused.map_or(Ok(()), Err)
}

/// Runs `body` as the closure of the transaction `label`, and says whether a run was started inside.
pub(crate) async fn run_inside<F: Future>(label: &'static str, body: F) -> (F::Output, Option<Misuse>) {
    let mut body = pin!(OPEN.scope(OpenRun { label, refused: Cell::new(None) }, body));
    let output = body.as_mut().await;
    let inner = body.take_value().and_then(|open| open.refused.get());
    (output, inner.map(|inner| Misuse::Nested { outer: label, inner }))
}
