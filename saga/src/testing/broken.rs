//! Stores that are wrong in one way each. A contract that lets one pass proves nothing.

mod local;
mod store;

pub use local::{BrokenLocalStore, LocalFault};
pub use store::BrokenStore;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident is caught by $clause:ident)+) => {
        /// The fault of a broken store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $doc])+ $fault,)+
        }

        impl Fault {
            /// Each fault, with the clause that must catch it.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$fault, stringify!($clause)),)+];
        }
    };
}

faults! {
    /// A second start of a business id is another saga.
    StartsTwice is caught by a_business_id_starts_one_saga
    /// A second start with any input gets the answer of the first.
    TakesAnyInput is caught by a_business_id_starts_one_saga
    /// A new saga belongs to no living worker.
    StartsWithoutOwner is caught by a_new_saga_belongs_to_its_starter
    /// Step rows are not written.
    LosesSteps is caught by a_result_is_stored_as_it_was_written
    /// A repeated record is applied again.
    AppliesTwice is caught by a_repeated_record_is_answered_and_not_applied_again
    /// Each step forward makes what an operator sees stale.
    RaisesTheVersion is caught by a_step_forward_moves_the_saga_and_nothing_else
    /// A step forward after a lapse is like any other.
    KeepsTheVersion is caught by a_step_forward_after_a_lapse_makes_earlier_reads_stale
    /// Mere steps forward of any epoch pass.
    LetsZombiesStep is caught by a_step_forward_of_a_zombie_is_refused
    /// Writes of any epoch pass.
    IgnoresTheEpoch is caught by a_record_of_another_epoch_is_refused
    /// Writes of earlier epochs pass.
    LetsZombiesWrite is caught by a_zombie_is_refused_after_the_claim
    /// Writes from any status pass.
    IgnoresTheStatus is caught by a_record_from_another_status_is_refused
    /// One refused record spoils the verdicts of its batch.
    SpoilsTheBatch is caught by each_record_of_a_batch_gets_its_own_verdict
    /// A saga ends with open effects.
    EndsWithOpenEffects is caught by no_saga_ends_with_open_effects
    /// A saga stops without a way on.
    StopsAnywhere is caught by a_stopped_saga_knows_where_it_goes_on
    /// Claims take sagas from live workers.
    ClaimsFromLiveWorkers is caught by a_live_workers_sagas_are_not_claimed
    /// The beat of one worker renews the leases of all.
    RenewsEveryLease is caught by a_dead_workers_sagas_are_claimed_with_a_higher_epoch
    /// Claims hand out what the worker cannot run.
    IgnoresDefinitions is caught by a_saga_of_another_definition_is_not_claimed
    /// A saga released until later is due at once.
    ForgetsTheDelay is caught by a_saga_released_until_later_is_not_claimed_before
    /// The rest of a step's wait does not get shorter.
    StopsTheClock is caught by the_rest_of_a_wait_gets_shorter
    /// A saga waits for as long as its row says, also if a wrong clock wrote it.
    AcceptsAnyWait is caught by a_wait_beyond_the_longest_one_is_over
    /// The longest wait is over when the clock is a moment behind.
    CutsTheLongestWait is caught by a_wait_of_an_hour_outlasts_a_clock_that_is_a_moment_behind
    /// A worker whose lease ran out takes its own sagas from itself.
    ClaimsItsOwnSagas is caught by a_worker_does_not_take_its_own_sagas_for_those_of_a_dead_one
    /// Claims of every worker are answered, however late.
    ClaimsWithoutHeartbeat is caught by a_worker_without_a_recent_heartbeat_claims_nothing
    /// Claims take more than their limit.
    IgnoresTheLimit is caught by a_claim_takes_no_more_than_its_limit
    /// Claims hand out again what they handed out before.
    HandsOutTwice is caught by two_claims_at_once_never_share_a_saga
    /// A saga without progress is handed out for ever.
    NeverParks is caught by a_saga_that_makes_no_progress_is_parked_by_the_claim
    /// Claims hand out all that may have killed its workers at once.
    HandsOutAllSuspects is caught by suspect_sagas_are_handed_out_a_few_at_a_time
    /// A saga that its own worker takes back counts as one that killed it.
    ParksSurvivors is caught by a_worker_that_survives_its_saga_never_parks_it
    /// A claim counts for ever, also before progress.
    NeverForgives is caught by progress_forgives_earlier_claims
    /// A worker claims all its sagas, also those that it drives.
    ReclaimsTheDriven is caught by a_worker_reclaims_only_the_own_sagas_it_names
    /// Retiring releases nothing.
    KeepsRetiredSagas is caught by a_retired_worker_owns_nothing
    /// Retiring leaves the lease.
    KeepsRetiredWorkers is caught by a_retired_worker_owns_nothing
    /// Retiring releases the sagas of all workers.
    RetiresAllSagas is caught by a_retired_worker_owns_nothing
    /// Claims hand out what is finished.
    HandsOutTheFinished is caught by a_finished_saga_is_not_claimed
    /// A decision applies to any version of the saga.
    AcceptsStaleDecisions is caught by a_stale_decision_is_refused
    /// A decision by an older look takes the saga back to where it was then.
    MovesBack is caught by a_decision_does_not_move_the_saga_back
    /// A driver writes on after a decision.
    DecidesWithoutFencing is caught by a_decision_fences_the_driver
    /// A decision loses the request that came with it.
    DecidesWithoutTheRequest is caught by a_decision_may_carry_a_request
    /// A request to pause stands after a decision that answers it.
    KeepsAnEarlierPause is caught by a_decision_settles_an_earlier_pause
    /// A decision ends a saga with open effects.
    DecidesOverOpenEffects is caught by no_decision_ends_a_saga_with_open_effects
    /// A decision for a saga that no worker drives applies to any.
    StopsTheDriven is caught by a_decision_for_the_undriven_spares_a_driven_saga
    /// A request to pause is not kept.
    LosesPauses is caught by a_request_reaches_the_driver_with_its_next_write
    /// A request to turn back is not kept.
    LosesCancels is caught by a_request_reaches_the_driver_with_its_next_write
    /// A driver that asks gets no request.
    HidesRequests is caught by requests_are_answered_to_the_worker_that_drives_the_saga
    /// A request to a saga waits for what its driver waits for.
    LetsRequestsWait is caught by a_saga_with_a_request_is_due_at_once
    /// Every beat claims that the lease was held.
    HidesLapses is caught by a_heartbeat_tells_whether_the_lease_lapsed
    /// The oldest saga is listed first.
    ListsTheOldestFirst is caught by sagas_are_found_and_listed_newest_first
    /// A running saga is reported to be at rest.
    ReportsRunningSagas is caught by settled_sagas_are_reported_with_their_reason
    /// A saga that no worker can run is not counted as such.
    HidesTheUnrunnable is caught by open_sagas_are_counted
}
