//! Refuses locks that would prove nothing.

use super::error::LockError;
use crate::backend::Backend;
use crate::error::{Misuse, RollbackReason};
use crate::isolation::Isolation;
use crate::tx::tx_state::TxState;

/// Refuses where a witness would prove nothing. The transaction cannot be committed afterwards: a closure that takes
/// the refusal for "no such row" must not go on.
pub(super) fn check_provable<DB: Backend>(state: &mut TxState<DB>) -> Result<(), LockError> {
    if state.settings.read_only {
        return Err(refuse(
            state,
            LockError::ReadOnly,
            "a run that declared read_only() cannot lock; leave read_only() out",
        ));
    }
    if DB::LOCKS.is_some() && state.settings.isolation == Some(Isolation::RepeatableRead) {
        let remedy = "a lock proves nothing at REPEATABLE READ; use READ COMMITTED or SERIALIZABLE";
        return Err(refuse(state, LockError::RepeatableRead, remedy));
    }
    Ok(())
}

pub(super) fn refuse<DB: Backend>(
    state: &mut TxState<DB>,
    error: LockError,
    remedy: &'static str,
) -> LockError {
    state.guard.poison(RollbackReason::Misuse(Misuse::Lock { remedy }));
    error
}
