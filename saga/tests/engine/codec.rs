//! Sealed payloads, in paused time: no readable payload reaches the store, keys may change, and an unreadable document
//! stops its own saga with the reason.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use probity_saga::codec::{Codec, CodecError, Place};
use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Resolution, Saga, SagaError, SagaStep, Status,
    StepContext, StepError, StepStatus,
};

/// A toy: shifted by its key, with its place inside.
struct Toy {
    current: &'static str,
    keys: &'static [(&'static str, u32)],
}

impl Toy {
    fn shift(&self, id: &str) -> Result<u32, CodecError> {
        let found = self.keys.iter().find(|(known, _)| *known == id);
        found.map(|(_, shift)| *shift).ok_or_else(|| CodecError::unknown_key(id))
    }
}

impl Codec for Toy {
    fn key_id(&self) -> &str {
        self.current
    }
    fn seal(&self, place: &Place<'_>, json: &str) -> Result<String, CodecError> {
        let shift = self.shift(self.current)?;
        Ok(format!("{place}|{json}").chars().filter_map(|char| char::from_u32(char as u32 + shift)).collect())
    }
    fn open(&self, key_id: &str, place: &Place<'_>, sealed: &str) -> Result<String, CodecError> {
        let shift = self.shift(key_id)?;
        let text: String =
            sealed.chars().filter_map(|char| char::from_u32((char as u32).saturating_sub(shift))).collect();
        let json = text.strip_prefix(&format!("{place}|")).map(str::to_owned);
        json.ok_or_else(|| CodecError::new("sealed for another place, or damaged"))
    }
}

const OLD: Toy = Toy { current: "k1", keys: &[("k1", 100)] };
const BOTH: Toy = Toy { current: "k2", keys: &[("k1", 100), ("k2", 200)] };
const NEW: Toy = Toy { current: "k2", keys: &[("k2", 200)] };

struct Store;
impl SagaStep for Store {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Store";
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        Ok(format!("token of {}", cx.input()))
    }
    async fn compensate(
        &self,
        _: &StepContext<String>,
        done: Executed<String>,
    ) -> Result<Evidence, StepError> {
        assert_eq!(done.known().as_deref(), Some("token of 4111-1111"));
        Ok(Evidence::new("forgotten"))
    }
}

/// Fails, and is stuck, or rejects, as the business id says; else it reads what was stored.
struct Charge;
impl SagaStep for Charge {
    type Input = String;
    type Output = String;
    const NAME: &'static str = "Charge";
    const USES: &'static [&'static str] = &[Store::NAME];
    async fn execute(&self, cx: &StepContext<String>) -> Result<String, StepError> {
        match cx.business_id() {
            "rejected" => Err(StepError::rejected("no")),
            "broken" => Err(StepError::fatal("bug")),
            _ => Ok(format!("charged {}", cx.output::<Store, _>()?)),
        }
    }
    async fn compensate(&self, _: &StepContext<String>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

async fn worker(store: &Arc<MemoryStore>, codec: Option<Toy>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("payment").step(Store).step(Charge).build().unwrap();
    let builder = Orchestrator::shared(store.clone()).register(saga);
    let builder = match codec {
        Some(codec) => builder.codec(codec),
        None => builder,
    };
    builder.start().await.unwrap()
}

fn card() -> String {
    "4111-1111".into()
}

async fn again(orchestrator: &Orchestrator, business_id: &str) -> Outcome {
    let started = orchestrator.start("payment", business_id, &card()).await.unwrap();
    assert!(started.existed());
    orchestrator.wait(&started).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn payloads_are_sealed_in_the_store_and_open_for_steps_undo_and_views() {
    let store = Arc::new(MemoryStore::new());
    let orchestrator = worker(&store, Some(OLD)).await;
    assert_eq!(orchestrator.run("payment", "PAY-1", &card()).await.unwrap(), Outcome::Completed);
    let undone = orchestrator.run("payment", "rejected", &card()).await.unwrap();
    assert!(matches!(undone, Outcome::Compensated { .. }), "{undone:?}");

    let view = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap();
    let outputs = view.steps.iter().filter_map(|step| step.output.as_ref());
    for stored in outputs.chain([&view.instance.input]) {
        let text = stored.as_json();
        assert!(text.starts_with("@k1:") && !text.contains("4111"), "{text}");
    }
    let opened = orchestrator.opened(view.clone()).unwrap();
    assert_eq!(opened.instance.input.decode::<String>().unwrap(), card());
    let charged = opened.steps[1].output.as_ref().unwrap().decode::<String>().unwrap();
    assert_eq!(charged, "charged token of 4111-1111");

    // The same input is the same saga, however it was sealed; another is not.
    assert_eq!(again(&orchestrator, "PAY-1").await, Outcome::Completed);
    let other = orchestrator.start("payment", "PAY-1", &"5555".to_owned()).await;
    assert!(matches!(other, Err(SagaError::InputConflict { .. })));

    let blind = worker(&store, None).await;
    assert!(matches!(blind.opened(view), Err(SagaError::Unreadable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_key_can_be_replaced_while_a_saga_is_open_and_a_missing_key_stops_it_visibly() {
    let store = Arc::new(MemoryStore::new());
    let first = worker(&store, Some(OLD)).await;
    let paused = first.run("payment", "broken", &card()).await.unwrap();
    assert!(matches!(paused, Outcome::Paused { .. }), "{paused:?}");
    first.drain().await.unwrap();

    // Without the old key nothing is run, and the reason says what is missing.
    let forgetful = worker(&store, Some(NEW)).await;
    forgetful.operator("ann").resume("payment", "broken", "mended").await.unwrap();
    let Outcome::Paused { reason } = again(&forgetful, "broken").await else { panic!("not paused") };
    assert!(reason.contains("the stored input cannot be read: key \"k1\" is not known"), "{reason}");
    assert_eq!(forgetful.run("payment", "PAY-2", &card()).await.unwrap(), Outcome::Completed);
    forgetful.drain().await.unwrap();

    let both = worker(&store, Some(BOTH)).await;
    let operator = both.operator("ann");
    let found = Resolution::applied(&"found in the ledger").unwrap();
    operator.resolve_step("payment", "broken", 2, found, "line 7").await.unwrap();
    assert_eq!(again(&both, "broken").await, Outcome::Completed);
    let view = both.get("payment", "broken").await.unwrap().unwrap();
    let stored = |at: usize| view.steps[at].output.as_ref().unwrap().as_json();
    assert!(stored(0).starts_with("@k1:") && stored(1).starts_with("@k2:"), "{} {}", stored(0), stored(1));
}

#[tokio::test(start_paused = true)]
async fn a_codec_can_be_added_while_plain_sagas_are_open() {
    let store = Arc::new(MemoryStore::new());
    let plain = worker(&store, None).await;
    let paused = plain.run("payment", "broken", &card()).await.unwrap();
    assert!(matches!(paused, Outcome::Paused { .. }), "{paused:?}");
    plain.drain().await.unwrap();
    let sealing = worker(&store, Some(OLD)).await;
    let _ = sealing.operator("ann").cancel("payment", "broken", "give up").await.unwrap();
    assert!(matches!(again(&sealing, "broken").await, Outcome::Compensated { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_output_given_by_an_operator_has_the_same_size_limit() {
    let store = Arc::new(MemoryStore::new());
    let orchestrator = worker(&store, None).await;
    let paused = orchestrator.run("payment", "broken", &card()).await.unwrap();
    assert!(matches!(paused, Outcome::Paused { .. }), "{paused:?}");
    let operator = orchestrator.operator("ann");
    let huge = Resolution::applied(&"x".repeat(1024 * 1024)).unwrap();
    let refused = operator.resolve_step("payment", "broken", 2, huge, "line 7").await;
    let Err(SagaError::Refused { why, .. }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("it has 1048578 bytes, the limit is 1048576"), "{why}");
    let view = orchestrator.get("payment", "broken").await.unwrap().unwrap();
    assert_eq!((view.instance.status, view.steps[1].status), (Status::Paused, StepStatus::Unknown));
}

#[tokio::test]
async fn a_key_id_that_could_not_be_read_back_does_not_start() {
    let odd = Toy { current: "a:b", keys: &[] };
    let started = Orchestrator::new(MemoryStore::new()).codec(odd).start().await;
    assert!(started.is_err());
}
