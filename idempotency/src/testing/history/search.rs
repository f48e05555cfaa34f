//! Finding an order of events (Wing and Gong's search, with the visited states remembered).

use std::collections::HashMap;
use std::fmt::Write as _;

use super::model::{Call, Op, World};
use crate::token::OwnerToken;

/// Steps after which a history counts as too tangled to decide; far beyond what tests produce.
const STEPS: u64 = 2_000_000;

/// Looks for an order of the calls that explains every answer; if there is none, says why.
pub(super) fn explain(calls: &[&Call]) -> Result<(), String> {
    let fences = calls.iter().filter_map(|call| call.fence()).collect();
    let mut search = Search { calls, fences, seen: HashMap::new(), steps: 0, furthest: Vec::new() };
    let mut done = Done(vec![0; calls.len().div_ceil(64)]);
    if search.from(&World::default(), &mut done, &mut Vec::new()) {
        return Ok(());
    }
    if search.steps > STEPS {
        return Err("too many calls overlap to decide".into());
    }
    let before = search.furthest;
    let rest: Vec<usize> = (0..calls.len()).filter(|index| !before.contains(index)).collect();
    Err(format!("after\n{}none of these can come next:\n{}", tell(calls, &before), tell(calls, &rest)))
}

/// The calls that have been put in order, one bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn flip(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word ^= 1 << (index % 64);
        }
    }
}

struct Search<'a> {
    calls: &'a [&'a Call],
    fences: Vec<u64>,
    /// Worlds that were tried, by what was done before.
    seen: HashMap<Done, Vec<World>>,
    steps: u64,
    furthest: Vec<usize>,
}

impl Search<'_> {
    /// Says whether the calls that are not done can be put in an order that starts from `world`.
    fn from(&mut self, world: &World, done: &mut Done, order: &mut Vec<usize>) -> bool {
        self.steps += 1;
        if self.steps > STEPS {
            return false;
        }
        let (depth, mut next) = (order.len(), self.possible(done));
        // A call that only read fits now or is tried again later; putting it here takes nothing from the others.
        loop {
            let before = order.len();
            for index in next {
                let call = self.calls[index];
                if call.only_read() && !world.after(call, &self.fences).is_empty() {
                    done.flip(index);
                    order.push(index);
                }
            }
            next = self.possible(done);
            if order.len() == before {
                break;
            }
        }
        let found =
            self.is_complete(done) || self.is_new(world, done) && self.branch(world, done, order, &next);
        if order.len() > self.furthest.len() {
            self.furthest.clone_from(order);
        }
        for read in order.drain(depth..) {
            done.flip(read);
        }
        found
    }

    fn branch(&mut self, world: &World, done: &mut Done, order: &mut Vec<usize>, next: &[usize]) -> bool {
        for &index in next {
            if self.calls[index].only_read() {
                continue;
            }
            done.flip(index);
            order.push(index);
            let found = world
                .after(self.calls[index], &self.fences)
                .iter()
                .any(|world| self.from(world, done, order));
            order.pop();
            done.flip(index);
            if found {
                return true;
            }
        }
        false
    }

    /// Calls that may be next: no other one had ended before they began.
    fn possible(&self, done: &Done) -> Vec<usize> {
        let open = || self.calls.iter().enumerate().filter(|(index, _)| !done.has(*index));
        let ended = |call: &Call| call.told.as_ref().map_or(u64::MAX, |(_, moment)| moment.order);
        let first_end = open().map(|(_, call)| ended(call)).min().unwrap_or(u64::MAX);
        open().filter(|(_, call)| call.asked.order < first_end).map(|(index, _)| index).collect()
    }

    /// Calls without an answer need not have happened.
    fn is_complete(&self, done: &Done) -> bool {
        self.calls.iter().enumerate().all(|(index, call)| done.has(index) || call.told.is_none())
    }

    fn is_new(&mut self, world: &World, done: &Done) -> bool {
        let worlds = self.seen.entry(done.clone()).or_default();
        let new = !worlds.contains(world);
        if new {
            worlds.push(world.clone());
        }
        new
    }
}

/// The chosen calls, a line each. Tokens are secrets, so callers are numbered.
pub(super) fn tell(calls: &[&Call], chosen: &[usize]) -> String {
    let mut callers: Vec<OwnerToken> = Vec::new();
    for token in calls.iter().filter_map(|call| named(&call.op).1) {
        if !callers.contains(&token) {
            callers.push(token);
        }
    }
    let mut story = String::new();
    for call in chosen.iter().filter_map(|index| calls.get(*index)) {
        let (name, token) = named(&call.op);
        let caller = token.and_then(|token| callers.iter().position(|known| *known == token));
        let caller = caller.map_or_else(|| "somebody".into(), |number| format!("caller {}", number + 1));
        let until = call.told.as_ref().map_or_else(String::new, |(_, moment)| moment.order.to_string());
        let told = call.told.as_ref().map_or_else(|| "no answer".into(), |(told, _)| format!("{told:?}"));
        // Writing to a string cannot fail.
        let _ = writeln!(story, "  {:>4}-{until:<4} {caller} {name}: {told}", call.asked.order);
    }
    story
}

fn named(op: &Op) -> (&'static str, Option<OwnerToken>) {
    match op {
        Op::Claim(claim) => ("claim", Some(claim.token)),
        Op::Renew(token, _) => ("renew", Some(*token)),
        Op::Mark(token) => ("mark_effect", Some(*token)),
        Op::Complete(token, ..) => ("complete", Some(*token)),
        Op::Tombstone(token, ..) => ("tombstone", Some(*token)),
        Op::Release(token) => ("release", Some(*token)),
        Op::Resolve(..) => ("resolve", None),
        Op::Get => ("get", None),
    }
}
