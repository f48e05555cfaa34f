//! Which schedules there are: what goes wrong, and when.

use std::fmt;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Explored;

/// How one step answers for the length of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    AsItIs,
    Refused(usize),
    AnswerLost(usize),
    RequestLost(usize),
    /// The last step is refused, and the undo of this one loses its first answer.
    UndoLost(usize),
}

/// What the first worker does at its cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing any more.
    Dies,
    /// Nothing until it goes on: when the second one is at its cut, or after the saga came to rest.
    Freezes,
    /// It is asked to leave, and leaves.
    Leaves,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) fate: Fate,
    /// The saga was inserted by a transaction of the caller's, and `wait` drives it.
    pub(super) by_transaction: bool,
    pub(super) first: Option<(usize, Cut)>,
    /// Where the second worker dies, or the frozen first one goes on.
    pub(super) second: Option<usize>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::AsItIs => f.write_str("every step answers")?,
            Fate::Refused(at) => write!(f, "step {} is refused", at + 1)?,
            Fate::AnswerLost(at) => write!(f, "the answer of step {} is lost", at + 1)?,
            Fate::RequestLost(at) => write!(f, "the request of step {} is lost", at + 1)?,
            Fate::UndoLost(at) => write!(f, "the undo of step {} loses its answer", at + 1)?,
        }
        if self.by_transaction {
            f.write_str(", the saga is started in a transaction")?;
        }
        let Some((point, cut)) = self.first else { return Ok(()) };
        match cut {
            Cut::Dies | Cut::Freezes => write!(f, ", the first worker stops at point {point}")?,
            Cut::Leaves => write!(f, ", the first worker is asked to leave at point {point}")?,
        }
        match (cut, self.second) {
            (Cut::Freezes, Some(second)) => {
                write!(f, " and goes on when the second is at its point {second}")
            }
            (Cut::Freezes, None) => f.write_str(" and goes on after the end"),
            (_, Some(second)) => write!(f, ", the second worker stops at point {second}"),
            (_, None) => Ok(()),
        }
    }
}

fn fates(steps: usize) -> Vec<Fate> {
    let mut fates = vec![Fate::AsItIs];
    for at in 0..steps {
        fates.extend([Fate::Refused(at), Fate::AnswerLost(at), Fate::RequestLost(at)]);
        if at + 1 < steps {
            fates.push(Fate::UndoLost(at));
        }
    }
    fates
}

/// How many schedules of one cut run beside each other: in real time they mostly wait for a disk.
const AT_ONCE: usize = 8;

/// Runs the schedules without lost messages, which take time, and without a second cut.
pub(super) async fn each_cut(
    steps: usize,
    one: impl AsyncFn(Schedule) -> Result<[usize; 2], Explored>,
) -> Result<(), Explored> {
    let refused = Fate::Refused(steps.saturating_sub(1));
    for (fate, by_transaction) in [(Fate::AsItIs, false), (Fate::AsItIs, true), (refused, false)] {
        let alone = Schedule { fate, by_transaction, first: None, second: None };
        let points = 0..one(alone).await?[0];
        let cuts = points.flat_map(|at| [Cut::Dies, Cut::Freezes, Cut::Leaves].map(|cut| (at, cut)));
        let schedules = cuts.map(|first| Schedule { first: Some(first), ..alone });
        let running = stream::iter(schedules).map(|schedule| one(schedule)).buffer_unordered(AT_ONCE);
        running.try_for_each(|_points| std::future::ready(Ok(()))).await?;
    }
    Ok(())
}

/// Runs each schedule; `one` answers how many points its two workers passed.
pub(super) async fn each(
    steps: usize,
    mut one: impl AsyncFnMut(Schedule) -> Result<[usize; 2], Explored>,
) -> Result<(), Explored> {
    for fate in fates(steps) {
        for by_transaction in [false, true] {
            let alone = Schedule { fate, by_transaction, first: None, second: None };
            // How a saga is started matters where nothing else goes wrong.
            if by_transaction && fate != Fate::AsItIs {
                continue;
            }
            for point in 0..one(alone).await?[0] {
                let cut = |cut: Cut| Schedule { first: Some((point, cut)), ..alone };
                one(cut(Cut::Freezes)).await?;
                one(cut(Cut::Leaves)).await?;
                let again = one(cut(Cut::Dies)).await?[1];
                // A lost message and two deaths add time, and no case that each alone does not show.
                let lost = matches!(fate, Fate::AnswerLost(_) | Fate::RequestLost(_));
                let told = by_transaction && point > 2;
                for second in 0..if lost || told { 0 } else { again } {
                    one(Schedule { second: Some(second), ..cut(Cut::Dies) }).await?;
                    one(Schedule { second: Some(second), ..cut(Cut::Freezes) }).await?;
                }
            }
        }
    }
    Ok(())
}
