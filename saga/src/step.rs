//! Steps: something that happens in the world, how to undo it, and how to ask about it.
//!
//! Invariant: a step never decides the outcome of the saga. It reports what it *knows*, and the machine decides. Start
//! at [`SagaStep`]; [`StepError`] lists the kinds of failure.

pub(crate) mod context;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod local;
pub(crate) mod output;
mod retry;

use std::fmt;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use retry::Retry;
pub(crate) use retry::whole;

use crate::policy::StepPolicy;
use context::StepContext;

/// A value that a saga carries: anything serde can store and threads can share. Implemented for you.
pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Payload for T {}

/// One step of a saga, with its undo.
///
/// `execute` may be called more than once, always with the same
/// [`idempotency_key`](StepContext::idempotency_key): after a crash it is unknown whether the call
/// before it arrived. Pass the key on to the system that has the effect, so that it happens once (S-2).
/// A step that must not be called twice declares [`StepPolicy::not_idempotent`], and is then repeated only after
/// [`probe`](SagaStep::probe) proved that nothing happened.
///
/// # Examples
///
/// ```
/// use probity_saga::{Evidence, Executed, SagaStep, StepContext, StepError};
///
/// struct ReserveStock;
///
/// impl SagaStep for ReserveStock {
///     type Input = u32;
///     type Output = String;
///     const NAME: &'static str = "ReserveStock";
///
///     async fn execute(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
///         if *cx.input() > 10 {
///             return Err(StepError::rejected("only ten in stock"));
///         }
///         Ok(format!("reservation-{}", cx.business_id()))
///     }
///
///     async fn compensate(&self, cx: &StepContext<u32>, done: Executed<String>) -> Result<Evidence, StepError> {
///         match done {
///             Executed::Applied(reservation) => Ok(Evidence::new(format!("released {reservation}"))),
///             // The call may never have arrived: release by what we know without its answer.
///             Executed::Unknown => Ok(Evidence::new(format!("released all of {}", cx.business_id()))),
///         }
///     }
/// }
/// ```
pub trait SagaStep: Send + Sync + 'static {
    /// The input of the saga this step belongs to.
    type Input: Payload;
    /// The output of `execute`. It is stored, and given to later steps and to `compensate`.
    type Output: Payload;
    /// The identity of the step in stored sagas: rename a step only together with its version.
    const NAME: &'static str;
    /// The steps whose outputs this one reads, by their names: `&[CreateOrder::NAME]`. A saga in which
    /// one of them is missing or stands later does not build. To read any other is an error: with debug assertions, and
    /// under `testing::explore` in every build.
    const USES: &'static [&'static str] = &[];

    /// Does it. Runs under the policy's timeout; a timeout or a panic is *unknown*, never a failure.
    fn execute(
        &self,
        cx: &StepContext<Self::Input>,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Takes it back, and says what proves it. Must bear being called again, and being called for
    /// an effect that never happened ([`Executed::Unknown`]).
    fn compensate(
        &self,
        cx: &StepContext<Self::Input>,
        done: Executed<Self::Output>,
    ) -> impl Future<Output = Result<Evidence, StepError>> + Send;

    /// Asks the world what happened under this key. Called before guessing: after a timeout, a
    /// panic, an unknown error, and when another worker takes over. The default knows nothing.
    fn probe(
        &self,
        cx: &StepContext<Self::Input>,
    ) -> impl Future<Output = Result<Probe<Self::Output>, StepError>> + Send {
        let _ = cx;
        async { Ok(Probe::Unknown) }
    }

    /// Retries, timeout, and what to do when the outcome is unknown.
    fn policy(&self) -> StepPolicy {
        StepPolicy::default()
    }
}

/// A step that has no undo: a sent message, a payout, anything after a pivot.
///
/// Before a pivot the builder asks for the reason:
/// `.step(Notify).no_compensation("a mail cannot be unsent")`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `ForwardStep`",
    note = "a pivot, and every step after it, is never undone: implement `ForwardStep` for it instead of `SagaStep`"
)]
pub trait ForwardStep: Send + Sync + 'static {
    /// The input of the saga this step belongs to.
    type Input: Payload;
    /// The output of `execute`.
    type Output: Payload;
    /// The identity of the step in stored sagas.
    const NAME: &'static str;
    /// The steps whose outputs this one reads; see [`SagaStep::USES`].
    const USES: &'static [&'static str] = &[];

    /// Does it; see [`SagaStep::execute`].
    fn execute(
        &self,
        cx: &StepContext<Self::Input>,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Asks the world what happened under this key; see [`SagaStep::probe`].
    fn probe(
        &self,
        cx: &StepContext<Self::Input>,
    ) -> impl Future<Output = Result<Probe<Self::Output>, StepError>> + Send {
        let _ = cx;
        async { Ok(Probe::Unknown) }
    }

    /// Retries, timeout, and what to do when the outcome is unknown.
    fn policy(&self) -> StepPolicy {
        StepPolicy::default()
    }
}

/// The knowledge about the effect that is to be undone. Both arms must be handled.
///
/// ```compile_fail,E0004
/// # use probity_saga::Executed;
/// fn refund(done: Executed<&str>) -> String {
///     match done {
///         Executed::Applied(charge) => format!("refund of {charge}"), // and if it is unknown?
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "an unknown effect is undone differently from a known one"]
pub enum Executed<T> {
    /// It happened, and this was its answer.
    Applied(T),
    /// It may have happened, and its answer is lost.
    Unknown,
}

impl<T> Executed<T> {
    /// The answer, if it is known.
    #[must_use]
    pub fn known(self) -> Option<T> {
        match self {
            Self::Applied(output) => Some(output),
            Self::Unknown => None,
        }
    }
}

impl<T> fmt::Debug for Executed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied(_) => "Applied(..)",
            Self::Unknown => "Unknown",
        })
    }
}

/// The answer of [`SagaStep::probe`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "a probe decides whether a step runs again"]
pub enum Probe<T> {
    /// It happened; this is its answer. The step is done.
    Applied(T),
    /// It did not happen and *cannot happen any more* under this key. Only say so when the other
    /// side guarantees it; a request still on its way makes this answer a lie.
    NotApplied,
    /// The other side has seen no request so far; it may still arrive. The step is tried again with the same key.
    NotSeenYet,
    /// The other side cannot say.
    Unknown,
}

impl<T> fmt::Debug for Probe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applied(_) => "Applied(..)",
            Self::NotApplied => "NotApplied",
            Self::NotSeenYet => "NotSeenYet",
            Self::Unknown => "Unknown",
        })
    }
}

/// The proof that a step was undone; stored beside it and shown to operators (S-5).
#[derive(Clone, PartialEq, Eq)]
#[must_use = "return the evidence from `compensate`; it is what makes `compensated` true"]
pub struct Evidence(String);

impl Evidence {
    /// A reference that a person can look up: a refund number, a cancellation id.
    pub fn new(reference: impl Into<String>) -> Self {
        Self(reference.into())
    }

    /// The stored text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Evidence").field(&self.0).finish()
    }
}

/// The failure of a step, by what is known of its effect.
///
/// `?` on any other error gives [`StepError::Unknown`]: an error means that the caller got no answer, not that nothing
/// happened. For money that is the only safe default.
///
/// Let the client of a peer return an error of its own, which is a [`std::error::Error`], and never a `StepError`: `?`
/// passes a `StepError` on as it is, and a client's "no connection, so no effect" is true only of the first thing that
/// a step does. Convert it into [`StepError::Retryable`] explicitly, where that is true. State every effect except the
/// last with [`StepContext::effect_acknowledged`]; the engine then no longer believes a clean failure.
pub enum StepError {
    /// Definitely no effect, and there never will be one under this key. The saga turns back.
    ///
    /// After an attempt whose outcome is unknown it speaks for the repetition only: "sold out" may be what
    /// the first attempt did. Unless [`SagaStep::probe`] proves that nothing happened, the step is then undone
    /// as [`Executed::Unknown`]; one without an undo leaves the saga stuck.
    Rejected(String),
    /// Definitely no effect this time; try again later. [`StepError::unreachable`] makes one that waits longer.
    ///
    /// After [`StepContext::effect_acknowledged`] it counts as unknown, and so does [`StepError::Rejected`].
    Retryable(Retry),
    /// It may have happened. The saga asks ([`SagaStep::probe`]) before it does anything else.
    Unknown(Box<dyn std::error::Error + Send + Sync>),
    /// A bug or a wrong configuration. The saga is paused for a person; nothing is undone.
    Fatal(String),
}

impl StepError {
    /// [`StepError::Rejected`] with a reason.
    #[must_use]
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected(reason.into())
    }

    /// [`StepError::Retryable`] with a reason.
    #[must_use]
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self::Retryable(Retry::from(reason.into()))
    }

    /// [`StepError::Unknown`] with a reason.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown(reason.into().into())
    }

    /// [`StepError::Fatal`] with a reason.
    #[must_use]
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self::Fatal(reason.into())
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(reason) => write!(f, "rejected: {reason}"),
            Self::Retryable(retry) => write!(f, "no effect, may be retried: {retry}"),
            Self::Unknown(source) => write!(f, "unknown outcome: {}", whole(&**source)),
            Self::Fatal(reason) => write!(f, "fatal: {reason}"),
        }
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::Unknown(Box::new(error))
    }
}
