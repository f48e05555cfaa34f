//! Every journal that legal writes can leave behind, walked exhaustively: from each, in memory and
//! read back after a crash, the saga goes on, keeps its promises, and can come to an end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::state::Finding::{Fatal, Later, NotApplied, Succeeded, Unknown};

use super::*;
use crate::policy::WhenUnknown;
use crate::record::{Change, Document, Journal, NewSaga, SagaId, WorkerId};
use crate::status::Status;
use crate::status::StepStatus;

const WAIT: Duration = Duration::from_secs(2);

/// A saga in memory, the same saga in the store, and which effects may be there.
#[derive(Clone)]
struct Node {
    state: State,
    journal: Journal,
    there: Vec<bool>,
}

/// A step whose name begins with `L` is local; one whose name ends with `!` lets the undo of others go on without its
/// own.
pub(super) fn shape(steps: [(&'static str, bool, bool); 3]) -> Shape {
    let step = |(name, undo, pivot): (&'static str, bool, bool)| StepShape {
        name,
        undo,
        pivot,
        local: name.starts_with('L'),
        holds_undo: !name.ends_with('!'),
        retries_max: 3,
    };
    Shape { steps: steps.into_iter().map(step).collect() }
}

pub(super) fn fresh() -> Journal {
    let new = NewSaga {
        id: SagaId::generate(),
        saga_type: "walked".into(),
        business_id: "W-1".into(),
        definition: "v1".into(),
        input: Document::from_stored("1".into()),
        input_hash: "hash".into(),
        owner: WorkerId::generate(),
        trace: None,
    };
    Journal { instance: new.into_instance(), steps: Vec::new() }
}

impl Node {
    fn begin(shape: &Shape) -> Self {
        let journal = fresh();
        Self { state: State::load(shape, &journal, true).unwrap(), journal, there: vec![false; 3] }
    }

    /// Makes a saga as an older version left it: turned back while the pivot, the second step, was in doubt.
    fn turned_in_doubt(shape: &Shape) -> Self {
        let mut node = Self::begin(shape);
        for finding in
            [Succeeded(Document::from_stored("2".into())), Later { maybe: true, error: None, retry_in: WAIT }]
        {
            let at = node.state.rows.iter().flatten().count();
            let change = node.state.executed(shape, at, 0, finding).unwrap();
            node.there[at] = true;
            node = node.stored(&change);
        }
        node.journal.instance.status = Status::Compensating;
        node.reloaded(shape)
    }

    /// After a crash: what the next worker reads.
    fn reloaded(&self, shape: &Shape) -> Self {
        let state = State::load(shape, &self.journal, false).unwrap();
        Self { state, ..self.clone() }
    }

    fn stored(mut self, change: &Change) -> Self {
        let stopped = matches!(change.status, Status::Stuck | Status::Paused);
        assert_eq!(stopped, change.resume_status.is_some(), "{change:?}");
        let proven = matches!(change.status, Status::Completed | Status::Compensated);
        assert!(!proven || change.unresolved == 0, "{change:?}");
        let instance = &mut self.journal.instance;
        (instance.status, instance.resume_status) = (change.status, change.resume_status);
        instance.current_step = change.current_step;
        for row in &change.steps {
            self.journal.steps.retain(|old| old.order != row.order);
            self.journal.steps.push(row.clone());
        }
        self.journal.steps.sort_by_key(|row| row.order);
        self
    }

    fn key(&self) -> String {
        let rows = |row: &crate::record::StepRow| {
            (row.order, row.status, row.retry_in.is_some(), row.output.is_some())
        };
        let memory: Vec<_> = self.state.rows.iter().flatten().map(rows).collect();
        let store: Vec<_> = self.journal.steps.iter().map(rows).collect();
        let order: Vec<_> = self.journal.steps.iter().map(|row| row.completion).collect();
        let State { status, resume, clean, .. } = &self.state;
        let known = self.state.memory();
        format!("{status} {resume:?} {clean} {memory:?} {store:?} {order:?} {known:?} {:?}", self.there)
    }
}

/// The nodes that may follow one node.
struct After<'a> {
    shape: &'a Shape,
    node: &'a Node,
    found: Vec<Node>,
}

impl After<'_> {
    /// A write, after which this driver goes on, or dies.
    fn wrote(&mut self, node: Node, change: &Change) {
        let node = node.stored(change);
        self.found.push(node.reloaded(self.shape));
        self.found.push(node);
    }

    fn execute(&mut self, at: usize, maybe: bool, failures: u32) {
        assert!(maybe || !self.node.there[at], "started again without a question: {}", self.node.key());
        let local = self.shape.steps[at].local;
        assert!(!(local && maybe), "a local step is asked about: {}", self.node.key());
        let mut died = self.node.reloaded(self.shape);
        died.there[at] = !local;
        self.found.push(died);
        let answer = || Document::from_stored("2".into());
        if local {
            // Its effect is there exactly if its record is.
            self.ended(at, failures, Fatal { reason: "bug".into(), ran: false }, false);
            self.ended(at, failures, Succeeded(answer()), true);
            self.ended(at, failures, NotApplied("no".into()), false);
            self.ended(at, failures, Later { maybe: false, error: None, retry_in: WAIT }, false);
            return;
        }
        for (finding, there) in [
            (Succeeded(answer()), true),
            (NotApplied("no".into()), false),
            (Unknown("lost".into(), WhenUnknown::Stick), true),
            (Unknown("lost".into(), WhenUnknown::Compensate), true),
            (Fatal { reason: "bug".into(), ran: true }, true),
            (Later { maybe: false, error: None, retry_in: WAIT }, false),
            (Later { maybe: true, error: None, retry_in: WAIT }, true),
        ] {
            self.ended(at, failures, finding, there);
        }
    }

    fn ended(&mut self, at: usize, failures: u32, finding: Finding, there: bool) {
        let mut next = self.node.clone();
        next.there[at] = there;
        let change = next.state.executed(self.shape, at, failures, finding).unwrap();
        self.wrote(next, &change);
    }

    fn undo(&mut self, at: usize) {
        assert!(self.shape.steps[at].undo, "undoes what has no undo: {}", self.node.key());
        let past = (0..3).any(|at| self.shape.is_final(at) && self.node.there[at]);
        assert!(!past, "undoes although the pivot may have happened: {}", self.node.key());
        let rows = || {
            self.node
                .state
                .rows
                .iter()
                .zip(&self.shape.steps)
                .flat_map(|(row, step)| Some((row.as_ref()?, step)))
        };
        let completion = |at: usize| self.node.state.rows[at].as_ref().map(|row| row.completion);
        let failed = rows().any(|(row, step)| {
            row.status == StepStatus::CompensationFailed
                && step.holds_undo
                && Some(row.completion) > completion(at)
        });
        assert!(!failed, "undoes before a failed undo is resolved: {}", self.node.key());
        for undoing in [
            Undoing::Done("evidence".into()),
            Undoing::GivenUp("refused".into()),
            Undoing::Later { failures: 1, error: None, retry_in: WAIT },
            Undoing::Fatal("bug".into()),
        ] {
            let mut next = self.node.clone();
            next.there[at] &= !matches!(undoing, Undoing::Done(_));
            let change = next.state.undone(self.shape, at, undoing).unwrap();
            self.wrote(next, &change);
        }
    }

    fn ask(&mut self, at: usize) {
        for answer in [Some(Some(Document::from_stored("2".into()))), Some(None), None] {
            let mut next = self.node.clone();
            if let Some(answer) = &answer {
                next.there[at] = answer.is_some();
            }
            match next.state.asked(self.shape, at, answer) {
                Some(change) => self.wrote(next, &change),
                None => self.found.push(next),
            }
        }
    }

    /// Asked to turn back, and what the other side may say of the pivot.
    fn turn_unless_past(&mut self, pivot: usize) {
        for (found, there) in [
            (Succeeded(Document::from_stored("2".into())), Some(true)),
            (NotApplied("no".into()), Some(false)),
            (Unknown("lost".into(), WhenUnknown::Stick), None),
            (Later { maybe: true, error: None, retry_in: WAIT }, None),
        ] {
            let mut next = self.node.clone();
            next.there[pivot] = there.unwrap_or(next.there[pivot]);
            let change =
                next.state.turned_unless_past(self.shape, pivot, 0, found, "cancelled".into()).unwrap();
            self.wrote(next, &change);
        }
    }

    fn decided(&mut self, decision: impl FnOnce(&mut State, &Shape) -> Option<Change>) {
        let mut next = self.node.clone();
        if let Some(change) = decision(&mut next.state, self.shape) {
            self.wrote(next, &change);
        }
    }

    /// Does the next thing that the engine does, with each of its ends.
    fn engine(&mut self) {
        match self.node.state.next(self.shape) {
            Next::Execute { at, maybe, failures } => self.execute(at, maybe, failures),
            Next::Announce { at } => self.decided(|state, shape| Some(state.announced(shape, at))),
            Next::Undo { at, .. } => self.undo(at),
            Next::Ask { at } => self.ask(at),
            Next::TurnBack => {
                self.decided(|state, shape| Some(state.turned(shape, "failed".into()).unwrap()))
            }
            Next::Settle(trigger) => {
                self.decided(|state, shape| Some(state.settled(shape, trigger).unwrap()));
            }
            Next::Stop => assert!(!self.node.state.status.is_active(), "nothing to do: {}", self.node.key()),
        }
    }

    /// Applies each verb of operators, and the deadline.
    fn people(&mut self) {
        match self.node.state.pivot_in_doubt(self.shape) {
            Some(pivot) if self.node.state.status == Status::InProgress => self.turn_unless_past(pivot),
            Some(_) => self.decided(|state, shape| find_out(state, shape).ok()),
            None => self.decided(|state, shape| state.turned(shape, "cancelled".into()).ok()),
        }
        self.decided(|state, shape| state.paused(shape, "paused".into()).ok());
        self.decided(|state, shape| resume(state, shape).ok());
        self.decided(|state, shape| retry(state, shape).ok());
        for order in 1..=3 {
            let at = order as usize - 1;
            for resolution in [Resolution::NotApplied, Resolution::Compensated] {
                let before = self.found.len();
                self.decided(|state, shape| resolve(state, shape, order, resolution, "seen", "ann").ok());
                self.found[before..].iter_mut().for_each(|node| node.there[at] = false);
            }
            let found = Resolution::Applied(Document::from_stored("2".into()));
            let before = self.found.len();
            self.decided(|state, shape| resolve(state, shape, order, found, "seen", "ann").ok());
            self.found[before..].iter_mut().for_each(|node| node.there[at] = true);
        }
    }
}

fn check(shape: &Shape, node: &Node) {
    let wrong = |what: &str| panic!("{what}: {}", node.key());
    match node.state.status {
        Status::Completed if node.there.contains(&false) => wrong("completed without every effect"),
        Status::Compensated => {
            let open = |at: usize| node.there[at] && (shape.steps[at].undo || shape.is_final(at));
            let left = (0..3).any(open);
            if left {
                wrong("compensated with an effect left");
            }
        }
        _ => {}
    }
}

/// Walks everything reachable; answers how many nodes there are. From each the end can be reached.
fn walk(shape: &Shape, first: Node) -> usize {
    let mut todo = vec![(first.key(), first)];
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut ends = Vec::new();
    while let Some((key, node)) = todo.pop() {
        if edges.contains_key(&key) {
            continue;
        }
        check(shape, &node);
        let mut after = After { shape, node: &node, found: Vec::new() };
        if node.state.status.is_terminal() {
            ends.push(key.clone());
        } else {
            after.engine();
            after.people();
        }
        let found: Vec<(String, Node)> = after.found.into_iter().map(|node| (node.key(), node)).collect();
        edges.insert(key, found.iter().map(|(key, _)| key.clone()).collect());
        todo.extend(found);
    }
    let mut backward: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (from, to) in &edges {
        to.iter().for_each(|to| backward.entry(to).or_default().push(from));
    }
    let mut finish: BTreeSet<&String> = BTreeSet::new();
    let mut todo: Vec<&String> = ends.iter().collect();
    while let Some(key) = todo.pop() {
        if finish.insert(key) {
            todo.extend(backward.get(key).into_iter().flatten());
        }
    }
    let lost = edges.keys().find(|key| !finish.contains(key));
    assert_eq!(lost, None, "a saga that can never end");
    edges.len()
}

// proves: S-2, S-3, S-5, S-7, S-13, S-14
#[test]
fn every_journal_loads_goes_on_and_can_end() {
    for steps in [
        [("A", true, false), ("B", true, false), ("C", true, false)],
        [("A", true, false), ("B", false, false), ("C", true, false)],
        [("A", true, false), ("B!", true, false), ("C!", true, false)],
        [("A", true, false), ("B", true, false), ("C", false, true)],
        [("A", true, false), ("B", false, true), ("C", false, false)],
    ] {
        let shape = shape(steps);
        let nodes = walk(&shape, Node::begin(&shape));
        // Fewest past a pivot: a saga with its pivot in doubt does not turn.
        assert!(nodes > 400, "{nodes} journals of {steps:?}");
    }
}

// proves: S-2, S-3, S-5, S-7, S-9, S-13, S-14
#[test]
fn every_journal_with_local_steps_goes_on_without_probing_them_and_can_end() {
    for steps in [
        [("L1", true, false), ("L2", true, false), ("L3", true, false)],
        [("L1", true, false), ("B", true, false), ("L3", true, false)],
        [("A", true, false), ("L2", false, true), ("L3", false, false)],
    ] {
        let shape = shape(steps);
        let nodes = walk(&shape, Node::begin(&shape));
        assert!(nodes > 50, "{nodes} journals of {steps:?}");
    }
}

// proves: S-5, S-14
#[test]
fn a_saga_that_turned_while_its_pivot_was_in_doubt_undoes_nothing_before_it_is_known() {
    let shape = shape([("A", true, false), ("B", false, true), ("C", false, false)]);
    let nodes = walk(&shape, Node::turned_in_doubt(&shape));
    assert!(nodes > 20, "{nodes} journals");
}
