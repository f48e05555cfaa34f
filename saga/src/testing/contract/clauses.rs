//! The clauses. Each is a small scenario with workers and one saga.

use std::time::Duration;

use super::Violation;
use super::scene::{
    LONG, Result, apply, change, check, claim_by, clauses, forward, is_applied, load, new_saga, record, saga,
    step, worker,
};
use crate::record::{
    Change, Heartbeat, Inserted, Intervened, Intervention, ListFilter, NewSaga, Requests, SagaId, Settled,
    Verdict, Worker, WorkerId,
};
use crate::status::{Status, StepStatus};
use crate::store::SagaStore;

clauses! {
    /// A business id starts one saga; a repeated insert of it is answered as the first.
    a_business_id_starts_one_saga(store) {
        let me = worker(store, LONG).await?;
        let first = new_saga(me, "B-1");
        let second = NewSaga { input_hash: "another".into(), ..new_saga(me, "B-1") };
        for _lost_answer in 0..2 {
            let answer = store.insert(std::slice::from_ref(&first)).await?;
            check(answer == [Inserted::Created], || format!("a repeated insert was answered {answer:?}"))?;
        }
        let answer = store.insert(std::slice::from_ref(&second)).await?;
        let expected = Inserted::Exists { id: first.id, input_hash: "hash".into() };
        check(answer == [expected], || format!("a second insert was answered {answer:?}"))
    }

    /// A new saga is in progress, owned by its starter with epoch 1, and knows the trace of its start.
    a_new_saga_belongs_to_its_starter(store) {
        let me = worker(store, LONG).await?;
        let new = NewSaga { trace: Some("\"a trace\"".into()), ..new_saga(me, "B-1") };
        let id = new.id;
        let answer = store.insert(&[new]).await?;
        check(answer == [Inserted::Created], || format!("a first insert was answered {answer:?}"))?;
        let found = load(store, id).await?.instance;
        check(found.trace.as_deref() == Some("\"a trace\""), || format!("its trace is {:?}", found.trace))?;
        let seen = (found.status, found.owner, found.epoch, found.write_no, found.unresolved);
        check(seen == (Status::InProgress, Some(me), 1, 0, 0), || format!("{seen:?}"))?;
        let owned = store.owned(me).await?;
        check(owned == [id], || format!("it owns {owned:?}"))
    }

    /// The content of a record comes back unchanged.
    a_result_is_stored_as_it_was_written(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let verdict = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let found = load(store, id).await?;
        let expected = step(1, StepStatus::Succeeded);
        let stored = found.steps.first().ok_or_else(|| Violation("the step row is missing".into()))?;
        check(format!("{stored:?}") == format!("{expected:?}"), || format!("{stored:?}"))?;
        check(stored.output == expected.output, || "the output changed".into())?;
        let instance = found.instance;
        let seen = (instance.current_step, instance.reason.as_deref(), instance.write_no);
        check(seen == (1, Some("because"), 1), || format!("{seen:?}"))
    }

    /// A lost answer is met by the same record again: answered, not applied.
    a_repeated_record_is_answered_and_not_applied_again(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let first = apply(store, record(id, 1, 1)).await?;
        let version = load(store, id).await?.instance.row_version;
        let again = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&first) && is_applied(&again), || format!("{first:?}, then {again:?}"))?;
        let after = load(store, id).await?.instance;
        check(version == after.row_version, || format!("version {version} became {}", after.row_version))?;
        check(after.write_no == 1, || format!("it was taken for write number {}", after.write_no))
    }

    /// A step forward adds its row, moves the saga to that step, and makes no decision of an operator stale.
    a_step_forward_moves_the_saga_and_nothing_else(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let before = load(store, id).await?.instance;
        for n in 1..=2_u32 {
            for _lost_answer in 0..2 {
                let verdict = apply(store, forward(id, 1, n)).await?;
                check(is_applied(&verdict), || format!("step {n}: {verdict:?}"))?;
            }
            let after = load(store, id).await?;
            let seen = (after.instance.current_step, after.instance.write_no, after.steps.len());
            check(seen == (n, n.into(), n as usize), || format!("after step {n}: {seen:?}"))?;
            let version = after.instance.row_version;
            check(version == before.row_version, || format!("version {} became {version}", before.row_version))?;
        }
        let verdict = apply(store, forward(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("a late repetition: {verdict:?}"))?;
        let listed = store.list(&ListFilter::default()).await?;
        let at = listed.first().map(|instance| instance.current_step);
        check(at == Some(2), || format!("it is listed at step {at:?}"))
    }

    /// A step forward is fenced like any other write.
    a_step_forward_of_a_zombie_is_refused(store) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let id = saga(store, dead, "B-1").await?;
        let verdict = apply(store, forward(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let claimed = store.claim(&claim_by(me)).await?;
        let seen: Vec<_> = claimed.iter().map(|found| (found.instance.write_no, found.steps.len())).collect();
        check(seen == [(0, 1)], || format!("claimed with {seen:?}"))?;
        let verdict = apply(store, forward(id, 1, 2)).await?;
        check(verdict == Verdict::Fenced, || format!("the zombie's write: {verdict:?}"))?;
        let mut other = forward(id, 2, 1);
        (other.from, other.change.status) = (Status::Committing, Status::Committing);
        let verdict = apply(store, other).await?;
        check(verdict == Verdict::Fenced, || format!("from a status it has not: {verdict:?}"))?;
        let steps = load(store, id).await?.steps.len();
        check(steps == 1, || format!("{steps} step rows"))
    }

    /// A step forward with `rewrite` writes its saga's row: a decision by an older read is stale.
    a_step_forward_after_a_lapse_makes_earlier_reads_stale(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let before = load(store, id).await?.instance.row_version;
        let mut after_a_lapse = forward(id, 1, 1);
        after_a_lapse.rewrite = true;
        for _lost_answer in 0..2 {
            let verdict = apply(store, after_a_lapse.clone()).await?;
            check(is_applied(&verdict), || format!("{verdict:?}"))?;
        }
        let after = load(store, id).await?;
        let version = after.instance.row_version;
        check(version == before + 1, || format!("version {before} became {version}"))?;
        check(after.steps.len() == 1, || format!("{} step rows", after.steps.len()))
    }

    /// Only the epoch that the row has may write.
    a_record_of_another_epoch_is_refused(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        for epoch in [0, 2] {
            let verdict = apply(store, record(id, epoch, 1)).await?;
            check(verdict == Verdict::Fenced, || format!("epoch {epoch}: {verdict:?}"))?;
        }
        let found = load(store, id).await?;
        check(found.steps.is_empty() && found.instance.current_step == 0, || "it was written".into())
    }

    /// A writer that believes in another status is refused.
    a_record_from_another_status_is_refused(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let mut wrong = record(id, 1, 1);
        wrong.from = Status::Compensating;
        let verdict = apply(store, wrong).await?;
        check(verdict == Verdict::Fenced, || format!("{verdict:?}"))
    }

    /// A refused record costs only itself.
    each_record_of_a_batch_gets_its_own_verdict(store) {
        let me = worker(store, LONG).await?;
        let good = saga(store, me, "B-1").await?;
        let fenced = saga(store, me, "B-2").await?;
        let bad = saga(store, me, "B-3").await?;
        let mut open_end = record(bad, 1, 1);
        (open_end.change.status, open_end.change.unresolved) = (Status::Compensated, 1);
        let batch = [record(good, 1, 1), record(fenced, 9, 1), open_end];
        let verdicts = store.apply(&batch).await?;
        let as_told = matches!(&verdicts[..], [Verdict::Applied(_), Verdict::Fenced, Verdict::Refused(_)]);
        check(as_told, || format!("{verdicts:?}"))?;
        let steps = load(store, good).await?.steps.len();
        check(steps == 1, || format!("the good record left {steps} step rows"))
    }

    /// `completed` and `compensated` are refused while an effect is open.
    no_saga_ends_with_open_effects(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        for end in [Status::Completed, Status::Compensated] {
            let mut lie = record(id, 1, 1);
            (lie.change.status, lie.change.unresolved) = (end, 1);
            let verdict = apply(store, lie).await?;
            check(matches!(verdict, Verdict::Refused(_)), || format!("{end}: {verdict:?}"))?;
        }
        let status = load(store, id).await?.instance.status;
        check(status == Status::InProgress, || format!("it is {status}"))
    }

    /// `stuck` and `paused` have a `resume_status`, and no other status has one.
    a_stopped_saga_knows_where_it_goes_on(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let mut lost = record(id, 1, 1);
        lost.change.status = Status::Stuck;
        let verdict = apply(store, lost).await?;
        check(matches!(verdict, Verdict::Refused(_)), || format!("stuck without a way on: {verdict:?}"))?;
        let mut odd = record(id, 1, 1);
        odd.change.resume_status = Some(Status::InProgress);
        let verdict = apply(store, odd).await?;
        check(matches!(verdict, Verdict::Refused(_)), || format!("running with a way on: {verdict:?}"))
    }

    /// A decision applies to what the operator saw.
    a_stale_decision_is_refused(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let seen = load(store, id).await?.instance.row_version;
        let verdict = apply(store, record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let mut abort = intervention(id, seen);
        abort.change = Some(change(Status::Aborted, Vec::new()));
        let answer = store.intervene(&abort).await?;
        check(answer == Intervened::Stale, || format!("{answer:?}"))?;
        let status = load(store, id).await?.instance.status;
        check(status == Status::InProgress, || format!("it is {status}"))
    }

    /// A decision does not take back a step forward that it did not see.
    a_decision_does_not_move_the_saga_back(store) {
        let (dead, id) = (worker(store, Duration::ZERO).await?, SagaId::generate());
        let new = NewSaga { id, ..new_saga(dead, "B-1") };
        let inserted = store.insert(&[new]).await?;
        check(inserted == [Inserted::Created], || format!("{inserted:?}"))?;
        let mut stop = intervention(id, load(store, id).await?.instance.row_version);
        let verdict = apply(store, forward(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let mut paused = change(Status::Paused, Vec::new());
        (paused.resume_status, paused.current_step) = (Some(Status::InProgress), 0);
        (stop.change, stop.unless_driven) = (Some(paused), true);
        let answer = store.intervene(&stop).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let after = load(store, id).await?;
        let seen = (after.instance.current_step, after.steps.len());
        check(seen == (1, 1), || format!("its step and its step rows are {seen:?}"))
    }

    /// A decision takes the saga away from the worker that drives it.
    a_decision_fences_the_driver(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = stuck(store, me, "B-1").await?;
        let mut retry = intervention(id, load(store, id).await?.instance.row_version);
        retry.change = Some(change(Status::InProgress, vec![step(1, StepStatus::Failed)]));
        let answer = store.intervene(&retry).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let verdict = apply(store, record(id, 1, 2)).await?;
        check(verdict == Verdict::Fenced, || format!("the old driver's write: {verdict:?}"))?;
        let claimed = store.claim(&claim_by(other)).await?;
        let seen: Vec<_> = claimed
            .iter()
            .map(|journal| (journal.instance.epoch, journal.steps.first().map(|step| step.status)))
            .collect();
        check(seen == [(3, Some(StepStatus::Failed))], || format!("after the decision: {seen:?}"))
    }

    /// A decision that lets a saga go on can ask it to turn back in the same write: its driver starts nothing before it
    /// has heard that.
    a_decision_may_carry_a_request(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let id = stuck(store, me, "B-1").await?;
        let mut decision = intervention(id, load(store, id).await?.instance.row_version);
        decision.change = Some(change(Status::InProgress, Vec::new()));
        decision.request_cancel = Some("customer left".into());
        let answer = store.intervene(&decision).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let claimed = store.claim(&claim_by(other)).await?;
        let asked: Vec<_> = claimed.iter().map(|journal| journal.instance.cancel_requested.as_deref()).collect();
        check(asked == [Some("customer left")], || format!("whoever claims it is asked {asked:?}"))
    }

    /// A decision answers a request to pause that was made before it: the saga goes on.
    a_decision_settles_an_earlier_pause(store) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let id = saga(store, dead, "B-1").await?;
        let mut decision = intervention(id, load(store, id).await?.instance.row_version);
        decision.request_pause = true;
        let answer = store.intervene(&decision).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let mut decision = intervention(id, load(store, id).await?.instance.row_version);
        decision.change = Some(change(Status::InProgress, Vec::new()));
        let answer = store.intervene(&decision).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let claimed = store.claim(&claim_by(me)).await?;
        let asked: Vec<_> = claimed.iter().map(|journal| journal.instance.pause_requested).collect();
        check(asked == [false], || format!("whoever claims it is asked to pause: {asked:?}"))
    }

    /// No decision writes `completed` or `compensated` either while an effect is open.
    no_decision_ends_a_saga_with_open_effects(store) {
        let me = worker(store, LONG).await?;
        let id = stuck(store, me, "B-1").await?;
        let before = load(store, id).await?.instance;
        for end in [Status::Completed, Status::Compensated] {
            let mut lie = intervention(id, before.row_version);
            lie.change = Some(Change { unresolved: 1, ..change(end, vec![step(1, StepStatus::Compensated)]) });
            let answer = store.intervene(&lie).await;
            check(answer.is_err(), || format!("{end}: {answer:?}"))?;
            let after = load(store, id).await?;
            let seen = (after.instance.status, after.instance.row_version, after.steps.first().map(|row| row.status));
            let expected = (Status::Stuck, before.row_version, Some(StepStatus::Succeeded));
            check(seen == expected, || format!("a refused {end} left {seen:?}"))?;
        }
        Ok(())
    }

    /// A decision about a saga that no worker drives does not touch one that a worker drives.
    a_decision_for_the_undriven_spares_a_driven_saga(store) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let (driven, undriven) = (saga(store, me, "B-1").await?, saga(store, dead, "B-2").await?);
        for (id, expected) in [(driven, Intervened::Stale), (undriven, Intervened::Applied)] {
            let before = load(store, id).await?.instance;
            let mut stop = intervention(id, before.row_version);
            let mut paused = change(Status::Paused, Vec::new());
            paused.resume_status = Some(Status::InProgress);
            (stop.change, stop.unless_driven) = (Some(paused), true);
            let answer = store.intervene(&stop).await?;
            check(answer == expected, || format!("{expected:?} was expected, not {answer:?}"))?;
            let after = load(store, id).await?.instance;
            let stopped = after.status == Status::Paused && after.owner.is_none() && after.epoch > before.epoch;
            check(stopped == (id == undriven), || format!("{answer:?} left {:?}", after.status))?;
        }
        Ok(())
    }

    /// Cancel and pause reach the driver with the verdict of its next record.
    a_request_reaches_the_driver_with_its_next_write(store) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "B-1").await?;
        let mut request = intervention(id, load(store, id).await?.instance.row_version);
        (request.request_cancel, request.request_pause) = (Some("customer left".into()), true);
        let answer = store.intervene(&request).await?;
        check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        let verdict = apply(store, record(id, 1, 1)).await?;
        let told = matches!(&verdict, Verdict::Applied(requests)
            if requests.pause && requests.cancel.as_deref() == Some("customer left"));
        check(told, || format!("{verdict:?}"))
    }

    /// A driver that has nothing to write asks for the requests of its sagas, and gets no others.
    requests_are_answered_to_the_worker_that_drives_the_saga(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let (paused, cancelled) = (saga(store, me, "B-1").await?, saga(store, me, "B-2").await?);
        let theirs = saga(store, other, "B-3").await?;
        saga(store, me, "B-4").await?;
        for (id, cancel) in [(paused, None), (cancelled, Some("left")), (theirs, Some("left"))] {
            let mut request = intervention(id, load(store, id).await?.instance.row_version);
            (request.request_cancel, request.request_pause) = (cancel.map(Into::into), cancel.is_none());
            let answer = store.intervene(&request).await?;
            check(answer == Intervened::Applied, || format!("{answer:?}"))?;
        }
        let mut told = store.asked(me).await?;
        told.sort_by_key(|(id, _)| *id);
        let expected = [
            (paused, Requests { cancel: None, pause: true }),
            (cancelled, Requests { cancel: Some("left".into()), pause: false }),
        ];
        check(told == expected, || format!("told {told:?} instead of {expected:?}"))
    }

    /// A request to turn back or to pause ends the wait for which a driver releases its saga. One to turn back does not
    /// once the saga has turned, nor if the driver is about to turn it.
    a_saga_with_a_request_is_due_at_once(store) {
        let (me, other) = (worker(store, LONG).await?, worker(store, LONG).await?);
        let mut due = Vec::new();
        for (n, [cancel, pause, turned, turning]) in [
            [true, false, false, false],
            [false, true, false, false],
            [true, false, true, false],
            [false, false, false, false],
            [true, false, false, true],
            [true, true, false, true],
        ]
        .into_iter()
        .enumerate()
        {
            let id = saga(store, me, &format!("B-{n}")).await?;
            if cancel || pause {
                let mut request = intervention(id, load(store, id).await?.instance.row_version);
                (request.request_cancel, request.request_pause) = (cancel.then(|| "left".into()), pause);
                let answer = store.intervene(&request).await?;
                check(answer == Intervened::Applied, || format!("{answer:?}"))?;
            }
            let mut later = record(id, 1, 1);
            (later.release, later.turning) = (Some(LONG), turning);
            if turned {
                later.change.status = Status::Compensating;
            }
            let verdict = apply(store, later).await?;
            check(is_applied(&verdict), || format!("{verdict:?}"))?;
            if pause || (cancel && !turned && !turning) {
                due.push(id);
            }
        }
        let mut claimed: Vec<_> = store.claim(&claim_by(other)).await?.iter().map(|found| found.instance.id).collect();
        claimed.sort_unstable();
        check(claimed == due, || format!("claimed {claimed:?}, and asked were {due:?}"))
    }

    /// The first beat, and a beat after the expiry, say that the lease was not held.
    a_heartbeat_tells_whether_the_lease_lapsed(store) {
        let id = WorkerId::generate();
        let mut answers = Vec::new();
        for lease in [LONG, LONG, Duration::ZERO, LONG] {
            answers.push(store.heartbeat(&Worker { id, lease, pid: 1 }).await?);
        }
        check(answers == [Heartbeat::Lapsed, Heartbeat::Held, Heartbeat::Held, Heartbeat::Lapsed], || format!("{answers:?}"))
    }

    /// By business id, by page, newest first.
    sagas_are_found_and_listed_newest_first(store) {
        let me = worker(store, LONG).await?;
        let (first, second) = (saga(store, me, "B-1").await?, saga(store, me, "B-2").await?);
        let found = store.find("contract", "B-1").await?.map(|journal| journal.instance.id);
        check(found == Some(first), || format!("found {found:?}"))?;
        let nothing = store.find("contract", "B-3").await?;
        check(nothing.is_none(), || "found a saga that nobody started".into())?;
        let mut filter = ListFilter { limit: 1, ..ListFilter::default() };
        for expected in [vec![second], vec![first], vec![]] {
            let page: Vec<_> = store.list(&filter).await?.iter().map(|instance| instance.id).collect();
            check(page == expected, || format!("listed {page:?}, expected {expected:?}"))?;
            filter.before = page.last().copied().or(filter.before);
        }
        let stuck = ListFilter { status: Some(Status::Stuck), ..ListFilter::default() };
        let listed = store.list(&stuck).await?;
        check(listed.is_empty(), || format!("{} are listed as stuck", listed.len()))
    }

    /// A saga at rest is reported with its reason; a running one is not reported.
    settled_sagas_are_reported_with_their_reason(store) {
        let me = worker(store, LONG).await?;
        let (goes_on, rests) = (saga(store, me, "B-1").await?, stuck(store, me, "B-2").await?);
        let told = store.settled(&[goes_on, rests, SagaId::generate()]).await?;
        let expected =
            Settled { saga: rests, status: Status::Stuck, step: 1, reason: Some("because".into()) };
        check(told == [expected], || format!("{told:?}"))
    }

    /// Open sagas are counted by type and status, and those that no worker here can run; or nothing is counted at all.
    open_sagas_are_counted(store) {
        let me = worker(store, LONG).await?;
        let (_driven, lost) = (saga(store, me, "B-1").await?, saga(store, WorkerId::generate(), "B-2").await?);
        let (ends, _stops) = (saga(store, me, "B-3").await?, stuck(store, me, "B-4").await?);
        let mut last = record(ends, 1, 1);
        last.change.status = Status::Completed;
        let verdict = apply(store, last).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        for (runnable, unrunnable) in [(claim_by(me).runnable, 0), (Vec::new(), 1)] {
            let mut counted = store.open_counts(&runnable).await?;
            counted.sort_by_key(|census| census.status);
            let seen: Vec<_> =
                counted.iter().map(|census| (census.status, census.sagas, census.unrunnable)).collect();
            let expected = [(Status::InProgress, 2, unrunnable), (Status::Stuck, 1, 0)];
            check(seen.is_empty() || seen == expected, || format!("{seen:?} with {lost} lost"))?;
        }
        Ok(())
    }
}

/// Starts a saga and stops it after its first result.
async fn stuck(store: &dyn SagaStore, owner: WorkerId, business_id: &str) -> Result<SagaId> {
    let id = saga(store, owner, business_id).await?;
    let mut stuck = record(id, 1, 1);
    (stuck.change.status, stuck.change.resume_status) = (Status::Stuck, Some(Status::InProgress));
    let verdict = apply(store, stuck).await?;
    check(is_applied(&verdict), || format!("{verdict:?}"))?;
    Ok(id)
}

fn intervention(saga: SagaId, row_version: i64) -> Intervention {
    Intervention {
        saga,
        row_version,
        change: None,
        unless_driven: false,
        request_cancel: None,
        request_pause: false,
        actor: "alice".into(),
        action: "test".into(),
        reason: "the contract".into(),
        before: Status::InProgress,
    }
}
