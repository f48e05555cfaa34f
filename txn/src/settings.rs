//! What a run was asked to be, and whether it can be.

use crate::backend::Backend;
use crate::error::Misuse;
use crate::policy::Policy;

/// How much a transaction sees of the others. Databases that lack a level refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Each statement sees what was committed when it began: the default on PostgreSQL, also where the
    /// server's own default is another, and right together with row locks.
    ReadCommitted,
    /// All statements see one snapshot. Row locks do not make sums safe here; see the pitfalls.
    RepeatableRead,
    /// As if the transactions ran one after the other. SQLite always is.
    Serializable,
}

/// Everything about a run except its closure.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) label: &'static str,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: bool,
    pub(crate) in_flight_max: Option<usize>,
    pub(crate) policy: Policy,
}

/// The longest label that metrics systems take without trouble.
const LABEL_MAX: usize = 64;

impl Settings {
    pub(crate) fn new(label: &'static str) -> Self {
        Self { label, isolation: None, read_only: false, in_flight_max: None, policy: Policy::payments() }
    }

    /// Refuses what cannot work on `DB`, before anything runs.
    pub(crate) fn check<DB: Backend>(&self) -> Result<(), Misuse> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
        if self.label.is_empty() || self.label.len() > LABEL_MAX || !self.label.bytes().all(legal) {
            return Err(Misuse::Label { label: self.label });
        }
        if self.policy.attempts == 0 {
            return Err(Misuse::NoAttempts);
        }
        if self.in_flight_max == Some(0) {
            return Err(Misuse::NothingInFlight);
        }
        match self.isolation {
            Some(level) if !DB::supports(level) => Err(Misuse::Isolation { level, database: DB::NAME }),
            _ => Ok(()),
        }
    }
}
