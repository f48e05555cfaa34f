//! The settings of a run.

use crate::classify::Class;
use crate::isolation::Isolation;
use crate::policy::Policy;
use crate::schedule::Schedule;

/// The description of a run, without its closure.
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

/// Settings that end with the transaction. `Debug` leaves their values out: they may name a customer.
#[derive(Clone, Default)]
pub struct Locals {
    pub(crate) values: Vec<(String, String)>,
    /// The settings are made after the token is taken: it is taken as the role, and along the path, of the session.
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

    /// Tells whether a statement can hold the settings: names are put between quotes, and no value has a zero byte.
    pub(crate) fn are_possible(&self) -> bool {
        self.values.iter().all(|(name, value)| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
            // The proofs of row locks depend on these settings.
            let own = name.to_ascii_lowercase().starts_with("transaction_");
            (1..=63).contains(&name.len()) && name.bytes().all(legal) && !own && !value.contains('\0')
        })
    }
}

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

    /// Tells whether the session is unusable after a failure of this class: it is gone, or holds a stale
    /// plan, or leads to a server that takes no writes.
    pub(crate) fn spends_the_session(&self, class: Class) -> bool {
        match class {
            Class::ConnectionLost | Class::SessionTimeout | Class::StalePlan => true,
            Class::ReadOnly => !self.read_only,
            _ => false,
        }
    }
}
