//! The state of an open transaction, behind every handle to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::Backend;
use crate::classify::Class;
use crate::error::RollbackReason;
use crate::session::Session;
use crate::settings::Settings;
use crate::tx::hooks::Hooks;
use crate::tx::statement_guard::StatementGuard;

/// Tells the transactions of this process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct TxState<DB: Backend> {
    pub(crate) session: Session<DB>,
    pub(crate) guard: StatementGuard,
    pub(crate) hooks: Hooks,
    pub(crate) scopes: Scopes,
    pub(crate) settings: Arc<Settings>,
    pub(crate) attempt: u32,
    pub(crate) number: u64,
}

/// The numbers of savepoints.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    /// The number of savepoints so far, which names the next one.
    pub(crate) opened: u32,
    /// The savepoints that still exist on the server as subtransactions: open ones, and released ones that no outer
    /// scope has undone.
    pub(crate) kept: u32,
}

impl<DB: Backend> TxState<DB> {
    pub(crate) fn new(session: Session<DB>, settings: Arc<Settings>, attempt: u32) -> Self {
        Self {
            session,
            guard: StatementGuard::new(settings.policy.idle_timeout),
            hooks: Hooks::default(),
            scopes: Scopes::default(),
            settings,
            attempt,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Tells whether `reason` means the whole transaction, so that no scope can absorb it.
    pub(crate) fn ends_the_attempt(&self, reason: &RollbackReason) -> bool {
        match reason {
            // With the session the savepoints are gone as well.
            RollbackReason::StatementFailed(failure) => {
                failure.class() == Class::SessionTimeout || self.settings.retries(failure.class())
            }
            RollbackReason::ScopeAbandoned | RollbackReason::Misuse(_) => true,
            _ => false,
        }
    }
}
