//! What a run was asked to be, and whether it can be.

use crate::backend::Backend;
use crate::classify::Class;
use crate::error::Misuse;
use crate::policy::Policy;
use crate::schedule::Schedule;

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
#[derive(Debug)]
pub struct Settings {
    pub(crate) label: &'static str,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) read_only: bool,
    pub(crate) in_flight_max: Option<usize>,
    pub(crate) policy: Policy,
    /// Settings for the transaction, by name.
    pub(crate) locals: Locals,
    pub(crate) schedule: Schedule,
}

/// Settings that end with the transaction. Without the values in its `Debug`: they may name a customer.
#[derive(Clone, Default)]
pub struct Locals {
    pub(crate) values: Vec<(String, String)>,
    /// They wait until the token is taken: it is taken as the role, and along the path, of the session.
    pub(crate) after_the_token: bool,
}

impl std::fmt::Debug for Locals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values.iter().map(|(name, _)| name)).finish()
    }
}

impl Locals {
    /// Tells whether the transaction may run as another role because of these settings.
    pub(crate) fn change_role(&self) -> bool {
        self.values.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("role") || name.eq_ignore_ascii_case("session_authorization")
        })
    }

    /// Names are put between quotes, and values have no character that a statement cannot have.
    fn possible(&self) -> bool {
        self.values.iter().all(|(name, value)| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            // What a run proves of its locks rests on these.
            let own = name.to_ascii_lowercase().starts_with("transaction_");
            (1..=63).contains(&name.len()) && name.bytes().all(legal) && !own && !value.contains('\0')
        })
    }
}

/// The longest label that metrics systems take without trouble.
const LABEL_MAX: usize = 64;

impl Settings {
    pub(crate) fn new(label: &'static str) -> Self {
        Self {
            label,
            isolation: None,
            read_only: false,
            in_flight_max: None,
            policy: Policy::payments(),
            locals: Locals::default(),
            schedule: Schedule::default(),
        }
    }

    /// Tells whether a failure of this class is worth a fresh transaction. A run that declared to only read, and was
    /// refused a write, would be refused it again.
    pub(crate) fn retries(&self, class: Class) -> bool {
        self.policy.retries(class) && !(self.read_only && class == Class::ReadOnly)
    }

    /// Tells whether the session is of no use to anybody after a failure of this class: it is gone, or holds a stale
    /// plan, or leads to a server that takes no writes.
    pub(crate) fn spends_the_session(&self, class: Class) -> bool {
        match class {
            Class::ConnectionLost | Class::SessionTimeout | Class::StalePlan => true,
            Class::ReadOnly => !self.read_only,
            _ => false,
        }
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
        if !self.locals.possible() {
            return Err(Misuse::Setting);
        }
        match self.isolation {
            Some(level) if !DB::supports(level) => Err(Misuse::Isolation { level, database: DB::NAME }),
            _ => Ok(()),
        }
    }
}
