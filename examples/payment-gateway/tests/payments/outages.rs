//! Neighbours that are away for longer than anybody tries: what is not known is never told as failed, and money that
//! was taken is given back or belongs to a paid order.

use std::time::Duration;

use serde_json::{Value, json};
use service_shell::Operators;
use tokio::time::{Instant, sleep, timeout};

use crate::platform::{Answer, Merchant, Platform, payment, read};
use crate::{pay, pay_and_look, setup};

/// The steps wait as short as they can for a neighbour, and the request does not wait for them.
const SHORT: [(&str, &str); 6] = [
    ("STEP_TIMEOUT_MS", "400"),
    ("STEP_RETRY_MS", "1"),
    ("STEP_PATIENCE", "2"),
    ("PROVIDER_PAUSE_MS", "5"),
    ("SAGA_POLL_MS", "50"),
    ("REQUEST_WAIT_MS", "100"),
];

/// The time within which everything must have come; only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The state of the only payment in the databases of three services.
#[derive(Debug, PartialEq, Eq)]
struct Books {
    payment: String,
    saga: String,
    order: String,
    charged: i64,
}

impl Books {
    fn new(payment: &str, saga: &str, order: &str, charged: i64) -> Books {
        let [payment, saga, order] = [payment, saga, order].map(str::to_owned);
        Books { payment, saga, order, charged }
    }

    async fn read(platform: &Platform) -> Books {
        let word = async |place: &crate::Place, sql| crate::word(place, sql).await;
        Books {
            payment: word(&platform.gateway, "SELECT status FROM payments").await,
            saga: word(&platform.gateway, "SELECT status FROM saga_instances").await,
            order: word(&platform.orders, "SELECT status FROM orders").await,
            charged: crate::charges(platform).await,
        }
    }

    /// Fails unless they agree as far as they must at every moment.
    fn assert_honest(&self) {
        match self.payment.as_str() {
            "success" => assert_eq!((self.order.as_str(), self.charged), ("paid", 1), "{self:?}"),
            "failed" => assert_eq!((self.order.as_str(), self.charged), ("cancelled", 0), "{self:?}"),
            open => assert_eq!(open, "processing", "{self:?}"),
        }
        let charge_in_doubt = self.charged == 1 && self.order == "cancelled";
        assert!(!charge_in_doubt, "the order is cancelled before the charge is settled: {self:?}");
    }
}

/// Reads the books until they are as wanted, and fails if they are not honest all the time.
async fn until(platform: &Platform, wanted: impl Fn(&Books) -> bool) -> Books {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let books = Books::read(platform).await;
        books.assert_honest();
        if wanted(&books) {
            return books;
        }
        assert!(Instant::now() < deadline, "still {books:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the payment is closed. What waits goes on by itself; what is stuck is let go on by an operator.
async fn closed(platform: &Platform, merchant: &Merchant, payment_no: &str) -> Books {
    let token = Operators::token_for_this_machine("ann");
    let url = format!("{}/api/v1/sagas/payment/{payment_no}", merchant.base);
    let books = until(platform, |books| books.saga == "stuck" || books.payment != "processing").await;
    if books.saga == "stuck" {
        let seen = read(merchant.http.get(&url).bearer_auth(&token)).await.unwrap().json();
        let decision = json!({"row_version": seen["row_version"], "reason": "the neighbours are back"});
        let retry = merchant.http.post(format!("{url}/retry")).bearer_auth(&token).json(&decision);
        let answer = read(retry).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    until(platform, |books| books.payment != "processing").await
}

fn number(answer: &Answer) -> String {
    answer.json()["payment_no"].as_str().unwrap().to_owned()
}

/// An open payment is told as open, by its answer, by the repetition of that and by a look.
async fn assert_told_as_open(merchant: &Merchant, body: &Value, first: &Answer) {
    let again = pay(merchant, "key-1", body).await;
    let path = format!("/api/v1/payments/{}", number(first));
    let looked = merchant.get(&path).await.unwrap().json();
    for told in [&first.json(), &again.json(), &looked] {
        assert_eq!(
            (&told["status"], &told["failure_reason"]),
            (&json!("processing"), &Value::Null),
            "{told}"
        );
    }
    assert_eq!((first.status, again.status), (202, 202));
}

/// The order service refuses connections from the charge on, until the saga is so.
async fn order_service_is_away_until(saga: impl Fn(&str) -> bool) {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    let first = pay(&merchant, "key-1", &body);
    let outage = async {
        platform.gate.arrived(1).await;
        platform.to_orders.cut();
        platform.gate.reopen();
    };
    let (first, ()) = tokio::join!(first, outage);
    until(&platform, |books| saga(&books.saga)).await;
    assert_told_as_open(&merchant, &body, &first).await;
    platform.to_orders.restore();
    let books = closed(&platform, &merchant, &number(&first)).await;
    let paid = Books::new("success", "completed", "paid", 1);
    let undone = Books::new("failed", "compensated", "cancelled", 0);
    assert!(books == paid || books == undone, "{books:?}");
}

// proves: S-12
#[tokio::test]
async fn a_charge_whose_order_service_is_away_for_longer_than_the_tries_is_never_told_as_failed() {
    order_service_is_away_until(|saga| matches!(saga, "compensating" | "stuck")).await;
}

// proves: S-12
#[tokio::test]
async fn a_charge_whose_order_service_is_away_for_longer_than_the_undos_is_never_told_as_failed() {
    order_service_is_away_until(|saga| saga == "stuck").await;
}

// proves: S-5, S-8, S-13
#[tokio::test]
async fn a_channel_that_charges_and_dies_leaves_the_payment_open_until_it_is_back() {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.keep_answers();
    let body = payment("A-1", "card_ok");
    let first = pay(&merchant, "key-1", &body);
    let outage = async {
        platform.gate.answered(1).await;
        platform.to_channel.cut();
    };
    let (first, ()) = tokio::join!(first, outage);
    // Until the undo is exhausted.
    let books = until(&platform, |books| books.saga == "stuck").await;
    assert_eq!((books.payment.as_str(), books.order.as_str(), books.charged), ("processing", "pending", 1));
    assert_told_as_open(&merchant, &body, &first).await;
    platform.to_channel.restore();
    let books = closed(&platform, &merchant, &number(&first)).await;
    let paid = Books::new("success", "completed", "paid", 1);
    let undone = Books::new("failed", "compensated", "cancelled", 0);
    assert!(books == paid || books == undone, "{books:?}");
}

#[tokio::test]
async fn an_order_that_was_cancelled_under_a_payment_gives_the_charge_back() {
    let (platform, merchant) = setup(&[]).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    let first = pay(&merchant, "key-1", &body);
    let cancel = async {
        platform.gate.arrived(1).await;
        let orders = platform.orders.open().await;
        sqlx::query("UPDATE orders SET status = 'cancelled'").execute(&orders).await.unwrap();
        orders.close().await;
        platform.gate.reopen();
    };
    let (first, ()) = tokio::join!(first, cancel);
    assert_eq!(Books::read(&platform).await, Books::new("failed", "compensated", "cancelled", 0));
    assert_eq!((first.status, &first.json()["failure_reason"]), (201, &json!("order_not_payable")));
}

#[tokio::test]
async fn a_channel_that_hangs_does_not_stop_a_payment_that_does_not_need_it() {
    // Nothing gives a place back by itself while the test runs.
    let settings = [("SAGAS_IN_FLIGHT", "8"), ("CHANNEL_TIMEOUT_MS", "3600000"), ("REQUEST_WAIT_MS", "100")];
    let (platform, merchant) = setup(&settings).await;
    let paid = pay_and_look(&merchant, "key-0", &payment("A-0", "card_ok")).await;
    assert_eq!(paid["status"], "success");
    // The number of another order, so that the next payment for it is refused before the channel is called.
    let orders = platform.orders.open().await;
    sqlx::query("UPDATE orders SET order_no = 'TAKEN'").execute(&orders).await.unwrap();
    orders.close().await;
    platform.gate.close();
    for n in 1..=8 {
        let hangs = pay(&merchant, &format!("key-{n}"), &payment(&format!("A-{n}"), "card_ok")).await;
        assert_eq!(hangs.status, 202, "{hangs:?}");
    }
    // Half of the places are the channel's.
    platform.gate.arrived(1 + 4).await;
    let taken = payment("TAKEN", "card_ok");
    let refused = timeout(PATIENCE, pay_and_look(&merchant, "key-9", &taken)).await.expect("a place is free");
    assert_eq!(
        (&refused["status"], &refused["failure_reason"]),
        (&json!("failed"), &json!("order-number-taken"))
    );
}

/// The number of payments whose saga waits in the database, without a worker, for the order service to be back.
const WAITING: &str = "SELECT COUNT(*) FROM saga_steps WHERE error_message LIKE 'waits for order service: %'";

#[tokio::test]
async fn while_the_order_service_is_away_its_steps_wait_the_channel_is_called_and_all_is_paid_in_the_end() {
    // All tries of a payment that nobody held back would be over within a second.
    let (platform, merchant) =
        setup(&[("STEP_RETRY_MS", "1"), ("STEP_PATIENCE", "12"), ("REQUEST_WAIT_MS", "100")]).await;
    let pay = async |n| pay(&merchant, &format!("key-{n}"), &payment(&format!("A-{n}"), "card_ok")).await;
    platform.gate.close();
    assert_eq!(pay(0).await.status, 202);
    platform.gate.arrived(1).await;
    platform.to_orders.cut();
    for n in 1..=6 {
        let waits = pay(n).await;
        assert_eq!((waits.status, &waits.json()["status"]), (202, &json!("processing")), "{waits:?}");
    }
    platform.gate.reopen();
    let deadline = Instant::now() + PATIENCE;
    let (mut charged, mut waiting) = (0, 0);
    // The six have no order, and the one that is charged cannot be told of.
    while (charged, waiting) != (1, 7) {
        assert!(Instant::now() < deadline, "charged {charged}, waiting {waiting}");
        sleep(Duration::from_millis(50)).await;
        let failed = "SELECT COUNT(*) FROM payments WHERE status = 'failed'";
        assert_eq!(crate::count(&platform.gateway, failed).await, 0, "the tries of a payment are used up");
        charged = crate::charges(&platform).await;
        waiting = crate::count(&platform.gateway, WAITING).await;
    }
    platform.to_orders.restore();
    for n in 0..=6 {
        let body = payment(&format!("A-{n}"), "card_ok");
        assert_eq!(pay_and_look(&merchant, &format!("key-{n}"), &body).await["status"], "success");
    }
    assert_eq!(crate::charges(&platform).await, 7);
}

/// Waits until the undo of the only payment waits for this neighbour, and fails if it gave up before.
async fn undo_waits_for(platform: &Platform, neighbour: &str) {
    let waits = format!("waits for {neighbour}: ");
    loop {
        let books = until(platform, |books| books.saga != "in_progress").await;
        assert_eq!(books.saga, "compensating", "the undo was given up: {books:?}");
        let pool = platform.gateway.open().await;
        let errors: Vec<Option<String>> =
            sqlx::query_scalar("SELECT error_message FROM saga_steps").fetch_all(&pool).await.unwrap();
        pool.close().await;
        if errors.iter().flatten().any(|error| error.starts_with(&waits)) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A neighbour that is away is waited for; the tries of an undo would be over within a second.
const PATIENT: [(&str, &str); 6] =
    [SHORT[0], SHORT[1], ("STEP_PATIENCE", "10000"), SHORT[3], SHORT[4], SHORT[5]];

#[tokio::test]
async fn the_undo_of_an_order_waits_for_an_order_service_that_is_away() {
    let (platform, merchant) = setup(&PATIENT).await;
    platform.gate.close();
    let body = payment("A-1", "card_declined");
    let outage = async {
        platform.gate.arrived(1).await;
        platform.to_orders.cut();
        platform.gate.reopen();
        undo_waits_for(&platform, "order service").await;
    };
    let (first, ()) = tokio::join!(pay(&merchant, "key-1", &body), outage);
    assert_told_as_open(&merchant, &body, &first).await;
    platform.to_orders.restore();
    let books = until(&platform, |books| books.payment != "processing").await;
    assert_eq!(books, Books::new("failed", "compensated", "cancelled", 0));
}

#[tokio::test]
async fn the_undo_of_a_charge_waits_for_a_channel_that_is_away() {
    let (platform, merchant) = setup(&PATIENT).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    let outage = async {
        platform.gate.arrived(1).await;
        platform.to_orders.cut();
        platform.gate.reopen();
        until(&platform, |books| books.charged == 1).await;
        while crate::count(&platform.gateway, WAITING).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let (first, ()) = tokio::join!(pay(&merchant, "key-1", &body), outage);
    platform.to_channel.cut();
    let token = Operators::token_for_this_machine("ann");
    let url = format!("{}/api/v1/saga/payments/{}/compensate", merchant.base, number(&first));
    // Its tries move it, and a decision about what has moved since it was seen is refused.
    while read(merchant.http.post(&url).bearer_auth(&token)).await.unwrap().status == 409 {
        sleep(Duration::from_millis(5)).await;
    }
    undo_waits_for(&platform, "channel").await;
    platform.to_channel.restore();
    platform.to_orders.restore();
    let books = until(&platform, |books| books.payment != "processing").await;
    assert_eq!(books, Books::new("failed", "compensated", "cancelled", 0));
}
