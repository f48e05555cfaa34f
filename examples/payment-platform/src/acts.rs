//! The acts: each sends real requests, and checks what it claims in the databases and the ledger.

use std::time::Duration;

use serde_json::{Value, json};

use crate::merchant_client::Answer;
use crate::story::{Failure, World};

const PAYMENTS: &str = "/api/v1/payments";
const REFUNDS: &str = "/api/v1/refunds";

/// The same request twice: one charge, the same bytes.
pub(crate) async fn paid_once(world: &mut World) -> Result<(), Failure> {
    world.console.act("The same payment is sent twice");
    let body = payment("order-1", 4990, "card_ok");
    let first = pay(world, "key-1", &body).await?;
    world.console.checked("it was paid", (first.status, first.text("status").as_str()), (201, "success"))?;
    let again = pay(world, "key-1", &body).await?;
    world.console.checked("the second answer is a replay", again.replayed, true)?;
    world.console.checked("its bytes are the same", &again.body, &first.body)?;
    one_charge(world, &first.text("payment_no"), 1).await
}

/// The same key for something else.
pub(crate) async fn another_body_is_refused(world: &mut World) -> Result<(), Failure> {
    world.console.act("The same key with another amount");
    let before = world.evidence.payments().await?;
    let answer = pay(world, "key-1", &payment("order-1", 1, "card_ok")).await?;
    world.console.checked("it is refused, not replayed and not run", answer.status, 422)?;
    world.console.checked("no payment was added", world.evidence.payments().await?, before)
}

/// The channel refuses: the order is cancelled, the payment failed.
pub(crate) async fn declined_is_undone(world: &mut World) -> Result<(), Failure> {
    world.console.act("The channel declines the card");
    let answer = pay(world, "key-2", &payment("order-2", 12_000, "card_declined")).await?;
    world.console.checked("the payment failed", answer.text("status").as_str(), "failed")?;
    let payment_no = answer.text("payment_no");
    steps(world, &payment_no).await?;
    let traces = world.evidence.trace("order-2").await?;
    world.console.checked(
        "the order was cancelled and the saga proved its undo",
        traces.map(|t| (t.order, t.saga)),
        Some(("cancelled".to_owned(), "compensated".to_owned())),
    )?;
    one_charge(world, &payment_no, 0).await
}

/// The channel charges and never answers: unknown, so it is asked.
pub(crate) async fn silence_is_asked(world: &mut World) -> Result<(), Failure> {
    world.console.act("The channel charges, but its answer never comes");
    world.console.say("no answer is not a no: the saga asks the channel what happened to this payment");
    let answer = pay(world, "key-3", &payment("order-3", 7500, "card_hangs")).await?;
    let payment_no = answer.text("payment_no");
    steps(world, &payment_no).await?;
    world.console.checked("the payment succeeded", answer.text("status").as_str(), "success")?;
    let demands = world.evidence.demands(&payment_no).await?;
    world.console.checked("the charge was demanded once; the saga asked, and did not guess", demands, 1)?;
    one_charge(world, &payment_no, 1).await
}

/// Three refunds of 400 on 1000 at the same moment.
pub(crate) async fn no_more_is_given_back_than_was_paid(world: &mut World) -> Result<(), Failure> {
    world.console.act("Three refunds of 4.00 at once, of a payment of 10.00");
    let paid = pay(world, "key-5", &payment("order-5", 1000, "card_ok")).await?;
    let payment_no = paid.text("payment_no");
    let body = json!({"payment_no": payment_no, "amount": 400, "currency": "EUR"});
    world.console.sent(format!("POST {REFUNDS}  three times at once, each with a key of its own  {body}"));
    let merchant = world.merchant.clone();
    let (one, two, three) = tokio::join!(
        merchant.post(REFUNDS, "back-1", &body),
        merchant.post(REFUNDS, "back-2", &body),
        merchant.post(REFUNDS, "back-3", &body),
    );
    let mut statuses = Vec::new();
    for answer in [one?, two?, three?] {
        world.console.received(format!("{}  {}", answer.status, answer.summary()));
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    world.console.checked("two are given back, and one is refused", statuses, vec![201, 201, 409])?;
    let given_back = world.evidence.given_back(&payment_no).await?;
    world.console.checked("the channel has given 8.00 of 10.00 back", given_back, 800)
}

/// `kill -9` between the order and the charge, then a new start, then the merchant's retry.
pub(crate) async fn killed_and_finished(world: &mut World) -> Result<(), Failure> {
    world.console.act("The gateway is killed in the middle of a payment");
    let body = payment("order-4", 25_000, "card_slow");
    world.console.sent(format!("POST {PAYMENTS}  Idempotency-Key: key-4  {body}"));
    let merchant = world.merchant.clone();
    let sent = tokio::spawn({
        let body = body.clone();
        async move { merchant.post(PAYMENTS, "key-4", &body).await }
    });
    let payment_no = world.evidence.wait_until_at_the_channel("order-4").await?;
    world.console.say("the order exists, the charge is the next step, nobody has answered yet");
    let pid = world.gateway.pid().unwrap_or_default();
    world.gateway.kill_9().await?;
    world.console.say(format!("kill -9 {pid}"));
    let cut = sent.await.map_err(|error| Failure::setup("join the request", error))?;
    world.console.received(if cut.is_err() { "nothing: the connection broke" } else { "an answer" });
    world.console.checked("the merchant knows nothing", cut.is_err(), true)?;
    let unfinished = world.evidence.trace("order-4").await?.map(|t| (t.payment, t.saga));
    world.console.checked(
        "the payment and its saga are on disk, unfinished",
        unfinished,
        Some(("processing".to_owned(), "in_progress".to_owned())),
    )?;

    world.gateway.start_again().await?;
    world.console.say(format!("started again as process {}", world.gateway.pid().unwrap_or_default()));
    let answer = retry_until_final(world, "key-4", &body).await?;
    world.console.checked("the retry gets the real outcome", answer.text("status").as_str(), "success")?;
    world.console.checked("of the same payment", answer.text("payment_no"), payment_no.clone())?;
    steps(world, &payment_no).await?;
    one_charge(world, &payment_no, 1).await
}

/// Sends the same request again while the answer is "still running", as a merchant would.
async fn retry_until_final(world: &mut World, key: &str, body: &Value) -> Result<Answer, Failure> {
    for _ in 0..30 {
        let answer = pay(world, key, body).await?;
        if answer.status != 409 {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(Failure::Setup("the retry was still told to wait after 30 attempts".to_owned()))
}

async fn pay(world: &mut World, key: &str, body: &Value) -> Result<Answer, Failure> {
    world.console.sent(format!("POST {PAYMENTS}  Idempotency-Key: {key}  {body}"));
    let answer = world.merchant.post(PAYMENTS, key, body).await?;
    let replayed = if answer.replayed { "  Idempotent-Replayed: true" } else { "" };
    world.console.received(format!("{}{replayed}  {}", answer.status, answer.summary()));
    Ok(answer)
}

async fn steps(world: &mut World, payment_no: &str) -> Result<(), Failure> {
    for (name, status) in world.evidence.steps(payment_no).await? {
        world.console.say(format!("saga step {name}: {status}"));
    }
    Ok(())
}

async fn one_charge(world: &mut World, payment_no: &str, needed: i64) -> Result<(), Failure> {
    let charges = world.evidence.charges(payment_no).await?;
    world.console.checked(format!("charges at the channel: {needed}"), charges, needed)
}

fn payment(order_no: &str, amount: i64, method: &str) -> Value {
    json!({"order_no": order_no, "amount": amount, "currency": "EUR", "payment_method": method})
}
