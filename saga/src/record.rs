//! The rows and the writes that engine and store exchange. Stored names are wire format: never
//! rename one.
//!
//! Durations travel, instants do not: a store computes every time with its own clock.

mod new_saga;
mod summary;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::status::{Status, StepStatus};
pub use new_saga::{Inserted, NewSaga};
pub use summary::{OpenCounts, Settled};

/// The identity of one saga; sorts by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(pub(crate) Uuid);

/// The identity of one life of one process: never reused, so a restarted worker owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) Uuid);

macro_rules! identity {
    ($name:ident) => {
        impl $name {
            /// A new identity.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The underlying UUID.
            #[must_use]
            pub fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

identity!(SagaId);
identity!(WorkerId);

/// Stored JSON: inputs and outputs. `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(Arc<str>);

impl Document {
    /// Encodes a value.
    ///
    /// # Errors
    /// If serde cannot express the value as JSON.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::from_stored)
    }

    /// A document read from a store.
    #[must_use]
    pub fn from_stored(json: String) -> Self {
        Self(json.into())
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// If the stored JSON does not fit the type any more.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Tells whether two plain documents say the same: the keys of an object have no order.
    pub(crate) fn means_the_same_as(&self, other: &Self) -> bool {
        mean_the_same(&self.0, &other.0, DEPTH)
    }
}

/// The deepest nesting that is compared by meaning; serde_json reads no value that is nested deeper. Deeper values are
/// compared as text, so a document of a million brackets costs no stack and no time.
const DEPTH: u32 = 128;

/// Compares the texts of the values, so that no number is rounded.
fn mean_the_same(one: &str, other: &str, depth: u32) -> bool {
    type Object<'a> = BTreeMap<String, &'a RawValue>;
    type Array<'a> = Vec<&'a RawValue>;
    if one == other || depth == 0 {
        return one == other;
    }
    let same = |one: &RawValue, other: &RawValue| mean_the_same(one.get(), other.get(), depth - 1);
    if let (Ok(one), Ok(other)) =
        (serde_json::from_str::<Object<'_>>(one), serde_json::from_str::<Object<'_>>(other))
    {
        let both = |(one, other): ((&String, &&RawValue), (&String, &&RawValue))| {
            one.0 == other.0 && same(one.1, other.1)
        };
        return one.len() == other.len() && one.iter().zip(&other).all(both);
    }
    if let (Ok(one), Ok(other)) =
        (serde_json::from_str::<Array<'_>>(one), serde_json::from_str::<Array<'_>>(other))
    {
        return one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| same(one, other));
    }
    false
}

/// The most bytes of an input or an output: a saga carries references, not files.
pub(crate) const MAX_DOCUMENT: usize = 1024 * 1024;

/// Says what was wrong with a document and where. The error's own text may quote the payload, and reasons
/// are stored and logged.
pub(crate) fn unquoted(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io => "an I/O error",
        Category::Syntax => "not JSON",
        Category::Data => "a value of another type or form",
        Category::Eof => "it ends too early",
    };
    match error.line() {
        0 => what.into(),
        line => format!("{what} at line {line} column {}", error.column()),
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.0.len())
    }
}

/// One saga as a store holds it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Identity.
    pub id: SagaId,
    /// `business_type`.
    pub saga_type: String,
    /// Unique together with the type.
    pub business_id: String,
    /// Fingerprint of its definition.
    pub definition: String,
    /// The status.
    pub status: Status,
    /// The status in which it goes on after `stuck` or `paused`.
    pub resume_status: Option<Status>,
    /// The reason for which it turned back, stopped, or was closed.
    pub reason: Option<String>,
    /// The step it is at, from 1; 0 before the first result.
    pub current_step: u32,
    /// The input.
    pub input: Document,
    /// Hash of the input.
    pub input_hash: String,
    /// The worker that drives it.
    pub owner: Option<WorkerId>,
    /// Raised by every claim and every operator decision; fences all writes.
    pub epoch: i64,
    /// Raised by every write of one epoch; makes a repeated write harmless.
    pub write_no: i64,
    /// Steps whose effect is open. `completed` and `compensated` are refused while it is not 0.
    pub unresolved: u32,
    /// Raised by every write except a mere step forward ([`Record::only_appends`]) of a step that is not local: an
    /// operator never decides on a stale screen.
    pub row_version: i64,
    /// Claims since the last progress; the claim itself parks the saga at the limit.
    pub stalled_claims: u32,
    /// An operator asked to turn back, and why.
    pub cancel_requested: Option<String>,
    /// An operator asked to pause.
    pub pause_requested: bool,
    /// Its age by the store's clock.
    pub age: Duration,
    /// The trace in which it was started, in the form of the program that started it.
    pub trace: Option<String>,
    /// The part of its rows that cannot be read, if there is one: something else stands here in its place. Such
    /// a saga is shown and can be closed, but no worker drives it.
    pub unreadable: Option<String>,
}

impl Instance {
    /// A request to turn back that was accepted while the saga ran, and met the result that completed
    /// it or passed its pivot: nothing is undone for it.
    #[must_use]
    pub fn cancelled_too_late(&self) -> Option<&str> {
        // A saga that stopped past its pivot does not turn back either.
        let stands = self.resume_status.unwrap_or(self.status);
        let over = matches!(stands, Status::Committing | Status::Completed);
        self.cancel_requested.as_deref().filter(|_| over)
    }
}

/// One step as a store holds it. No row means: not started, as far as anyone knows.
#[derive(Debug, Clone)]
pub struct StepRow {
    /// Position in the definition, from 1.
    pub order: u32,
    /// Identity in the definition.
    pub name: Cow<'static, str>,
    /// The status.
    pub status: StepStatus,
    /// The answer of `execute`.
    pub output: Option<Document>,
    /// The proof of the undo.
    pub evidence: Option<String>,
    /// The last error.
    pub error: Option<String>,
    /// Failed attempts of `execute` so far.
    pub retries: u32,
    /// The number of retries that the policy allows.
    pub retries_max: u32,
    /// Failed attempts of `compensate` so far.
    pub undo_retries: u32,
    /// The order in which effects happened; undo runs in the reverse order.
    pub completion: u32,
    /// The time until the next attempt, if one is scheduled.
    pub retry_in: Option<Duration>,
    /// The operator who settled it, if a person did.
    pub resolved_by: Option<String>,
}

/// A saga with its steps: everything recovery needs.
#[derive(Debug, Clone)]
pub struct Journal {
    /// The saga.
    pub instance: Instance,
    /// Its steps, by order.
    pub steps: Vec<StepRow>,
}

/// One fenced write: the result of a step together with what it means for the saga.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which saga.
    pub saga: SagaId,
    /// The epoch of the writer; another epoch in the row refuses the write (S-6).
    pub epoch: i64,
    /// The number of this write within the epoch; a repeated number is answered, not applied.
    pub write_no: i64,
    /// The status the writer believes in; another status in the row refuses the write.
    pub from: Status,
    /// The status after the write.
    pub change: Change,
    /// Give the saga up, to be claimed again after this long; at once if an operator asked for something else than what
    /// it is doing ([`turning`](Self::turning)).
    pub release: Option<Duration>,
    /// Write the saga's own row in any case: the lease had lapsed, and a claim that saw it lapsed must see that the saga
    /// moved.
    pub rewrite: bool,
    /// The writer is about to turn the saga back, as it was asked to. That request does not end the wait of `release`;
    /// one to pause does.
    pub turning: bool,
}

impl Record {
    /// Tells whether this is a mere step forward: if the saga's own row has no reason, no open effect and no stalled
    /// claim, nothing in it changes but where the saga is, and that can be read from its step rows. A store may then
    /// insert the step row and leave the saga's row alone, unless the step had a row before.
    #[must_use]
    pub fn only_appends(&self) -> bool {
        let Change { status, resume_status, reason, unresolved, steps, .. } = &self.change;
        let forward = matches!(status, Status::InProgress | Status::Committing);
        let done = |step: &StepRow| matches!(step.status, StepStatus::Succeeded | StepStatus::Skipped);
        let nothing_else = resume_status.is_none() && reason.is_none() && *unresolved == 0;
        forward
            && *status == self.from
            && nothing_else
            && self.release.is_none()
            && !self.rewrite
            && matches!(&steps[..], [step] if done(step))
    }
}

/// The changes that a write makes to the rows of a saga: a driver writes them, or an operator.
#[derive(Debug, Clone)]
pub struct Change {
    /// The new status.
    pub status: Status,
    /// Set exactly for `stuck` and `paused`.
    pub resume_status: Option<Status>,
    /// The reason; it replaces the stored one.
    pub reason: Option<String>,
    /// The step it is at.
    pub current_step: u32,
    /// Open effects after this write.
    pub unresolved: u32,
    /// Rows to insert or replace.
    pub steps: Vec<StepRow>,
}

impl Change {
    /// Counts the bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let row = |row: &StepRow| {
            let output = row.output.as_ref().map_or(0, |output| output.as_json().len());
            output + length(&row.error) + length(&row.evidence)
        };
        length(&self.reason) + self.steps.iter().map(row).sum::<usize>()
    }
}

/// The answer of a store to one [`Record`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a fenced writer must stop at once"]
pub enum Verdict {
    /// Written, now or by an earlier call with the same number. With it come the requests of operators.
    Applied(Requests),
    /// Another driver owns the saga: stop, forget it, do not try again.
    Fenced,
    /// The store refused this record for itself (a constraint, an unstorable value).
    Refused(String),
}

/// The requests of operators; a driver sees them with its next write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Turn back, and why.
    pub cancel: Option<String>,
    /// Stop after the current result.
    pub pause: bool,
}

/// Which sagas a worker wants to take over.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The worker that claims.
    pub worker: WorkerId,
    /// The definitions it can run, as (type, fingerprint); no other saga is claimed (S-10).
    pub runnable: Vec<(String, String)>,
    /// Also these of its own, which it no longer drives.
    pub own: Vec<SagaId>,
    /// At most this many.
    pub limit: u32,
    /// Park a saga that was claimed this often without progress, instead of handing it out (S-11).
    pub stalled_max: u32,
    /// From so many claims without progress on, a saga of another worker may be what kills its workers.
    pub suspect_at: u32,
    /// At most so many of these: what is handed out beside such a saga is claimed without progress as well when it
    /// kills once more.
    pub suspects: u32,
}

/// The answer of a store to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "after a lapse others may own what this worker drives"]
pub enum Heartbeat {
    /// The lease never lapsed since the last beat.
    Held,
    /// The lease is new, or had run out by the store's clock before this beat.
    Lapsed,
}

/// A worker as a store sees it.
#[derive(Debug, Clone)]
pub struct Worker {
    /// This life of the process.
    pub id: WorkerId,
    /// The time that others must wait after its last heartbeat.
    pub lease: Duration,
    /// Process id, for people.
    pub pid: u32,
}

/// A definition that this worker can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Fingerprint over the names and kinds of the steps.
    pub fingerprint: String,
    /// `business_type`.
    pub saga_type: String,
    /// The version given to the builder.
    pub version: u32,
    /// The steps, as JSON, for people and tools.
    pub steps: String,
}

/// An operator's decision: the machine's change, guarded by the row version, with its audit row.
#[derive(Debug, Clone)]
pub struct Intervention {
    /// Which saga.
    pub saga: SagaId,
    /// The version the operator saw.
    pub row_version: i64,
    /// The change; `None` for a mere request to the driver.
    pub change: Option<Change>,
    /// Only if no worker drives the saga: it has no owner, or one whose lease ran out by the store's clock.
    /// Otherwise the answer is [`Intervened::Stale`].
    pub unless_driven: bool,
    /// Ask the driver to turn back, and why.
    pub request_cancel: Option<String>,
    /// Ask the driver to pause.
    pub request_pause: bool,
    /// The name of the operator.
    pub actor: String,
    /// Which verb.
    pub action: String,
    /// The reason.
    pub reason: String,
    /// The status before, for the audit row.
    pub before: Status,
}

/// The answer of a store to an [`Intervention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a stale decision was not applied"]
pub enum Intervened {
    /// Applied, with its audit row.
    Applied,
    /// The saga changed since the operator looked, or is driven against
    /// [`unless_driven`](Intervention::unless_driven); nothing was written.
    Stale,
}

/// Which sagas to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only this type.
    pub saga_type: Option<String>,
    /// Only this status.
    pub status: Option<Status>,
    /// Only sagas older than this one: the last id of the page before.
    pub before: Option<SagaId>,
    /// At most this many; 0 means 100.
    pub limit: u32,
}
