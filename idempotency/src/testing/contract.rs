//! The clauses, by name, and what they run on.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::violation::Violation;
use crate::core::claim::{Answer, Claim, Effects, Grant, Terms};
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::{HashKey, RecordId};
use crate::core::recording::Recording;
use crate::store::manager::IdempotencyManager;
use crate::token::{Holder, OwnerToken};

mod claim;
mod clock;
mod expiry;
mod faults;
mod finish;
mod history;
mod lease;
mod release;
mod resolve;

/// A store under test, and the value that must live as long as it: a database, a folder.
pub struct Subject {
    store: Arc<dyn IdempotencyManager>,
    clock: Option<Clock>,
    _keep: Option<Box<dyn Any + Send>>,
}

/// Sets the clock of a store under test, to a time since 1970.
type Clock = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl Subject {
    /// A store to test. Clauses use random records, so it may be shared.
    #[must_use]
    pub fn new(store: Arc<dyn IdempotencyManager>) -> Self {
        Self { store, clock: None, _keep: None }
    }

    /// Lets the clauses about clocks set the store's clock to a time since 1970, at which it then stops. Without it
    /// they use the store's own clock.
    #[must_use]
    pub fn clock<F>(mut self, set: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.clock = Some(Arc::new(move |time| Box::pin(set(time))));
        self
    }

    /// Keeps `guard` alive until the clause is done.
    #[must_use]
    pub fn keep(mut self, guard: impl Any + Send) -> Self {
        self._keep = Some(Box::new(guard));
        self
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subject").field(&self.store).finish()
    }
}

type Store = Arc<dyn IdempotencyManager>;
type Checking = Pin<Box<dyn Future<Output = Result<(), Violation>> + Send>>;

/// One clause of the contract.
#[derive(Clone, Copy)]
pub struct Clause {
    /// The sentence of the clause, as the name of its test.
    pub name: &'static str,
    check: fn(Store, Option<Clock>) -> Checking,
}

impl Clause {
    /// Checks the clause.
    ///
    /// # Cancel safety
    /// Leaves a random record or two behind, as it also does when it completes.
    ///
    /// # Errors
    /// The act of the store that the clause forbids.
    pub async fn check(&self, subject: &Subject) -> Result<(), Violation> {
        (self.check)(Arc::clone(&subject.store), subject.clock.clone()).await
    }
}

impl fmt::Debug for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clause").field(&self.name).finish()
    }
}

/// The clause of this name.
///
/// # Panics
/// If there is none.
#[must_use]
#[expect(clippy::panic, reason = "a suite that silently checks nothing is worse")]
pub fn clause(name: &str) -> Clause {
    match clauses().iter().find(|clause| clause.name == name) {
        Some(clause) => *clause,
        None => panic!("the contract has no clause {name}"),
    }
}

/// Lists the clauses once: as a table, and as the tests that `store_contract!` expands to.
macro_rules! contract {
    ($($module:ident: $($clause:ident)+;)+ @clock: $($timed:ident)+;) => {
        /// Every clause of the contract.
        #[must_use]
        pub fn clauses() -> &'static [Clause] {
            &[
                $($(Clause { name: stringify!($clause), check: |store, _| Box::pin($module::$clause(store)) },)+)+
                $(Clause { name: stringify!($timed), check: |store, clock| Box::pin(clock::$timed(store, clock)) },)+
            ]
        }
    };
}

contract! {
    claim: a_free_key_is_acquired
        the_same_token_again_gets_the_same_grant
        another_token_is_told_in_flight
        another_fingerprint_is_refused_in_every_state
        another_record_is_independent
        of_64_callers_at_once_one_acquires
        callers_racing_for_lapsed_leases_are_all_answered
        fences_rise_across_takeovers_releases_and_expiry;
    lease: a_live_lease_is_not_taken_over
        a_lapsed_lease_is_taken_over_by_the_next_attempt
        a_lost_token_cannot_renew
        renewing_does_not_revive_a_finished_record
        the_cap_holds_under_endless_renewal
        an_expired_lease_is_over;
    finish: headers_are_replayed_in_order_with_repeats_and_raw_bytes
        bodies_of_any_size_are_replayed_whole
        a_lost_token_cannot_complete
        completing_again_changes_nothing
        a_late_completion_counts_without_a_takeover
        completing_an_unclaimed_key_creates_nothing
        a_tombstone_forbids_to_run_again
        a_finished_record_cannot_be_finished_differently;
    release: releasing_frees_the_key_at_once_for_any_request
        a_lost_token_cannot_release
        a_completed_record_cannot_be_released
        a_marked_record_cannot_be_released
        releasing_an_unknown_record_is_no_error
        releasing_again_changes_nothing;
    expiry: a_finished_record_ends_with_its_retention
        purging_forgets_no_running_and_no_indeterminate_record
        purging_under_claims_loses_nothing;
    resolve: a_lapsed_opaque_attempt_is_indeterminate
        a_mark_makes_a_lapsed_attempt_indeterminate
        a_lost_attempt_cannot_mark
        a_resolution_of_done_is_replayed
        a_resolution_of_absent_frees_the_key
        a_live_attempt_cannot_be_resolved
        a_stale_resolution_changes_nothing;
    faults: every_call_can_be_dropped_at_every_point_and_repeated;
    history: concurrent_answers_fit_one_order_of_events;
    @clock: no_fence_is_given_twice_under_any_clock;
}

/// Expands to one `#[tokio::test]` per clause of the contract; `$subject` is an async function that makes a
/// [`Subject`](crate::testing::Subject).
#[macro_export]
macro_rules! store_contract {
    ($subject:path) => {
        $crate::store_contract! { @clauses $subject:
            a_free_key_is_acquired
            the_same_token_again_gets_the_same_grant
            another_token_is_told_in_flight
            another_fingerprint_is_refused_in_every_state
            another_record_is_independent
            of_64_callers_at_once_one_acquires
            callers_racing_for_lapsed_leases_are_all_answered
            fences_rise_across_takeovers_releases_and_expiry
            a_live_lease_is_not_taken_over
            a_lapsed_lease_is_taken_over_by_the_next_attempt
            a_lost_token_cannot_renew
            renewing_does_not_revive_a_finished_record
            the_cap_holds_under_endless_renewal
            an_expired_lease_is_over
            headers_are_replayed_in_order_with_repeats_and_raw_bytes
            bodies_of_any_size_are_replayed_whole
            a_lost_token_cannot_complete
            completing_again_changes_nothing
            a_late_completion_counts_without_a_takeover
            completing_an_unclaimed_key_creates_nothing
            a_tombstone_forbids_to_run_again
            a_finished_record_cannot_be_finished_differently
            releasing_frees_the_key_at_once_for_any_request
            a_lost_token_cannot_release
            a_completed_record_cannot_be_released
            a_marked_record_cannot_be_released
            releasing_an_unknown_record_is_no_error
            releasing_again_changes_nothing
            a_finished_record_ends_with_its_retention
            purging_forgets_no_running_and_no_indeterminate_record
            purging_under_claims_loses_nothing
            a_lapsed_opaque_attempt_is_indeterminate
            a_mark_makes_a_lapsed_attempt_indeterminate
            a_lost_attempt_cannot_mark
            a_resolution_of_done_is_replayed
            a_resolution_of_absent_frees_the_key
            a_live_attempt_cannot_be_resolved
            a_stale_resolution_changes_nothing
            every_call_can_be_dropped_at_every_point_and_repeated
            concurrent_answers_fit_one_order_of_events
            no_fence_is_given_twice_under_any_clock
        }
    };
    (@clauses $subject:path: $($clause:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                let subject = $subject().await;
                if let Err(violation) = $crate::testing::clause(stringify!($clause)).check(&subject).await {
                    panic!("{violation}");
                }
            }
        )+

        #[test]
        fn every_clause_of_the_contract_is_checked() {
            let checked = [$(stringify!($clause)),+];
            for clause in $crate::testing::clauses() {
                assert!(checked.contains(&clause.name), "{} is not checked", clause.name);
            }
        }
    };
}

/// Fails the clause unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $why:expr) => {
        match (&$left, &$right) {
            (left, right) if left == right => {}
            (left, right) => {
                return Err($crate::testing::violation::Violation(format!(
                    "{}: got {left:?}, not {right:?}",
                    $why
                )));
            }
        }
    };
}
/// Fails the clause unless the value matches.
macro_rules! ensure_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)?, $why:expr) => {
        match $value {
            $pattern $(if $guard)? => {}
            ref other => return Err($crate::testing::violation::Violation(format!("{}: got {other:?}", $why))),
        }
    };
}
use {ensure_eq, ensure_matches};

const HOUR: Duration = Duration::from_secs(3600);

/// A claim on a fresh random record: local effects, leases and retention of an hour.
fn any_claim() -> Result<Claim, Violation> {
    let mut record = [0; 32];
    for half in record.chunks_exact_mut(16) {
        half.copy_from_slice(OwnerToken::generate()?.as_bytes());
    }
    Ok(Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate()?,
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"request"]),
        effects: Effects::Local,
        terms: Terms { lease: HOUR, lease_cap: HOUR, retention: HOUR },
    })
}

fn other_fingerprint() -> Fingerprint {
    Fingerprint::of(&HashKey::default(), &[b"another request"])
}

impl Claim {
    /// The same claim by another attempt.
    fn retry(&self) -> Result<Self, Violation> {
        Ok(Self { token: OwnerToken::generate()?, ..*self })
    }

    /// The same claim with a lease that is over as soon as it is granted.
    const fn lapsing(mut self) -> Self {
        self.terms.lease = Duration::ZERO;
        self
    }

    const fn with(mut self, effects: Effects) -> Self {
        self.effects = effects;
        self
    }
}

async fn acquire(store: &Store, claim: &Claim) -> Result<(Grant, Holder), Violation> {
    match store.claim(claim).await? {
        Answer::Acquired(grant) => Ok((grant, claim.holder())),
        other => Err(Violation(format!("the claim was not granted: {other:?}"))),
    }
}

fn a_recording() -> Recording {
    Recording::new(201).header("content-type", "text/plain").body("first answer")
}
