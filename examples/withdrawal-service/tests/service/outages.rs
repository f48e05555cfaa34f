//! A bank that is away for longer than anybody tries: sent ⇔ debited, or visibly open.

use std::time::Duration;

use serde_json::{Value, json};
use service_shell::Id;
use tokio::time::{Instant, sleep};

use crate::execution::{approved, balance, rest, sent, shown};
use crate::platform::{Platform, SERVICE, key};

/// The time within which everything must have come; only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The states of the withdrawal and of its saga, and the money of both sides: available, frozen, sent.
#[derive(Debug)]
struct Books {
    status: String,
    saga: String,
    money: (i64, i64, i64),
}

impl Books {
    async fn read(platform: &Platform, merchant: Id, withdrawal: &Value) -> Books {
        // The status first: what it says was so before the rest is read.
        let status = shown(platform, merchant, withdrawal).await;
        let saga = "SELECT status FROM saga_instances";
        let saga: Option<String> = sqlx::query_scalar(saga).fetch_optional(&platform.pool).await.unwrap();
        let (available, frozen) = balance(platform, merchant).await;
        let books = Books {
            status: status["status"].as_str().unwrap().to_owned(),
            saga: saga.unwrap_or_default(),
            money: (available, frozen, sent(platform).await),
        };
        match books.status.as_str() {
            "completed" => assert_eq!(books.money, (8_900, 0, 1), "{books:?}"),
            "failed" => assert_eq!(books.money, (10_000, 0, 0), "{books:?}"),
            open => assert_eq!((open, &status["reason"]), ("processing", &Value::Null), "{books:?}"),
        }
        books
    }
}

async fn until(
    platform: &Platform,
    (merchant, withdrawal): &(Id, Value),
    wanted: impl Fn(&Books) -> bool,
) -> Books {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let books = Books::read(platform, *merchant, withdrawal).await;
        if wanted(&books) {
            return books;
        }
        assert!(Instant::now() < deadline, "still {books:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the withdrawal is closed. What waits goes on by itself; what is stuck is let go on by an operator.
async fn closed(platform: &Platform, withdrawal: &(Id, Value)) -> Books {
    let books =
        until(platform, withdrawal, |books| books.saga == "stuck" || books.status != "processing").await;
    if books.saga == "stuck" {
        assert_eq!(platform.retry(&withdrawal.1).await.status(), 200);
    }
    until(platform, withdrawal, |books| books.status != "processing").await
}

/// Waits until the saga waits in the database for the bank to be back, which needs the bank's name on the step.
async fn until_it_waits_for_the_bank(platform: &Platform) {
    let waiting = "SELECT COUNT(*) FROM saga_steps WHERE error_message LIKE 'waits for bank: %'";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&platform.pool).await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "no saga waits for the bank");
        sleep(Duration::from_millis(50)).await;
    }
}

// proves: S-5
#[tokio::test]
async fn a_bank_that_cannot_be_reached_has_sent_nothing_and_the_withdrawal_says_so() {
    let platform = Platform::start().await;
    let withdrawal = approved(&platform, "acct_ok").await;
    platform.to_bank.cut();
    assert_eq!(platform.decide(&withdrawal.1, "execute", &json!({})).await.status(), 202);
    until_it_waits_for_the_bank(&platform).await;
    platform.to_bank.restore();
    assert_eq!(closed(&platform, &withdrawal).await.status, "completed");
}

// proves: S-5, S-8
#[tokio::test]
async fn a_bank_that_sends_and_dies_leaves_the_money_frozen_until_it_says_so() {
    let platform = Platform::start().await;
    let withdrawal = approved(&platform, "acct_hangs").await;
    assert_eq!(platform.decide(&withdrawal.1, "execute", &json!({})).await.status(), 202);
    until(&platform, &withdrawal, |books| books.money.2 == 1).await;
    platform.to_bank.cut();
    let away = Instant::now() + Duration::from_secs(3);
    let books = until(&platform, &withdrawal, |books| books.saga == "stuck" || Instant::now() > away).await;
    assert_eq!((books.status.as_str(), books.money), ("processing", (8_900, 1_100, 1)), "{books:?}");
    platform.to_bank.restore();
    assert_eq!(closed(&platform, &withdrawal).await.status, "completed");
}

// proves: S-5
#[tokio::test]
async fn money_that_is_not_frozen_is_not_sent_whatever_was_said_of_the_steps_before() {
    let platform = Platform::start().await;
    let withdrawal = approved(&platform, "acct_ok").await;
    platform.to_bank.cut();
    assert_eq!(platform.decide(&withdrawal.1, "execute", &json!({})).await.status(), 202);
    until_it_waits_for_the_bank(&platform).await;
    sqlx::query("UPDATE balance_entries SET status = 'cancelled' WHERE kind = 'withdrawal'")
        .execute(&platform.pool)
        .await
        .unwrap();
    platform.to_bank.restore();
    // The transfer is refused, and the freeze is given back already. The money of this test was not.
    let refused = "SELECT COUNT(*) FROM saga_instances WHERE status = 'compensated'";
    let deadline = Instant::now() + PATIENCE;
    while platform.number(refused).await == 0 {
        assert!(Instant::now() < deadline, "the transfer is not refused");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sent(&platform).await, 0);
}

// proves: S-5, S-8
#[tokio::test]
async fn a_bank_that_does_not_know_for_longer_than_a_saga_asks_is_asked_again_until_it_does() {
    let platform = Platform::start().await;
    let sent_late = approved(&platform, "acct_never_arrives").await;
    let never_sent = approved(&platform, "acct_never_arrives").await;
    for withdrawal in [&sent_late.1, &never_sent.1] {
        assert_eq!(platform.decide(withdrawal, "execute", &json!({})).await.status(), 202);
    }
    for withdrawal in [&sent_late.1, &never_sent.1] {
        assert_eq!(rest(&platform, withdrawal).await, "stuck");
    }
    platform.serve_with(&[("BANK_ASK_AGAIN_MS", "50")]).await;
    // Many questions without an answer: nothing is sent, given back or decided.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_audit").await, 0);
    assert_eq!(platform.number("SELECT CAST(SUM(frozen) AS BIGINT) FROM balances").await, 2_200);

    // The bank finds one of them, and makes sure that the other never leaves.
    let bank = format!("http://{}/api/v1/channel/transfers", platform.to_bank.address());
    let number = |withdrawal: &Value| withdrawal["withdrawal_no"].as_str().unwrap().to_owned();
    let found = json!({
        "transfer_no": number(&sent_late.1), "amount": 1_000, "currency": "USD", "account": "acct_ok",
    });
    let found =
        platform.client.post(&bank).bearer_auth(SERVICE).header("idempotency-key", key()).json(&found);
    assert_eq!(found.send().await.unwrap().status(), 201);
    let cancelled =
        platform.client.post(format!("{bank}/{}/cancel", number(&never_sent.1))).bearer_auth(SERVICE);
    assert_eq!(cancelled.send().await.unwrap().status(), 200);
    assert_eq!(rest_for_good(&platform, &sent_late.1).await, "completed");
    assert_eq!(rest_for_good(&platform, &never_sent.1).await, "compensated");
    assert_eq!(balance(&platform, sent_late.0).await, (8_900, 0));
    assert_eq!(balance(&platform, never_sent.0).await, (10_000, 0));
    assert_eq!(shown(&platform, never_sent.0, &never_sent.1).await["status"], "failed");
    assert_eq!(sent(&platform).await, 1);
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_audit WHERE actor = 'bank'").await, 2);
}

/// Waits until the saga is stuck no more, and then until it rests.
async fn rest_for_good(platform: &Platform, withdrawal: &Value) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rests = rest(platform, withdrawal).await;
        if rests != "stuck" {
            return rests;
        }
        assert!(Instant::now() < deadline, "still stuck");
        sleep(Duration::from_millis(50)).await;
    }
}
