use std::collections::BTreeSet;
use std::time::Duration;

use super::transitions::*;
use super::walk::{fresh, shape};
use super::*;
use crate::policy::WhenUnknown;
use crate::record::{Document, Journal, StepRow};
use crate::status::Status;
use crate::status::StepStatus;

/// The table of the design, written a second time and differently: per status, what it may become.
fn expected(from: Status, resume: Option<Status>) -> BTreeSet<Status> {
    use Status::{
        Aborted, Committing, Compensated, Compensating, Completed, InProgress, Paused, Pending, Stuck,
    };
    let forward = matches!(resume, Some(Pending | InProgress));
    match from {
        Pending => [InProgress, Compensated, Paused].into(),
        InProgress => [Committing, Completed, Compensating, Compensated, Stuck, Paused].into(),
        Committing => [Completed, Stuck, Paused].into(),
        Compensating => [Compensated, Stuck, Paused].into(),
        Stuck | Paused => {
            let mut to = BTreeSet::from([Aborted]);
            to.extend(resume);
            to.extend(forward.then_some(Compensating));
            to.extend((forward && from == Paused).then_some(Compensated));
            to
        }
        Completed | Compensated | Aborted => BTreeSet::new(),
    }
}

fn resumes(from: Status) -> Vec<Option<Status>> {
    match from {
        Status::Stuck | Status::Paused => {
            Status::ALL.into_iter().filter(|status| status.is_active()).map(Some).collect()
        }
        _ => vec![None],
    }
}

#[test]
fn every_status_reaches_exactly_the_statuses_that_the_design_allows() {
    for from in Status::ALL {
        for resume in resumes(from) {
            let reached: BTreeSet<Status> = Trigger::ALL
                .into_iter()
                .filter_map(|trigger| transition(from, resume, trigger).ok())
                .collect();
            assert_eq!(reached, expected(from, resume), "{from} (was {resume:?})");
        }
    }
}

// proves: S-3
#[test]
fn nothing_leads_from_undoing_to_going_forward_nor_from_commitment_to_undo() {
    for trigger in Trigger::ALL {
        let undoing = transition(Status::Compensating, None, trigger);
        assert!(
            !matches!(undoing, Ok(Status::InProgress | Status::Committing | Status::Completed)),
            "{trigger:?}"
        );
        let committed = transition(Status::Committing, None, trigger);
        assert!(!matches!(committed, Ok(Status::Compensating | Status::Compensated)), "{trigger:?}");
        for stopped in [Status::Stuck, Status::Paused] {
            let turned = transition(stopped, Some(Status::Committing), trigger);
            assert!(
                !matches!(turned, Ok(Status::Compensating | Status::Compensated)),
                "{stopped} {trigger:?}"
            );
        }
    }
}

#[test]
fn no_transition_leaves_a_terminal_status_or_is_listed_twice() {
    for (at, row) in TRANSITIONS.iter().enumerate() {
        assert!(!row.from.is_terminal(), "{row:?}");
        let twice =
            TRANSITIONS[..at].iter().any(|other| (other.from, other.trigger) == (row.from, row.trigger));
        assert!(!twice, "{row:?}");
    }
}

#[test]
fn stored_names_survive_a_round_trip() {
    for status in Status::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    for status in StepStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    assert!("running".parse::<Status>().is_err());
}

/// The names, undos and pivots of three steps.
type Steps = [(&'static str, bool, bool); 3];

const ONE_MAY_STAY: Steps = [("Undone", true, false), ("Stays", false, false), ("Pivot", false, true)];
const LOCAL_AFTER: Steps = [("Undone", true, false), ("Pivot", false, true), ("Local", false, false)];

fn done() -> Finding {
    Finding::Succeeded(Document::from_stored("2".into()))
}

/// A saga that its driver started, after these findings, one for each step.
fn after(steps: Steps, findings: impl IntoIterator<Item = Finding>) -> (Shape, State) {
    let shape = shape(steps);
    let mut state = State::load(&shape, &fresh(), true).unwrap();
    for (at, finding) in findings.into_iter().enumerate() {
        state.executed(&shape, at, 0, finding).unwrap();
    }
    (shape, state)
}

/// A saga of which the store has these rows.
fn journal(status: Status, state: &State, edit: impl FnOnce(&mut Vec<StepRow>)) -> Journal {
    let mut journal = fresh();
    journal.instance.status = status;
    journal.steps = state.rows.iter().flatten().cloned().collect();
    edit(&mut journal.steps);
    journal
}

#[test]
fn rows_that_no_saga_leaves_are_corrupt() {
    let (shape, state) = after(LOCAL_AFTER, [done(), done(), done()]);
    let load = |journal: &Journal| State::load(&shape, journal, false).map(drop);
    assert!(load(&journal(Status::Completed, &state, |_| {})).is_ok());
    let beyond = journal(Status::Completed, &state, |rows| rows[2].order = 4);
    let missing = journal(Status::Completed, &state, |rows| drop(rows.pop()));
    let open = journal(Status::Completed, &state, |rows| rows[1].status = StepStatus::Failed);
    for journal in [beyond, missing, open] {
        assert!(load(&journal).is_err(), "{journal:?}");
    }
}

#[test]
fn a_local_step_that_waits_or_failed_past_the_pivot_runs_without_an_announcement() {
    let waits = Finding::Later { maybe: false, error: None, retry_in: Duration::from_secs(2) };
    let (shape, state) = after(LOCAL_AFTER, [done(), done(), waits]);
    let again = Next::Execute { at: 2, maybe: false, failures: 0 };
    assert_eq!(state.next(&shape), again);
    let (shape, mut state) = after(LOCAL_AFTER, [done(), done(), Finding::NotApplied("refused".into())]);
    assert_eq!(state.status, Status::Stuck);
    retry(&mut state, &shape).unwrap();
    assert_eq!((state.status, state.next(&shape)), (Status::Committing, again));
    let (shape, state) = after([("Local", true, false), ("B", true, false), ("P", false, true)], [done()]);
    let failed = journal(Status::InProgress, &state, |rows| rows[0].status = StepStatus::Failed);
    assert_eq!(State::load(&shape, &failed, false).unwrap().next(&shape), Next::TurnBack);
}

// proves: S-4
#[test]
fn an_unknown_step_without_an_undo_stops_the_saga_whatever_its_policy_says() {
    let unknown = Finding::Unknown("no answer".into(), WhenUnknown::Compensate);
    let (_, state) = after(ONE_MAY_STAY, [done(), unknown.clone()]);
    assert_eq!(state.status, Status::Stuck);
    let (_, state) = after(ONE_MAY_STAY, [unknown]);
    assert_eq!(state.status, Status::Compensating);
}

#[test]
fn a_saga_closed_before_its_undo_counts_the_effects_that_are_left() {
    let (shape, mut state) = after(ONE_MAY_STAY, [done(), Finding::NotApplied("refused".into())]);
    state.paused(&shape, "asked".into()).unwrap();
    assert_eq!(abort(&mut state, &shape, "given up".into()).unwrap().unresolved, 1);
}

#[test]
fn a_retry_begins_the_count_of_every_open_step_again() {
    for (status, undo) in [(StepStatus::Unknown, false), (StepStatus::Compensating, true)] {
        let (shape, mut state) = after(ONE_MAY_STAY, [done()]);
        let back = if undo { Status::Compensating } else { Status::InProgress };
        (state.status, state.resume) = (Status::Stuck, Some(back));
        let row = state.rows[0].as_mut().unwrap();
        (row.status, row.retries, row.undo_retries) = (status, 3, 4);
        let written = retry(&mut state, &shape).unwrap().steps;
        assert_eq!(written.len(), 1, "{status}");
        let counted = if undo { written[0].undo_retries } else { written[0].retries };
        assert_eq!(counted, 0, "{status}");
    }
}

#[test]
fn a_step_without_an_undo_cannot_be_said_to_be_undone() {
    let refused = Finding::NotApplied("refused".into());
    let (shape, mut state) = after(ONE_MAY_STAY, [done(), done(), refused]);
    (state.status, state.resume) = (Status::Stuck, Some(Status::Compensating));
    let resolved = resolve(&mut state, &shape, 2, Resolution::Compensated, "seen", "ann");
    assert!(matches!(resolved, Err(VerbError::Settled { order: 2, .. })), "{resolved:?}");
}

#[test]
fn a_long_refusal_leaves_room_for_the_reasons_after_it() {
    let (shape, mut state) = after(ONE_MAY_STAY, [done(), Finding::NotApplied("x".repeat(9000))]);
    let change = state.undone(&shape, 0, Undoing::GivenUp("refused, r-1".into())).unwrap();
    assert!(change.reason.is_some_and(|reason| reason.contains("r-1")));
}
