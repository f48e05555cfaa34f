//! The handle a closure receives.

use std::fmt;
use std::marker::PhantomData;

use crate::backend::Backend;
use crate::error::Reason;
use crate::session::Session;
use crate::watch::Watch;

/// An open transaction. `&mut Tx` is a [`sqlx::Executor`]: pass `&mut *tx` where sqlx wants one.
///
/// It is not the connection and does not lend it. Each statement goes through the handle, which
/// remembers failures: a transaction with a failed statement is never committed, whatever the
/// closure returns.
///
/// `'b` stands for this one attempt. Nothing that carries it leaves the closure.
#[must_use]
pub struct Tx<'b, DB: Backend> {
    pub(crate) session: Session<DB>,
    pub(crate) watch: Watch,
    label: &'static str,
    attempt: u32,
    brand: PhantomData<fn(&'b ()) -> &'b ()>,
}

impl<DB: Backend> Tx<'_, DB> {
    pub(crate) fn new(session: Session<DB>, label: &'static str, attempt: u32) -> Self {
        Self { session, watch: Watch::new(), label, attempt, brand: PhantomData }
    }

    /// The label given to [`on`](crate::on).
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Makes sure that this transaction is rolled back, even if the closure returns `Ok`; the run
    /// then fails with [`Reason::Requested`].
    pub fn set_rollback_only(&mut self) {
        self.watch.spoil(Reason::Requested);
    }
}

impl<DB: Backend> fmt::Debug for Tx<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("label", &self.label)
            .field("attempt", &self.attempt)
            .field("database", &DB::NAME)
            .finish_non_exhaustive()
    }
}
