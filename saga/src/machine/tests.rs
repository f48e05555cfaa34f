use std::collections::BTreeSet;

use super::*;
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
