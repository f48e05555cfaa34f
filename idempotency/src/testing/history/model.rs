//! The states that a record may have, as far as its callers can know: the pure state machine, with times that are only
//! known to lie between a question and its answer.
//!
//! A store reads its clock somewhere between the two. Therefore the end of a lease is a span, and a later call may find
//! it still ahead, or over, or either. Every possibility is handed to [`machine`] with made-up times that say so, and
//! counts if the machine's answer is the one that was seen.

use std::time::Duration;

use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::machine::{self, Decision, Entry, RELEASED_FOR, Write, micros};
use crate::core::recording::{Recording, Tombstone};
use crate::store::manager::Snapshot;
use crate::token::OwnerToken;

/// The made-up time at which the machine is asked.
const NOW: u64 = 1 << 40;
/// The distance of a made-up cap from [`NOW`].
const FAR: u64 = 1 << 45;
/// The difference that clocks may have, beside a hundredth of the time they measure: SQLite's has milliseconds.
const SLACK: u64 = 5_000;

/// One call on one record.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) asked: Moment,
    /// The answer and when it came; never, if the call was dropped or failed with an unknown effect.
    pub(super) told: Option<(Told, Moment)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) order: u64,
    pub(super) at: u64,
}

#[derive(Debug)]
pub(super) enum Op {
    Claim(Claim),
    Renew(OwnerToken, Duration),
    Mark(OwnerToken),
    Complete(OwnerToken, Recording, Duration),
    Tombstone(OwnerToken, Tombstone, Duration),
    Release(OwnerToken),
    Resolve(Fence, Resolution, Duration),
    Get,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Answer(Answer),
    Renewed(Renewed),
    Written(Written),
    Snapshot(Option<Snapshot>),
    /// The call failed, and provably wrote nothing.
    Nothing,
}

impl Call {
    pub(super) fn new(op: Op, asked: Moment) -> Self {
        Self { op, asked, told: None }
    }

    pub(super) fn answered(&mut self, told: Told, at: Moment) {
        self.told = Some((told, at));
    }

    pub(super) fn granted_before(&self, order: u64) -> bool {
        matches!(&self.told, Some((Told::Answer(Answer::Acquired(_)), at)) if at.order < order)
    }

    /// Says whether the answer means that nothing was written.
    pub(super) fn only_read(&self) -> bool {
        match &self.told {
            Some((Told::Answer(answer), _)) => !matches!(answer, Answer::Acquired(_)),
            Some((Told::Renewed(renewed), _)) => !matches!(renewed, Renewed::Held(_)),
            Some((Told::Written(written), _)) => *written != Written::Applied,
            Some((Told::Snapshot(_) | Told::Nothing, _)) => true,
            None => false,
        }
    }

    /// The fence that the answer mentions.
    pub(super) fn fence(&self) -> Option<u64> {
        match &self.told.as_ref()?.0 {
            Told::Answer(Answer::Acquired(grant)) => Some(grant.fence.0),
            Told::Answer(Answer::Indeterminate(lost)) => Some(lost.fence.0),
            Told::Renewed(Renewed::LostTo(fence)) | Told::Written(Written::LostTo(fence)) => Some(fence.0),
            Told::Snapshot(Some(snapshot)) => Some(snapshot.fence.0),
            _ => None,
        }
    }

    const fn answered_at(&self) -> u64 {
        match &self.told {
            Some((_, moment)) => moment.at,
            None => u64::MAX,
        }
    }

    /// When something ends that this call set to last for `length`.
    fn ends_after(&self, length: Duration) -> Span {
        let length = micros(length);
        // A span without length is over for every later call, on any clock.
        let slack = if length == 0 { 0 } else { SLACK + length / 100 };
        Span {
            earliest: (self.asked.at + length).saturating_sub(slack),
            latest: self.answered_at().saturating_add(length + slack),
        }
    }
}

/// A time of the store's clock, as exactly as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    earliest: u64,
    latest: u64,
}

impl Span {
    /// Says whether `call` may have found it still ahead, or over.
    const fn may_be(self, ahead: bool, call: &Call) -> bool {
        if ahead { call.asked.at < self.latest } else { call.answered_at() >= self.earliest }
    }

    fn min(self, other: Self) -> Self {
        Self { earliest: self.earliest.min(other.earliest), latest: self.latest.min(other.latest) }
    }
}

/// The states that the record may have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct World {
    entry: Option<Entry>,
    /// The highest fence given so far.
    fence: u64,
    lease: Span,
    cap: Span,
    end: Span,
}

impl World {
    /// Every world that this call may leave behind when it is next; none if it cannot be. `fences` are those that
    /// answers mention: a claim whose own answer is lost was given one of them, or one that no call saw.
    pub(super) fn after(&self, call: &Call, fences: &[u64]) -> Vec<Self> {
        let told = call.told.as_ref().map(|(told, _)| told);
        if told == Some(&Told::Nothing) {
            return vec![self.clone()];
        }
        let views = self.views(call);
        match &call.op {
            Op::Claim(claim) => self.begun(claim, call, &views, fences),
            Op::Renew(token, lease) => self.renewed(*token, *lease, call, views),
            Op::Mark(token) => self.written(&Write::Mark, *token, call, views),
            Op::Complete(token, recording, keep) => {
                self.written(&Write::Complete(recording, *keep), *token, call, views)
            }
            Op::Tombstone(token, tombstone, keep) => {
                self.written(&Write::Tombstone(tombstone, *keep), *token, call, views)
            }
            Op::Release(token) => self.written(&Write::Release, *token, call, views),
            Op::Resolve(fence, resolution, keep) => self.resolved(*fence, resolution, *keep, call, views),
            Op::Get => {
                let fits = |view: &Option<Entry>| match (told, view) {
                    (Some(Told::Snapshot(Some(seen))), Some(entry)) => is_of(seen, entry),
                    (Some(Told::Snapshot(None)), entry) => entry.as_ref().is_none_or(|it| it.is_gone(NOW)),
                    _ => false,
                };
                views.iter().filter(|view| fits(view)).map(|_| self.clone()).collect()
            }
        }
    }

    /// The record as the call may have found it, on the made-up clock.
    fn views(&self, call: &Call) -> Vec<Option<Entry>> {
        let Some(entry) = &self.entry else { return vec![None] };
        let mut views = Vec::new();
        for live in [true, false] {
            for kept in [true, false] {
                if !self.lease.may_be(live, call) || !self.end.may_be(kept, call) {
                    continue;
                }
                let mut view = entry.clone();
                view.lease_until = NOW + u64::from(live);
                view.expires_at = NOW + u64::from(kept);
                view.cap_until = NOW + FAR;
                if view.is_purgeable(NOW) {
                    views.push(None);
                }
                views.push(Some(view));
            }
        }
        views
    }

    fn begun(&self, claim: &Claim, call: &Call, views: &[Option<Entry>], fences: &[u64]) -> Vec<Self> {
        let told = call.told.as_ref().map(|(told, _)| told);
        let given: Vec<u64> = match told {
            Some(Told::Answer(Answer::Acquired(grant))) => vec![grant.fence.0],
            Some(_) => vec![self.fence + 1],
            None => fences.iter().copied().chain([self.fence + 1]).collect(),
        };
        let mut worlds = Vec::new();
        for (view, fence) in views.iter().flat_map(|view| given.iter().map(move |fence| (view, *fence))) {
            match (machine::claim(view.as_ref(), claim, NOW, fence.max(self.fence + 1)), told) {
                (Decision::Write(entry, grant), None)
                    if grant.fence.0 == fence || self.holds(claim.token) =>
                {
                    worlds.push(self.claimed(entry, claim, call));
                }
                (Decision::Write(entry, grant), Some(Told::Answer(Answer::Acquired(told))))
                    if (told.fence, told.attempt) == (grant.fence, grant.attempt)
                        && told.lease <= claim.terms.lease =>
                {
                    worlds.push(self.claimed(entry, claim, call));
                }
                (Decision::Answer(answer), Some(Told::Answer(told))) if self.says(&answer, told, call) => {
                    worlds.push(self.clone());
                }
                _ => {}
            }
        }
        worlds
    }

    fn holds(&self, token: OwnerToken) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.token == token)
    }

    fn claimed(&self, entry: Entry, claim: &Claim, call: &Call) -> Self {
        let terms = claim.terms;
        let cap = terms.lease_cap.max(terms.lease);
        let repeated = self.entry.as_ref().is_some_and(|old| old.fence == entry.fence);
        let cap_until = if repeated { self.cap } else { call.ends_after(cap) };
        let end = if repeated { self.end } else { call.ends_after(cap.saturating_add(terms.retention)) };
        let lease = call.ends_after(terms.lease).min(cap_until);
        Self { fence: self.fence.max(entry.fence.0), lease, cap: cap_until, end, ..self.with(entry) }
    }

    /// Says whether the machine's answer is the one that was seen, apart from durations that depend on the real clock.
    fn says(&self, answer: &Answer, told: &Answer, call: &Call) -> bool {
        match (answer, told) {
            (Answer::InFlight { .. }, Answer::InFlight { retry_after }) => {
                let left = self.lease.latest.saturating_sub(call.asked.at);
                !retry_after.is_zero() && micros(*retry_after) <= left
            }
            (Answer::Indeterminate(one), Answer::Indeterminate(other)) => {
                (one.fence, one.attempt) == (other.fence, other.attempt)
            }
            (answer, told) => answer == told,
        }
    }

    fn renewed(
        &self,
        token: OwnerToken,
        lease: Duration,
        call: &Call,
        views: Vec<Option<Entry>>,
    ) -> Vec<Self> {
        let told = call.told.as_ref().map(|(told, _)| told);
        let mut worlds = Vec::new();
        for mut view in views {
            match (machine::renew(view.as_mut(), token, lease, NOW), told, view) {
                (Renewed::Held(_), None, Some(entry)) => {
                    let lease = call.ends_after(lease).min(self.cap);
                    worlds.push(Self { lease, ..self.with(entry) });
                }
                (Renewed::Held(_), Some(Told::Renewed(Renewed::Held(left))), Some(entry)) => {
                    let cap = self.cap.latest.saturating_sub(call.asked.at);
                    if *left <= lease && micros(*left) <= cap {
                        let lease = call.ends_after(lease).min(self.cap);
                        worlds.push(Self { lease, ..self.with(entry) });
                    }
                }
                (renewed, Some(Told::Renewed(told)), _) if renewed == *told => worlds.push(self.clone()),
                _ => {}
            }
        }
        worlds
    }

    fn written(
        &self,
        write: &Write<'_>,
        token: OwnerToken,
        call: &Call,
        views: Vec<Option<Entry>>,
    ) -> Vec<Self> {
        let end = match write {
            Write::Mark => self.end,
            Write::Complete(_, keep) | Write::Tombstone(_, keep) => call.ends_after(*keep),
            Write::Release => call.ends_after(RELEASED_FOR),
        };
        let apply = |view: &mut Option<Entry>| write.apply(view.as_mut(), token, NOW);
        self.changed(call, views, end, apply)
    }

    fn resolved(
        &self,
        fence: Fence,
        resolution: &Resolution,
        keep: Duration,
        call: &Call,
        views: Vec<Option<Entry>>,
    ) -> Vec<Self> {
        let end = call.ends_after(if *resolution == Resolution::Absent { RELEASED_FOR } else { keep });
        let apply = |view: &mut Option<Entry>| machine::resolve(view.as_mut(), fence, resolution, keep, NOW);
        self.changed(call, views, end, apply)
    }

    fn changed(
        &self,
        call: &Call,
        views: Vec<Option<Entry>>,
        end: Span,
        apply: impl Fn(&mut Option<Entry>) -> Written,
    ) -> Vec<Self> {
        let told = call.told.as_ref().map(|(told, _)| told);
        let mut worlds = Vec::new();
        for mut view in views {
            let written = apply(&mut view);
            if told.is_some_and(|told| *told != Told::Written(written)) {
                continue;
            }
            match (written, view) {
                (Written::Applied, Some(entry)) => worlds.push(Self { end, ..self.with(entry) }),
                _ if told.is_some() => worlds.push(self.clone()),
                _ => {}
            }
        }
        worlds
    }

    /// This world with another entry, whose made-up times are wiped so that equal worlds are equal.
    fn with(&self, entry: Entry) -> Self {
        let entry = Entry { lease_until: 0, cap_until: 0, expires_at: 0, ..entry };
        Self { entry: Some(entry), ..self.clone() }
    }
}

fn is_of(seen: &Snapshot, entry: &Entry) -> bool {
    let expected = Snapshot::of(entry, NOW);
    !entry.is_gone(NOW) && *seen == Snapshot { lease_left: seen.lease_left, ..expected }
}
