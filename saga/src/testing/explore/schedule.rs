//! The schedules: the faults, and the points at which they happen.

use std::fmt;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Explored;
use super::calls::Refusal;
use super::fate::Fate;
use super::gate::{At, Side};
use super::people::{Ask, Help};

/// The end of the first worker at its cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// It goes on as before, when the person who asked for something has been answered.
    GoesOn,
    /// It does no more.
    Dies,
    /// It stands still until the second one is at its cut, or until the saga came to rest, and then goes on.
    Freezes,
    /// It is asked to leave, and leaves; or dies before, or after, its sagas are given back.
    Leaves(Option<Side>),
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) fate: Fate,
    /// The saga was inserted by a transaction of the caller's, and `wait` drives it.
    pub(super) by_transaction: bool,
    pub(super) first: Option<(usize, Cut)>,
    /// The point at which the second worker dies, or the frozen first one goes on.
    pub(super) second: Option<At>,
    /// The request of a person while the first worker is at its cut.
    pub(super) ask: Option<Ask>,
    /// It is asked while the second is at its cut, which then goes on.
    pub(super) of_second: bool,
    /// At which point the process of that person freezes, until the saga came to rest.
    pub(super) operator: Option<usize>,
    /// The help of a person for a saga that waits for one.
    pub(super) help: Option<Help>,
    /// Which call of the fakes does not arrive.
    pub(super) refusal: Option<Refusal>,
}

/// The facts of a run that shape the runs that follow it.
pub(super) struct Seen {
    pub(super) first: Passed,
    pub(super) second: Passed,
    /// The number of points that the process of the person passed who asked.
    pub(super) operator: usize,
    pub(super) waits: bool,
    /// The number of calls that its fakes heard of before a person helped.
    pub(super) calls: usize,
}

/// The points of one worker.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) points: usize,
    /// Which of them were write points.
    pub(super) write_points: Vec<usize>,
}

impl Schedule {
    fn alone(fate: Fate, by_transaction: bool) -> Self {
        let (first, second, of_second) = (None, None, false);
        let (ask, operator, help, refusal) = (None, None, None, None);
        Self { fate, by_transaction, first, second, ask, of_second, operator, help, refusal }
    }

    fn cut(self, point: usize, cut: Cut) -> Self {
        Self { first: Some((point, cut)), ..self }
    }

    fn asked(self, ask: Ask, help: Option<Help>) -> Self {
        Self { ask: Some(ask), help, ..self }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::AsItIs => f.write_str("every step answers")?,
            Fate::Refused(at) => write!(f, "step {} is refused", at + 1)?,
            Fate::AnswerLost(at) => write!(f, "the answer of step {} is lost", at + 1)?,
            Fate::RequestLost(at) => write!(f, "the request of step {} is lost", at + 1)?,
            Fate::UndoLost(at) => write!(f, "the undo of step {} loses its answer", at + 1)?,
            Fate::UndoRefused(at) => write!(f, "the undo of step {} is refused", at + 1)?,
        }
        if let Some(refusal) = self.refusal {
            write!(f, ", {refusal}")?;
        }
        if self.by_transaction {
            f.write_str(", the saga is started in a transaction")?;
        }
        if let Some((point, cut)) = self.first {
            self.fmt_cut(f, point, cut)?;
        }
        if let Some(help) = self.help {
            write!(f, ", whoever finds the saga waiting {help}")?;
        }
        Ok(())
    }
}

impl Schedule {
    fn fmt_cut(&self, f: &mut fmt::Formatter<'_>, point: usize, cut: Cut) -> fmt::Result {
        if let Some(ask) = self.ask.filter(|_| !self.of_second) {
            write!(f, ", a person asks it to {ask} at point {point} of the first worker")?;
            if let Some(operator) = self.operator {
                write!(f, " and freezes at point {operator}")?;
            }
        }
        match cut {
            Cut::GoesOn => {}
            Cut::Dies | Cut::Freezes => write!(f, ", the first worker stops at point {point}")?,
            Cut::Leaves(None) => write!(f, ", the first worker is asked to leave at point {point}")?,
            Cut::Leaves(Some(side)) => {
                let when = if side == Side::Before { "before" } else { "after" };
                write!(
                    f,
                    ", the first worker is asked to leave at point {point}, and dies {when} it gives its sagas back"
                )?;
            }
        }
        let second = match self.second {
            Some(At::Point(point)) => format!("point {point}"),
            Some(At::WritePoint(write_point)) => format!("write_point {write_point}"),
            None if cut == Cut::Freezes => return f.write_str(" and goes on after the end"),
            None => return Ok(()),
        };
        match cut {
            _ if self.of_second => {
                let asked = self.ask.map(|ask| ask.to_string()).unwrap_or_default();
                write!(f, ", a person asks it to {asked} at {second} of the second worker")
            }
            Cut::Freezes => write!(f, " and goes on when the second is at its {second}"),
            _ => write!(f, ", the second worker stops at its {second}"),
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

/// The number of schedules of one cut that run beside each other: in real time they mostly wait for a disk.
const AT_ONCE: usize = 8;

/// Runs the schedules without lost messages, which take time, and without a second cut.
pub(super) async fn each_cut(
    steps: usize,
    one: impl AsyncFn(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    let refused = Fate::Refused(steps.saturating_sub(1));
    for (fate, by_transaction) in [(Fate::AsItIs, false), (Fate::AsItIs, true), (refused, false)] {
        let alone = Schedule::alone(fate, by_transaction);
        let Passed { points, write_points } = one(alone).await?.first;
        let mut schedules = Vec::new();
        for point in 0..points {
            schedules.extend([Cut::Dies, Cut::Freezes, Cut::Leaves(None)].map(|cut| alone.cut(point, cut)));
        }
        for point in write_points.into_iter().skip(1).filter(|_| !by_transaction) {
            let [on, dies] = [Cut::GoesOn, Cut::Dies].map(|cut| alone.cut(point, cut));
            schedules.extend([on.asked(Ask::Cancel, None), on.asked(Ask::Pause, Some(Help::GoOn))]);
            schedules.push(dies.asked(Ask::Cancel, None));
        }
        let running = stream::iter(schedules).map(|schedule| one(schedule)).buffer_unordered(AT_ONCE);
        running.try_for_each(|_seen| std::future::ready(Ok(()))).await?;
    }
    Ok(())
}

/// Runs each schedule in virtual time.
pub(super) async fn each(
    steps: usize,
    mut one: impl AsyncFnMut(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    for fate in fates(steps) {
        each_death(Schedule::alone(fate, false), &mut one).await?;
        each_ask(Schedule::alone(fate, false), steps, &mut one).await?;
    }
    for at in 0..steps.saturating_sub(1) {
        let refused = Schedule::alone(Fate::UndoRefused(at), false);
        for help in [Help::GoOn, Help::Settle] {
            one(Schedule { help: Some(help), ..refused }).await?;
        }
    }
    for fate in [Fate::AsItIs, Fate::Refused(steps.saturating_sub(1))] {
        each_refusal(Schedule::alone(fate, false), &mut one).await?;
    }
    // The way in which a saga starts is varied only in schedules without other faults.
    each_death(Schedule::alone(Fate::AsItIs, true), &mut one).await
}

/// Workers that end, one or two of them.
async fn each_death(
    alone: Schedule,
    one: &mut impl AsyncFnMut(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    let seen = one(alone).await?;
    each_help(alone, &seen, one).await?;
    let Passed { points, write_points } = seen.first;
    // A lost message and two deaths add time, and no case that each alone does not show.
    let lost = matches!(alone.fate, Fate::AnswerLost(_) | Fate::RequestLost(_));
    for point in 0..points {
        let frozen = one(alone.cut(point, Cut::Freezes)).await?;
        one(alone.cut(point, Cut::Leaves(None))).await?;
        let dies = alone.cut(point, Cut::Dies);
        let seen = one(dies).await?;
        each_help(dies, &seen, one).await?;
        // A death between two write points leaves the same rows as at the write point.
        let Some(write_point) = write_points.iter().position(|write_point| *write_point == point) else {
            continue;
        };
        for side in [Side::Before, Side::After] {
            one(alone.cut(point, Cut::Leaves(Some(side)))).await?;
        }
        if lost || (alone.by_transaction && write_point > 2) {
            continue;
        }
        for second in (0..seen.second.write_points.len()).map(At::WritePoint).map(Some) {
            one(Schedule { second, ..dies }).await?;
            one(Schedule { second, ..alone.cut(point, Cut::Freezes) }).await?;
        }
        if write_point != write_points.len() / 2 {
            continue;
        }
        for second in (0..seen.second.write_points.len()).map(At::WritePoint).map(Some) {
            let asked = Schedule { second, of_second: true, ..dies };
            one(asked.asked(Ask::Cancel, None)).await?;
            one(asked.asked(Ask::Pause, Some(Help::GoOn))).await?;
        }
        if alone.fate == Fate::AsItIs {
            for second in (0..frozen.second.points).map(At::Point).map(Some) {
                one(Schedule { second, ..dies }).await?;
                one(Schedule { second, ..alone.cut(point, Cut::Freezes) }).await?;
            }
        }
    }
    Ok(())
}

/// Calls of the fakes that do not arrive, on the way forward and on the way back.
async fn each_refusal(
    alone: Schedule,
    one: &mut impl AsyncFnMut(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    for call in 0..one(alone).await?.calls {
        for refusal in [Refusal::Once(call), Refusal::Lasting(call)] {
            let refused = Schedule { refusal: Some(refusal), ..alone };
            let seen = one(refused).await?;
            each_help(refused, &seen, one).await?;
        }
    }
    Ok(())
}

/// Lets a person help in each way a saga that came to rest.
async fn each_help(
    waiting: Schedule,
    seen: &Seen,
    one: &mut impl AsyncFnMut(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    for help in Help::ALL.into_iter().filter(|_| seen.waits) {
        one(Schedule { help: Some(help), ..waiting }).await?;
    }
    Ok(())
}

/// People who ask something of a saga that runs: from the moment it is there, at each write point.
async fn each_ask(
    alone: Schedule,
    steps: usize,
    one: &mut impl AsyncFnMut(Schedule) -> Result<Seen, Explored>,
) -> Result<(), Explored> {
    let write_points = one(alone).await?.first.write_points;
    // Beside a lost message or an earlier refusal a person adds no case that these do not show.
    let is_plain = alone.fate == Fate::AsItIs || alone.fate == Fate::Refused(steps - 1);
    for point in write_points.into_iter().skip(1) {
        let on = alone.cut(point, Cut::GoesOn);
        let cancelled = one(on.asked(Ask::Cancel, None)).await?;
        one(on.asked(Ask::Pause, Some(Help::GoOn))).await?;
        if !is_plain {
            continue;
        }
        for help in [Help::TurnBack, Help::Close] {
            one(on.asked(Ask::Pause, Some(help))).await?;
        }
        for cut in [Cut::Dies, Cut::Freezes, Cut::Leaves(None)] {
            let cut = alone.cut(point, cut);
            one(cut.asked(Ask::Cancel, None)).await?;
            one(cut.asked(Ask::Pause, Some(Help::GoOn))).await?;
        }
        for operator in (0..cancelled.operator).map(Some) {
            one(Schedule { operator, ..on.asked(Ask::Cancel, None) }).await?;
            one(Schedule { operator, ..on.asked(Ask::Pause, Some(Help::GoOn)) }).await?;
        }
    }
    Ok(())
}
