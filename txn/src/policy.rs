//! The limits of a run: plain data, no clock, no randomness.

use std::time::Duration;

use crate::classify::Class;

/// The limits of one run. Plain data: copy the default and change what differs.
///
/// ```
/// use std::time::Duration;
/// use probity_txn::Policy;
///
/// let patient = Policy { attempts: 10, deadline: Duration::from_secs(60), ..Policy::payments() };
/// assert_eq!(patient.lock_timeout, Policy::payments().lock_timeout);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first included. Zero is refused when the run starts.
    pub attempts: u32,
    /// The first pause is drawn from zero to this; the bound doubles with each conflict.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The time by which everything before COMMIT must be done, all attempts and pauses included.
    pub deadline: Duration,
    /// The time to wait for the answer to COMMIT before its outcome counts as unknown.
    pub commit_timeout: Duration,
    /// The `lock_timeout` of PostgreSQL; `None` leaves the session's own.
    pub lock_timeout: Option<Duration>,
    /// The `statement_timeout` of PostgreSQL; `None` leaves the session's own.
    pub statement_timeout: Option<Duration>,
    /// The `idle_in_transaction_session_timeout` of PostgreSQL; `None` leaves the session's own.
    pub idle_timeout: Option<Duration>,
    /// A lock that was not granted in time is a conflict to retry if this is set.
    pub retry_lock_timeout: bool,
    /// A session that the server ended because the transaction idled or lasted too long is a conflict to retry if
    /// this is set. It is off by default: a closure that was slow once is slow again, and repeats its calls to
    /// other services.
    pub retry_session_timeout: bool,
    /// A cached plan that a migration made stale is a conflict to retry if this is set, as it is by default. The next
    /// attempt plans afresh. Either way the connection that holds the plan is closed: at once, or, where a
    /// [scope](crate::Tx::scope) absorbed the failure, at the end of the run.
    pub retry_stale_plan: bool,
    /// PostgreSQL (15 and later) is asked for the outcome of a transaction whose COMMIT got no answer if this is
    /// set. It costs no round trip, but each transaction takes its id at BEGIN.
    pub look_up_lost_commits: bool,
    /// The setting says that a pooler such as PgBouncer, in transaction mode, stands between. No statement of a run
    /// gets a name then, since the next transaction may have another server session. It costs one round trip per
    /// statement.
    pub behind_pooler: bool,
    /// An abandoned statement is cancelled on the server (PostgreSQL) if this is set: the statement
    /// of a run that was dropped or is past its deadline. It costs no round trip; but a run that is not looked up
    /// (with a token, or read-only) then asks a question with BEGIN. That question also shows a transaction that
    /// was left open and has only begun.
    pub cancel_abandoned: bool,
    /// The time that one [hook](crate::Tx::after_commit) may take. After it the hook is dropped, and the next one
    /// runs.
    pub hook_timeout: Duration,
    /// The time between the statements of one attempt above which a warning is logged: it is
    /// the mark of an external call inside a transaction.
    pub between_statements_warn: Duration,
    /// The time between the statements above which the run is rolled back. `None`, the default, never does;
    /// tests set it.
    pub between_statements_max: Option<Duration>,
}

impl Policy {
    /// The defaults, chosen for requests that move money.
    #[must_use]
    pub const fn payments() -> Self {
        Self {
            attempts: 5,
            backoff_base: Duration::from_millis(5),
            backoff_max: Duration::from_millis(200),
            deadline: Duration::from_secs(10),
            commit_timeout: Duration::from_secs(30),
            lock_timeout: Some(Duration::from_secs(2)),
            statement_timeout: Some(Duration::from_secs(5)),
            idle_timeout: Some(Duration::from_secs(5)),
            retry_lock_timeout: false,
            retry_session_timeout: false,
            retry_stale_plan: true,
            look_up_lost_commits: true,
            behind_pooler: false,
            cancel_abandoned: true,
            hook_timeout: Duration::from_secs(5),
            between_statements_warn: Duration::from_millis(50),
            between_statements_max: None,
        }
    }

    /// Tells whether a failure of this class, before COMMIT was sent or as its answer, is worth a fresh
    /// transaction.
    pub(crate) fn retries(&self, class: Class) -> bool {
        match class {
            Class::Serialization
            | Class::Deadlock
            | Class::Busy
            | Class::ConnectionLost
            | Class::ReadOnly => true,
            Class::LockTimeout => self.retry_lock_timeout,
            Class::SessionTimeout => self.retry_session_timeout,
            Class::StalePlan => self.retry_stale_plan,
            Class::Timeout
            | Class::Constraint
            | Class::Aborted
            | Class::Overloaded
            | Class::Storage
            | Class::Other => false,
        }
    }

    /// The pause after `conflicts` conflicts: full jitter, so `random` spreads it evenly between
    /// zero and the bound.
    pub(crate) fn pause(&self, conflicts: u32, random: u32) -> Duration {
        let doublings = conflicts.saturating_sub(1).min(31);
        let bound = self.backoff_base.saturating_mul(1 << doublings).min(self.backoff_max);
        let nanos = bound.as_nanos() * u128::from(random) / u128::from(u32::MAX);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// [`Policy::payments`].
impl Default for Policy {
    fn default() -> Self {
        Self::payments()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_the_pause_doubles_up_to_its_limit() {
        let policy = Policy::payments();
        let bounds: Vec<_> = (1..=8).map(|n| policy.pause(n, u32::MAX).as_millis()).collect();
        assert_eq!(bounds, [5, 10, 20, 40, 80, 160, 200, 200]);
        assert_eq!(policy.pause(40, u32::MAX).as_millis(), 200);
    }

    #[test]
    fn the_pause_covers_the_whole_range_down_to_zero() {
        let policy = Policy::payments();
        assert_eq!(policy.pause(3, 0), Duration::ZERO);
        let half = policy.pause(3, u32::MAX / 2);
        assert!(half > Duration::from_millis(9) && half < Duration::from_millis(11));
    }

    #[test]
    fn deterministic_failures_are_never_retried() {
        let policy = Policy::payments();
        for class in [Class::Constraint, Class::Other, Class::Overloaded, Class::Aborted, Class::Timeout] {
            assert!(!policy.retries(class), "{class:?}");
        }
        assert!(policy.retries(Class::Serialization));
        assert!(!policy.retries(Class::LockTimeout));
    }

    #[test]
    fn session_timeouts_are_retried_only_on_request_and_stale_plans_by_default() {
        let policy = Policy::payments();
        assert!(!policy.retries(Class::SessionTimeout));
        assert!(Policy { retry_session_timeout: true, ..policy.clone() }.retries(Class::SessionTimeout));
        assert!(policy.retries(Class::StalePlan));
        assert!(!Policy { retry_stale_plan: false, ..policy.clone() }.retries(Class::StalePlan));
        assert!(policy.retries(Class::ReadOnly), "another connection may lead to the primary");
    }
}
