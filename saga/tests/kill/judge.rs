//! The verdict on each saga, from its rows and from the log of the channel alone.
//!
//! A call is *owned* if the saga was its caller's when it came. A later call was under way when the saga was taken
//! over. It cannot be kept away from the channel, so it may be out of order, but it is one call per owner that was
//! lost. Everything else has one right order.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgPool, Row};

use super::channel::What;
use super::steps::STEPS;

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    step: String,
    what: What,
    key: String,
    attempt: i64,
    pid: i64,
    epoch: i64,
    owned: bool,
}

/// All that is known of one saga.
#[derive(Debug, Clone, Default)]
struct Case {
    status: String,
    reason: Option<String>,
    /// The number of claims of a saga, and one more.
    epochs: i64,
    /// Step and status, in order.
    rows: Vec<(String, String)>,
    /// Key, and whether it was undone.
    effects: BTreeMap<String, bool>,
    booked: Vec<String>,
    calls: Vec<Call>,
}

#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) completed: u64,
    pub(crate) compensated: u64,
    pub(crate) stopped: u64,
}

impl Ends {
    pub(crate) fn all(&self) -> u64 {
        self.completed + self.compensated + self.stopped
    }
}

fn position(step: &str) -> usize {
    STEPS.iter().position(|known| *known == step).unwrap()
}

impl Case {
    fn judge(&self) -> Result<(), String> {
        self.keys()?;
        self.order()?;
        self.number()?;
        self.late()?;
        self.undone_only_what_may_have_been()?;
        self.end()
    }

    fn of(&self, what: What) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.what == what)
    }

    /// One key per step for every caller, so the channel has one effect.
    fn keys(&self) -> Result<(), String> {
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        for call in &self.calls {
            let first = *keys.entry(&call.step).or_insert(&call.key);
            if first != call.key {
                return Err(format!("{} was called with {first} and {}", call.step, call.key));
            }
        }
        Ok(())
    }

    /// Forward in the order of the steps, from one owner to the next and never back to a step that was done before; then
    /// back in reverse, and never forward again.
    fn order(&self) -> Result<(), String> {
        let (mut furthest, mut lowest, mut epoch) = (0, STEPS.len(), 0);
        for call in self.calls.iter().filter(|call| call.owned) {
            let at = position(&call.step);
            if call.epoch < epoch {
                return Err(format!("an owner came back from the past: {call:?}"));
            }
            epoch = call.epoch;
            match call.what {
                What::Execute if lowest < STEPS.len() => {
                    return Err(format!("executed after an undo: {call:?}"));
                }
                What::Execute if at < furthest => return Err(format!("executed again: {call:?}")),
                What::Execute => furthest = at,
                What::Compensate if at > lowest => return Err(format!("undone out of order: {call:?}")),
                What::Compensate => lowest = at,
                What::Probe | What::Answered => {}
            }
        }
        Ok(())
    }

    /// An owner makes each attempt once, and asks at most before each attempt, when it gives up, and before an undo.
    fn number(&self) -> Result<(), String> {
        let mut attempts: BTreeMap<(&str, i64, i64), BTreeMap<What, u32>> = BTreeMap::new();
        let mut asked: BTreeMap<(&str, i64), (i64, i64)> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| call.owned) {
            let (probes, executes) = asked.entry((&call.step, call.epoch)).or_default();
            match call.what {
                What::Probe => *probes += 1,
                What::Answered => {}
                What::Execute | What::Compensate => {
                    *executes += i64::from(call.what == What::Execute);
                    let same = attempts.entry((&call.step, call.epoch, call.attempt)).or_default();
                    let times = same.entry(call.what).or_default();
                    *times += 1;
                    if *times > 1 {
                        return Err(format!("the same attempt again: {call:?}"));
                    }
                }
            }
        }
        let over = asked.iter().find(|(_, (probes, executes))| *probes > executes + 2);
        if let Some(over) = over {
            return Err(format!("asked too often: {over:?}"));
        }
        // The attempts of an owner begin at the first, and stop with the policy.
        let endless = self.of(What::Execute).find(|call| call.attempt > 4);
        endless.map_or(Ok(()), |call| Err(format!("tried too often: {call:?}")))
    }

    /// Of what an owner had begun when it lost the saga, one effect comes late, and one question after it.
    fn late(&self) -> Result<(), String> {
        let mut late: BTreeMap<(i64, i64), [u32; 2]> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| !call.owned && call.what != What::Answered) {
            let count =
                &mut late.entry((call.pid, call.epoch)).or_default()[usize::from(call.what == What::Probe)];
            *count += 1;
            if *count > 1 || call.epoch > self.epochs {
                return Err(format!("a zombie went on: {call:?}"));
            }
        }
        Ok(())
    }

    fn undone_only_what_may_have_been(&self) -> Result<(), String> {
        let begun = |at: usize, step: &str| {
            self.calls[..at].iter().any(|call| call.what == What::Execute && call.step == step)
        };
        let mut calls = self.calls.iter().enumerate().filter(|(_, call)| call.what == What::Compensate);
        let wrong = calls.find(|(at, call)| !begun(*at, &call.step));
        wrong.map_or(Ok(()), |(_, call)| Err(format!("undone, and never begun: {call:?}")))
    }

    /// Its end is what the channel and the book say.
    fn end(&self) -> Result<(), String> {
        let left = self.effects.values().filter(|undone| !**undone).count();
        let called: BTreeSet<&str> = self.of(What::Compensate).map(|call| call.step.as_str()).collect();
        let recorded = self.rows.iter().filter(|(_, status)| status == "compensated");
        let recorded: BTreeSet<&str> =
            recorded.map(|(step, _)| step.as_str()).filter(|step| *step != "Book").collect();
        match self.status.as_str() {
            "completed" if left != 3 || self.effects.len() != 3 => {
                Err(format!("completed with {left} effects"))
            }
            "completed" if !called.is_empty() => Err(format!("completed, and undone: {called:?}")),
            "completed" if self.booked != ["done"] => Err(format!("booked: {:?}", self.booked)),
            "completed" => Ok(()),
            "compensated" if left > 0 => Err(format!("{left} effects are left: {:?}", self.effects)),
            "compensated" if called != recorded => {
                Err(format!("the channel undid {called:?}, on record is {recorded:?}"))
            }
            "compensated" if self.booked != ["done", "undone"] => Err(format!("booked: {:?}", self.booked)),
            "compensated" if self.effects.len() < 2 => Err("compensated what did not happen".into()),
            "compensated" => Ok(()),
            "stuck" | "paused" if self.reason.is_some() => Ok(()),
            other => Err(format!("{other}, for no reason")),
        }
    }
}

pub(crate) async fn judge_all(pool: &PgPool) -> Ends {
    let mut ends = Ends::default();
    for (id, case) in load(pool).await {
        if let Err(wrong) = case.judge() {
            panic!("{id}: {wrong}\n{case:#?}");
        }
        match case.status.as_str() {
            "completed" => ends.completed += 1,
            "compensated" => ends.compensated += 1,
            _ => ends.stopped += 1,
        }
    }
    ends
}

async fn load(pool: &PgPool) -> BTreeMap<String, Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let rows = async |sql: &'static str| sqlx::query(sql).fetch_all(pool).await.unwrap();
    for row in rows("SELECT id::text, status, error_message, lease_epoch FROM saga_instances").await {
        let case = Case { status: row.get(1), reason: row.get(2), epochs: row.get(3), ..Case::default() };
        cases.insert(row.get(0), case);
    }
    let mut of = |id: &str, put: &mut dyn FnMut(&mut Case)| put(cases.get_mut(id).unwrap());
    for row in rows("SELECT saga_id::text, step_name, status FROM saga_steps ORDER BY step_order").await {
        of(row.get(0), &mut |case| case.rows.push((row.get(1), row.get(2))));
    }
    for row in rows("SELECT split_part(key, ':', 1), key, undone FROM effects").await {
        of(row.get(0), &mut |case| {
            case.effects.insert(row.get(1), row.get(2));
        });
    }
    for row in rows("SELECT saga::text, what FROM booked ORDER BY what").await {
        of(row.get(0), &mut |case| case.booked.push(row.get(1)));
    }
    let calls = "SELECT saga::text, step, what, key, attempt, pid, epoch, owned FROM calls ORDER BY seq";
    for row in rows(calls).await {
        let what = What::ALL.iter().find(|(_, name)| *name == row.get::<&str, _>(2)).unwrap().0;
        of(row.get(0), &mut |case| {
            case.calls.push(Call {
                step: row.get(1),
                what,
                key: row.get(3),
                attempt: row.get(4),
                pid: row.get(5),
                epoch: row.get(6),
                owned: row.get(7),
            });
        });
    }
    cases
}

/// The judge itself is judged: each rule finds the history that breaks it.
#[cfg(test)]
mod tests {
    use super::*;

    /// By worker 1: the step and what is called, as often as said.
    fn calls(of: &[(&str, What)]) -> Vec<Call> {
        let call = |(step, what): &(&str, What)| Call {
            step: (*step).into(),
            what: *what,
            key: format!("saga:{step}:do"),
            attempt: 1,
            pid: 1,
            epoch: 1,
            owned: true,
        };
        of.iter().map(call).collect()
    }

    fn compensated() -> Case {
        use What::{Compensate, Execute};
        let rows = [
            ("Reserve", "compensated"),
            ("Book", "compensated"),
            ("Freeze", "compensated"),
            ("Charge", "failed"),
        ];
        Case {
            status: "compensated".into(),
            epochs: 2,
            rows: rows.map(|(step, status)| (step.into(), status.into())).into(),
            effects: ["saga:Reserve:do", "saga:Freeze:do"].map(|key| (key.into(), true)).into(),
            booked: vec!["done".into(), "undone".into()],
            calls: calls(&[
                ("Reserve", Execute),
                ("Freeze", Execute),
                ("Charge", Execute),
                ("Freeze", Compensate),
                ("Reserve", Compensate),
            ]),
            ..Case::default()
        }
    }

    #[track_caller]
    fn finds(wrong: &str, break_it: impl FnOnce(&mut Case)) {
        let mut case = compensated();
        break_it(&mut case);
        let found = case.judge().unwrap_err();
        assert!(found.contains(wrong), "{found}");
    }

    #[test]
    fn a_correct_history_passes() {
        compensated().judge().unwrap();
    }

    #[test]
    fn every_rule_finds_the_history_that_breaks_it() {
        finds("was called with", |case| case.calls[3].key = "saga:Freeze:again".into());
        finds("undone out of order", |case| case.calls.swap(3, 4));
        finds("executed after an undo", |case| case.calls.swap(2, 3));
        finds("executed again", |case| case.calls.swap(0, 1));
        finds("from the past", |case| case.calls[0].epoch = 2);
        finds("the same attempt again", |case| case.calls.insert(0, case.calls[0].clone()));
        finds("tried too often", |case| case.calls[2].attempt = 5);
        finds("asked too often", |case| {
            case.calls.splice(0..0, calls(&[("Reserve", What::Probe); 4]));
        });
        finds("a zombie went on", |case| {
            let late = Call { owned: false, pid: 2, ..case.calls[0].clone() };
            case.calls.extend([late.clone(), late]);
        });
        finds("never begun", |case| drop(case.calls.remove(1)));
        finds("effects are left", |case| *case.effects.get_mut("saga:Freeze:do").unwrap() = false);
        finds("the channel undid", |case| drop(case.calls.remove(3)));
        finds("booked", |case| drop(case.booked.pop()));
        finds("what did not happen", |case| drop(case.effects.pop_first()));
        finds("completed with 0", |case| case.status = "completed".into());
        finds("for no reason", |case| case.status = "stuck".into());
    }

    #[test]
    fn a_call_that_was_under_way_may_come_late_and_once() {
        let mut case = compensated();
        let late = Call { owned: false, pid: 2, ..case.calls[2].clone() };
        case.calls.push(late);
        case.judge().unwrap();
    }
}
