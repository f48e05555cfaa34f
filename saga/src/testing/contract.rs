//! The contract of a store, clause by clause. A clause answers with what it saw instead.
//!
//! Start at [`store_contract!`](crate::store_contract). Clauses need a store of their own, empty at
//! the start; a worker with a lease of zero is dead the moment it beats.

mod claims;
mod clauses;
mod local;
mod scene;

pub use claims::*;
pub use clauses::*;
pub use local::*;

use crate::store::SagaStore;

/// A clause that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store breaks its contract: {0}")]
pub struct Violation(String);

impl From<crate::store::StoreError> for Violation {
    fn from(error: crate::store::StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The clauses by their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    clauses::NAMES.iter().chain(claims::NAMES).copied()
}

/// Checks the clause of this name.
///
/// # Cancel safety
/// For tests; the store is left as it is.
///
/// # Errors
/// [`Violation`] with what the store did instead, or if there is no such clause.
pub async fn clause(name: &str, store: &dyn SagaStore) -> Result<(), Violation> {
    if let Some(held) = clauses::named(name, store).await {
        return held;
    }
    let held = claims::named(name, store).await;
    held.unwrap_or_else(|| Err(Violation(format!("there is no clause {name}"))))
}

/// Makes one `#[tokio::test]` of each clause. `$make` is an async function that answers an empty
/// store and a guard that keeps it alive.
///
/// ```
/// use probity_saga::MemoryStore;
///
/// async fn store() -> (MemoryStore, ()) {
///     (MemoryStore::new(), ())
/// }
///
/// probity_saga::store_contract!(store);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! store_contract {
    ($make:path) => {
        $crate::store_contract!(@each $make;
            a_business_id_starts_one_saga
            a_new_saga_belongs_to_its_starter
            a_result_is_stored_as_it_was_written
            a_repeated_record_is_answered_and_not_applied_again
            a_step_forward_moves_the_saga_and_nothing_else
            a_step_forward_of_a_zombie_is_refused
            a_step_forward_after_a_lapse_makes_earlier_reads_stale
            a_record_of_another_epoch_is_refused
            a_record_from_another_status_is_refused
            each_record_of_a_batch_gets_its_own_verdict
            a_live_workers_sagas_are_not_claimed
            a_dead_workers_sagas_are_claimed_with_a_higher_epoch
            a_zombie_is_refused_after_the_claim
            a_saga_of_another_definition_is_not_claimed
            a_saga_released_until_later_is_not_claimed_before
            the_rest_of_a_wait_gets_shorter
            a_wait_of_an_hour_outlasts_a_clock_that_is_a_moment_behind
            a_wait_beyond_the_longest_one_is_over
            a_worker_does_not_take_its_own_sagas_for_those_of_a_dead_one
            a_worker_without_a_recent_heartbeat_claims_nothing
            a_claim_takes_no_more_than_its_limit
            two_claims_at_once_never_share_a_saga
            a_saga_that_makes_no_progress_is_parked_by_the_claim
            suspect_sagas_are_handed_out_a_few_at_a_time
            a_worker_that_survives_its_saga_never_parks_it
            progress_forgives_earlier_claims
            a_worker_reclaims_only_the_own_sagas_it_names
            a_retired_worker_owns_nothing
            a_finished_saga_is_not_claimed
            no_saga_ends_with_open_effects
            a_stopped_saga_knows_where_it_goes_on
            a_stale_decision_is_refused
            a_decision_does_not_move_the_saga_back
            a_decision_fences_the_driver
            a_decision_may_carry_a_request
            a_decision_settles_an_earlier_pause
            no_decision_ends_a_saga_with_open_effects
            a_decision_for_the_undriven_spares_a_driven_saga
            a_request_reaches_the_driver_with_its_next_write
            requests_are_answered_to_the_worker_that_drives_the_saga
            a_saga_with_a_request_is_due_at_once
            a_heartbeat_tells_whether_the_lease_lapsed
            sagas_are_found_and_listed_newest_first
            settled_sagas_are_reported_with_their_reason
            open_sagas_are_counted
        );
    };
    (@each $make:path; $($clause:ident)+) => {$(
        #[tokio::test]
        async fn $clause() {
            let (store, _guard) = $make().await;
            if let Err(violation) = $crate::testing::contract::$clause(&store).await {
                panic!("{violation}");
            }
        }
    )+};
}
