//! The saga that every worker runs: four steps that fail in every way, as their input says.

use std::time::Duration;

use probity_saga::{
    Backoff, Evidence, Executed, LocalStep, Probe, Saga, SagaStep, StepContext, StepError, StepPolicy,
    WhenUnknown,
};
use sqlx::{PgConnection, Postgres};

use super::channel::{Channel, What};

/// The steps in order.
pub(crate) const STEPS: [&str; 4] = ["Reserve", "Book", "Freeze", "Charge"];

/// The fate of a call of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    /// It happens, and the answer is lost, the first time or always.
    LostOnce,
    LostAlways,
    Refused,
}

fn fate(step: &str, input: u64) -> Fate {
    match (step, input % 8) {
        ("Reserve", 0 | 2 | 4) | ("Charge", 1) => Fate::LostOnce,
        ("Charge", 5) => Fate::LostAlways,
        ("Charge", 3 | 7) => Fate::Refused,
        _ => Fate::Fine,
    }
}

/// No answer of a worker that stood still counts as late: what it tries to write is what is looked at.
fn policy() -> StepPolicy {
    let soon = |times| Backoff::constant(times, Duration::from_millis(50));
    let policy =
        StepPolicy::default().timeout(Duration::from_secs(3600)).when_unknown(WhenUnknown::Compensate);
    policy.retries(soon(3)).undo_retries(soon(50))
}

macro_rules! step {
    ($name:ident, $answers_probes:expr) => {
        pub(crate) struct $name(Channel);
        impl SagaStep for $name {
            type Input = u64;
            type Output = u64;
            const NAME: &'static str = stringify!($name);

            async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> {
                let (input, fate) = (*cx.input(), fate(Self::NAME, *cx.input()));
                self.0.called(What::Execute, cx, Self::NAME).await?;
                if fate == Fate::Refused {
                    self.0.answered(cx, Self::NAME).await?;
                    return Err(StepError::rejected("refused"));
                }
                self.0.have(cx.idempotency_key()).await?;
                if fate == Fate::LostAlways || (fate == Fate::LostOnce && cx.attempt() == 1) {
                    return Err(StepError::unknown("the answer was lost"));
                }
                self.0.answered(cx, Self::NAME).await?;
                Ok(input)
            }

            async fn compensate(
                &self,
                cx: &StepContext<u64>,
                _: Executed<u64>,
            ) -> Result<Evidence, StepError> {
                self.0.called(What::Compensate, cx, Self::NAME).await?;
                let evidence = self.0.undo(&cx.execute_key()).await?;
                self.0.answered(cx, Self::NAME).await?;
                Ok(evidence)
            }

            async fn probe(&self, cx: &StepContext<u64>) -> Result<Probe<u64>, StepError> {
                self.0.called(What::Probe, cx, Self::NAME).await?;
                if !$answers_probes || fate(Self::NAME, *cx.input()) == Fate::LostAlways {
                    return Ok(Probe::Unknown);
                }
                self.0.look(cx.idempotency_key(), *cx.input()).await
            }

            fn policy(&self) -> StepPolicy {
                policy()
            }
        }
    };
}

step!(Reserve, false);
step!(Freeze, true);
step!(Charge, true);

/// Rows beside the sagas, without a key: what happens twice is there twice.
struct Book;
impl LocalStep<Postgres> for Book {
    type Input = u64;
    type Output = u64;
    const NAME: &'static str = "Book";

    async fn execute(&self, cx: &StepContext<u64>, tx: &mut PgConnection) -> Result<u64, StepError> {
        booked(cx, "done", tx).await
    }

    async fn compensate(
        &self,
        cx: &StepContext<u64>,
        _: u64,
        tx: &mut PgConnection,
    ) -> Result<Evidence, StepError> {
        booked(cx, "undone", tx).await?;
        Ok(Evidence::new("undone"))
    }

    fn policy(&self) -> StepPolicy {
        policy().timeout(Duration::from_secs(30))
    }
}

async fn booked(cx: &StepContext<u64>, what: &str, tx: &mut PgConnection) -> Result<u64, StepError> {
    let row = sqlx::query("INSERT INTO booked (saga, what) VALUES ($1::uuid, $2)");
    row.bind(cx.saga_id().to_string()).bind(what).execute(tx).await?;
    Ok(*cx.input())
}

pub(crate) fn saga(channel: &Channel) -> probity_saga::Saga<Postgres> {
    let saga = Saga::named("payment").step(Reserve(channel.clone())).local_step(Book);
    saga.step(Freeze(channel.clone())).step(Charge(channel.clone())).build().unwrap()
}
