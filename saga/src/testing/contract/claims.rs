//! The clauses about owners of sagas. Each is a small scenario with workers and one saga.

use std::time::Duration;

use tokio::time::sleep;

use super::scene::{
    LONG, Result, apply, check, claim_and_die, claim_by, clauses, forward, is_applied, load, record, saga,
    worker,
};
use crate::record::{Heartbeat, Verdict, Worker, WorkerId};
use crate::status::{Status, StepStatus};
use crate::store::SagaStore;

clauses! {
    /// While its worker beats, a saga belongs to no other worker.
    a_live_workers_sagas_are_not_claimed(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        saga(store, me, "B-1").await?;
        let claimed = store.claim(&claim_by(other)).await?;
        check(claimed.is_empty(), || format!("{} sagas were taken from a live worker", claimed.len()))
    }

    /// An owner that is expired, or that has no row, has lost its sagas.
    a_dead_workers_sagas_are_claimed_with_a_higher_epoch(store) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let expired = saga(store, dead, "B-1").await?;
        let missing = saga(store, WorkerId::generate(), "B-2").await?;
        let mut claimed = store.claim(&claim_by(me)).await?;
        claimed.sort_by_key(|journal| journal.instance.id);
        let seen: Vec<_> = claimed
            .iter()
            .map(|journal| (journal.instance.id, journal.instance.epoch, journal.instance.owner))
            .collect();
        check(seen == [(expired, 2, Some(me)), (missing, 2, Some(me))], || format!("{seen:?}"))?;
        let verdict = apply(store, record(expired, 2, 1)).await?;
        check(is_applied(&verdict), || format!("the new owner's first write: {verdict:?}"))
    }

    /// After a claim the old owner writes nothing.
    a_zombie_is_refused_after_the_claim(store) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let id = saga(store, dead, "B-1").await?;
        let verdict = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("an expired owner that lost nothing yet: {verdict:?}"))?;
        let claimed = store.claim(&claim_by(me)).await?.len();
        check(claimed == 1, || format!("{claimed} were claimed"))?;
        let verdict = apply(store, record(id, 1, 2)).await?;
        check(verdict == Verdict::Fenced, || format!("the zombie's write: {verdict:?}"))?;
        let version = load(store, id).await?.instance.write_no;
        check(version == 0, || format!("the zombie left write number {version}"))
    }

    /// A worker gets only what it can run.
    a_saga_of_another_definition_is_not_claimed(store) {
        let me = worker(store, LONG).await?;
        saga(store, WorkerId::generate(), "B-1").await?;
        let mut request = claim_by(me);
        request.runnable = vec![("contract".into(), "another".into()), ("other".into(), "fingerprint".into())];
        let claimed = store.claim(&request).await?;
        check(claimed.is_empty(), || "a saga was handed to a worker that cannot run it".into())
    }

    /// A saga that was given up for a while stays given up for that while.
    a_saga_released_until_later_is_not_claimed_before(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let (later, now) = (saga(store, me, "B-1").await?, saga(store, me, "B-2").await?);
        for (id, after) in [(later, LONG), (now, Duration::ZERO)] {
            let mut release = record(id, 1, 1);
            release.release = Some(after);
            let verdict = apply(store, release).await?;
            check(is_applied(&verdict), || format!("{verdict:?}"))?;
        }
        let claimed: Vec<_> = store.claim(&claim_by(other)).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [now], || format!("claimed {claimed:?}, released now {now}, later {later}"))
    }

    /// A store tells what is left of a step's wait, by its own clock.
    the_rest_of_a_wait_gets_shorter(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let mut waits = record(id, 1, 1);
        waits.change.steps[0].status = StepStatus::Executing;
        waits.change.steps[0].retry_in = Some(LONG);
        let verdict = apply(store, waits).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        sleep(Duration::from_millis(20)).await;
        let left = load(store, id).await?.steps.first().and_then(|step| step.retry_in);
        let less = left.is_some_and(|left| left > LONG / 2 && left <= LONG - Duration::from_millis(10));
        check(less, || format!("of {LONG:?} there is {left:?} left after 20 ms"))
    }

    /// A wait of an hour, the longest that a driver writes, lasts even if the clock that a claim reads is a moment behind
    /// the one that the wait was written by.
    a_wait_of_an_hour_outlasts_a_clock_that_is_a_moment_behind(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = saga(store, me, "B-1").await?;
        let mut release = record(id, 1, 1);
        release.release = Some(LONG + Duration::from_secs(30));
        let verdict = apply(store, release).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let claimed = store.claim(&claim_by(other)).await?.len();
        check(claimed == 0, || format!("the saga {id} waits for an hour and was handed out at once"))
    }

    /// No wait is longer than an hour, so an end that is more than a minute further away was written by a clock that was
    /// wrong: the saga is due. Its driver makes longer waits in parts.
    a_wait_beyond_the_longest_one_is_over(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = saga(store, me, "B-1").await?;
        let mut release = record(id, 1, 1);
        release.release = Some(24 * LONG);
        let verdict = apply(store, release).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let claimed: Vec<_> = store.claim(&claim_by(other)).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [id], || format!("claimed {claimed:?}, and {id} waits for a day"))
    }

    /// A worker that claims is alive, even if its lease has expired, and drives the sagas that it does not name.
    a_worker_does_not_take_its_own_sagas_for_those_of_a_dead_one(store) {
        let me = worker(store, Duration::ZERO).await?;
        let id = saga(store, me, "B-1").await?;
        let claimed = store.claim(&claim_by(me)).await?;
        check(claimed.is_empty(), || "a worker without a lease took its own saga from itself".into())?;
        let verdict = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("the result it held: {verdict:?}"))?;
        let claimed = store.claim(&claim_by(worker(store, LONG).await?)).await?.len();
        check(claimed == 1, || format!("{claimed} were claimed by another worker, for which it is dead"))
    }

    /// A claim may have been held up by an outage, in which no worker could send a heartbeat: it takes nothing.
    a_worker_without_a_recent_heartbeat_claims_nothing(store) {
        let id = saga(store, WorkerId::generate(), "B-1").await?;
        let (dead, late) = (worker(store, Duration::ZERO).await?, worker(store, Duration::from_millis(200)).await?);
        sleep(Duration::from_millis(120)).await;
        for (who, me) in [("nobody knows", WorkerId::generate()), ("is dead", dead), ("beat long ago", late)] {
            let claimed = store.claim(&claim_by(me)).await?.len();
            check(claimed == 0, || format!("a worker that {who} took {claimed} sagas"))?;
        }
        let claimed: Vec<_> =
            store.claim(&claim_by(worker(store, LONG).await?)).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [id], || format!("claimed {claimed:?} after a beat"))
    }

    /// A claim respects its limit.
    a_claim_takes_no_more_than_its_limit(store) {
        let me = worker(store, LONG).await?;
        for n in 0..5 {
            saga(store, WorkerId::generate(), &format!("B-{n}")).await?;
        }
        let mut request = claim_by(me);
        request.limit = 2;
        for expected in [2, 2, 1, 0] {
            let claimed = store.claim(&request).await?.len();
            check(claimed == expected, || format!("{claimed} instead of {expected}"))?;
        }
        Ok(())
    }

    /// However many claim at once, each saga goes to one.
    two_claims_at_once_never_share_a_saga(store) {
        for n in 0..40 {
            saga(store, WorkerId::generate(), &format!("B-{n}")).await?;
        }
        let mut workers = Vec::new();
        for _ in 0..4 {
            workers.push(worker(store, LONG).await?);
        }
        let requests: Vec<_> = workers.into_iter().map(claim_by).collect();
        let answers = futures_util::future::join_all(requests.iter().map(|request| store.claim(request))).await;
        let mut ids = Vec::new();
        for answer in answers {
            ids.extend(answer?.iter().map(|journal| journal.instance.id));
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        check(all == ids.len(), || format!("{all} claims of {} sagas", ids.len()))
    }

    /// At the limit the claim itself pauses the saga, and hands it to no worker.
    a_saga_that_makes_no_progress_is_parked_by_the_claim(store) {
        let me = worker(store, Duration::ZERO).await?;
        let id = saga(store, me, "B-1").await?;
        let verdict = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        for _ in 0..5 {
            let claimed = claim_and_die(store).await?.len();
            check(claimed == 1, || format!("{claimed} were claimed before the limit"))?;
        }
        let last = worker(store, LONG).await?;
        let claimed = store.claim(&claim_by(last)).await?;
        check(claimed.is_empty(), || "a poison saga was handed out again".into())?;
        let found = load(store, id).await?.instance;
        let seen = (found.status, found.resume_status, found.owner);
        check(seen == (Status::Paused, Some(Status::InProgress), None), || format!("{seen:?}"))?;
        let told = found.reason.as_deref().is_some_and(|reason| reason.starts_with("because; poison"));
        check(told, || format!("its reason is {:?}", found.reason))
    }

    /// From a few claims without progress on, a saga is handed out only as the request allows, and only what is handed
    /// out is counted.
    suspect_sagas_are_handed_out_a_few_at_a_time(store) {
        for n in 0..3 {
            saga(store, WorkerId::generate(), &format!("B-{n}")).await?;
        }
        for _ in 0..2 {
            let claimed = claim_and_die(store).await?.len();
            check(claimed == 3, || format!("{claimed} were claimed before any was suspect"))?;
        }
        let fresh = saga(store, WorkerId::generate(), "B-4").await?;
        let claimed = claim_and_die(store).await?;
        let mut stalled: Vec<_> = claimed.iter().map(|found| found.instance.stalled_claims).collect();
        stalled.sort_unstable();
        check(stalled == [1, 3], || format!("one suspect and the new saga, but claims are {stalled:?}"))?;
        let last = worker(store, LONG).await?;
        let mut request = claim_by(last);
        request.suspects = 0;
        let claimed: Vec<_> = store.claim(&request).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [fresh], || format!("no suspect was allowed, but {claimed:?} of {fresh} were claimed"))
    }

    /// A worker that takes its own saga back is alive: such a claim is not a stalled one.
    a_worker_that_survives_its_saga_never_parks_it(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let mut request = claim_by(me);
        request.own = vec![id];
        for round in 0..8 {
            let claimed = store.claim(&request).await?.len();
            check(claimed == 1, || format!("it was parked in round {round}"))?;
        }
        Ok(())
    }

    /// One result is progress: the count of claims starts again.
    progress_forgives_earlier_claims(store) {
        let id = saga(store, WorkerId::generate(), "B-1").await?;
        for round in 0..7_i64 {
            let claimed = claim_and_die(store).await?.len();
            check(claimed == 1, || format!("it was parked in round {round}"))?;
            // The second claim and later ones see a mere step forward.
            let progress = if round == 0 { record(id, 2, 1) } else { forward(id, round + 2, 1) };
            let verdict = apply(store, progress).await?;
            check(is_applied(&verdict), || format!("{verdict:?}"))?;
        }
        Ok(())
    }

    /// A worker may take over its own sagas that it no longer drives, if it names them.
    a_worker_reclaims_only_the_own_sagas_it_names(store) {
        let me = worker(store, LONG).await?;
        let (named, driven) = (saga(store, me, "B-1").await?, saga(store, me, "B-2").await?);
        let mut request = claim_by(me);
        request.own = vec![named];
        let claimed: Vec<_> = store.claim(&request).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [named], || format!("claimed {claimed:?}, named {named}, driven {driven}"))
    }

    /// Retiring gives everything back at once, of this worker and of no other, and ends its lease.
    a_retired_worker_owns_nothing(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = saga(store, me, "B-1").await?;
        let theirs = saga(store, other, "B-2").await?;
        let released = store.retire(me).await?;
        check(released == 1, || format!("{released} were released"))?;
        let owned = store.owned(other).await?;
        check(owned == [theirs], || format!("another worker owns {owned:?} then"))?;
        let beat = store.heartbeat(&Worker { id: me, lease: LONG, pid: 1 }).await?;
        check(beat == Heartbeat::Lapsed, || format!("its next beat was answered {beat:?}"))?;
        let claimed: Vec<_> = store.claim(&claim_by(other)).await?.iter().map(|found| found.instance.id).collect();
        check(claimed == [id], || format!("{claimed:?}"))
    }

    /// A saga that is finished has no owner and is never claimed.
    a_finished_saga_is_not_claimed(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = saga(store, me, "B-1").await?;
        let mut last = record(id, 1, 1);
        last.change.status = Status::Completed;
        let verdict = apply(store, last).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let owner = load(store, id).await?.instance.owner;
        check(owner.is_none(), || format!("it still belongs to {owner:?}"))?;
        let claimed = store.claim(&claim_by(other)).await?;
        check(claimed.is_empty(), || "a finished saga was handed out".into())
    }
}
