//! One set of sagas in every state a store can show, and the results of a later build with them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use probity_saga::codec::{Codec, CodecError, Place};
use probity_saga::store::SagaStore;
use probity_saga::{
    Evidence, Executed, ForwardStep, Orchestrator, Outcome, Resolution, Saga, SagaStep, StepContext,
    StepError, StepPolicy, StepStatus,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::v1;

/// The business ids, in the order of the golden files.
pub(crate) const BUSINESS: [&str; 7] =
    ["broken", "declined", "done", "doubt", "hanging", "sealed", "waiting"];

#[derive(Serialize, Deserialize)]
pub(crate) struct Payment {
    amount: u64,
    note: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Reservation {
    key: String,
    parts: Vec<u64>,
}

/// The world around the steps: the troubles that the business ids name exist in one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    Troubled,
    Mended,
}

struct Reserve {
    world: World,
    hangs: Arc<Notify>,
}
impl SagaStep for Reserve {
    type Input = Payment;
    type Output = Reservation;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, cx: &StepContext<Payment>) -> Result<Reservation, StepError> {
        if self.world == World::Troubled && cx.business_id() == "hanging" {
            self.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(Reservation { key: cx.idempotency_key().to_owned(), parts: vec![cx.input().amount, 0] })
    }
    async fn compensate(
        &self,
        cx: &StepContext<Payment>,
        _: Executed<Reservation>,
    ) -> Result<Evidence, StepError> {
        Ok(Evidence::new(format!("released by {}", cx.idempotency_key())))
    }
}

struct Charge(World);
impl ForwardStep for Charge {
    type Input = Payment;
    type Output = String;
    const NAME: &'static str = "Charge";
    const USES: &'static [&'static str] = &[Reserve::NAME];
    async fn execute(&self, cx: &StepContext<Payment>) -> Result<String, StepError> {
        let reservation = cx.output::<Reserve, _>()?;
        match (self.0, cx.business_id()) {
            (_, "declined") => Err(StepError::rejected("card declined")),
            (World::Troubled, "broken") => Err(StepError::fatal("no credentials")),
            (World::Troubled, "doubt") => Err(StepError::unknown("connection reset")),
            (World::Troubled, "waiting") => {
                Err(StepError::retryable("busy").retry_after(Duration::from_secs(3600)))
            }
            _ => Ok(format!("charged {:?} of {}", reservation.parts, reservation.key)),
        }
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

struct Tell;
impl ForwardStep for Tell {
    type Input = Payment;
    type Output = ();
    const NAME: &'static str = "Tell";
    async fn execute(&self, _: &StepContext<Payment>) -> Result<(), StepError> {
        Ok(())
    }
}

/// Shows the place, which real codecs bind, and hides nothing.
struct Plain(&'static str);
impl Codec for Plain {
    fn key_id(&self) -> &str {
        self.0
    }
    fn seal(&self, place: &Place<'_>, json: &str) -> Result<String, CodecError> {
        Ok(format!("{place}|{json}"))
    }
    fn open(&self, key_id: &str, place: &Place<'_>, sealed: &str) -> Result<String, CodecError> {
        if !["k1", "k2"].contains(&key_id) {
            return Err(CodecError::unknown_key(key_id));
        }
        let json = sealed.strip_prefix(&format!("{place}|"));
        json.map(str::to_owned).ok_or_else(|| CodecError::new("sealed for another place"))
    }
}

fn payment() -> Payment {
    Payment { amount: 100, note: None }
}

async fn worker(
    store: &Arc<dyn SagaStore>,
    world: World,
    hangs: &Arc<Notify>,
    codec: Option<Plain>,
) -> Orchestrator {
    testkit::time_limit();
    let reserve = Reserve { world, hangs: Arc::clone(hangs) };
    let saga = Saga::named("payment").version(2).step(reserve).pivot(Charge(world)).step(Tell);
    let builder = Orchestrator::shared(Arc::clone(store)).poll(Duration::from_millis(50));
    let builder = builder.register(saga.build().unwrap());
    match codec {
        Some(codec) => builder.codec(codec),
        None => builder,
    }
    .start()
    .await
    .unwrap()
}

/// Makes the sagas. The workers that are returned still drive some of them.
pub(crate) async fn fill(store: &Arc<dyn SagaStore>) -> [Orchestrator; 2] {
    let hangs = Arc::new(Notify::new());
    let plain = worker(store, World::Troubled, &hangs, None).await;
    for id in ["broken", "declined", "done", "doubt"] {
        let _outcome = plain.run("payment", id, &payment()).await.unwrap();
    }
    let _hanging = plain.start("payment", "hanging", &payment()).await.unwrap();
    hangs.notified().await;
    let _waiting = plain.start("payment", "waiting", &payment()).await.unwrap();
    until_it_waits(&plain).await;
    let _cancelled = plain.operator("ann").cancel("payment", "hanging", "fraud").await.unwrap();
    let sealing = worker(store, World::Troubled, &hangs, Some(Plain("k1"))).await;
    assert_eq!(sealing.run("payment", "sealed", &payment()).await.unwrap(), Outcome::Completed);
    [plain, sealing]
}

async fn until_it_waits(orchestrator: &Orchestrator) {
    loop {
        let view = orchestrator.get("payment", "waiting").await.unwrap().unwrap();
        if view.steps.last().is_some_and(|step| step.status == StepStatus::Executing) {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Goes on with sagas that an older build stored and whose workers are gone. Every store must come to the same end.
pub(crate) async fn go_on(store: &Arc<dyn SagaStore>) {
    let orchestrator = worker(store, World::Mended, &Arc::default(), Some(Plain("k2"))).await;
    let ann = orchestrator.operator("ann");
    ann.resume("payment", "broken", "credentials are there").await.unwrap();
    let found = Resolution::applied(&"found in the ledger").unwrap();
    ann.resolve_step("payment", "doubt", 2, found, "line 7").await.unwrap();

    let mut ends = String::new();
    for id in BUSINESS {
        let started = orchestrator.start("payment", id, &payment()).await.unwrap();
        assert!(started.existed(), "{id}");
        let outcome = orchestrator.wait(&started).await.unwrap();
        writeln!(ends, "{id}: {outcome:?}").unwrap();
        let view = orchestrator.get("payment", id).await.unwrap().unwrap();
        assert_eq!(view.instance.unreadable, None);
        let view = orchestrator.opened(view).unwrap();
        assert_eq!(view.instance.input.decode::<Payment>().unwrap().amount, 100);
        for step in view.steps {
            writeln!(ends, "    {} {} {}", step.order, step.name, step.status).unwrap();
        }
    }
    orchestrator.drain().await.unwrap();
    testkit::golden(v1!("ends.txt"), &ends);
}
