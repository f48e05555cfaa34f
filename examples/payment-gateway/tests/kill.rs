//! The gateway, killed with `kill -9` at twenty random moments under load: no payment is charged twice, and
//! none is left in a state that nobody can see.
//!
//! `PROBITY_TEST_SEED` replays the moments and the customers; the seed is printed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[expect(dead_code, reason = "here the gate in front of the channel stays open")]
mod platform;

use std::process::Command;
use std::time::Duration;

use platform::{Merchant, Platform, payment};
use serde_json::Value;
use service_shell::Pool;
use testkit::{Program, Rng};
use tokio::time::{Instant, sleep, timeout_at};

const KILLS: u32 = 20;
const CUSTOMERS: u64 = 4;
const METHODS: [&str; 6] = ["card_ok", "card_ok", "card_ok", "card_declined", "card_slow", "card_hangs"];
/// Counts from before the kills, and twenty starts take minutes on a busy machine. The test ends as soon as
/// everything rests.
const PATIENCE: Duration = Duration::from_secs(600);

/// Every limit is above one flush of a crowded disk: below that nothing is ever done in time, and the test would
/// show patience only.
fn spawn(platform: &Platform, port: u16) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payment-gateway"));
    let port_text = port.to_string();
    let own = [
        ("PORT", port_text.as_str()),
        ("SAGA_LEASE_MS", "5000"),
        ("IDEMPOTENCY_LEASE_MS", "3000"),
        ("STEP_TIMEOUT_MS", "2000"),
        ("STEP_RETRY_MS", "20"),
        ("REQUEST_WAIT_MS", "5000"),
        ("RUST_LOG", "warn"),
    ];
    for (name, value) in platform.environment(&own) {
        command.env(name, value);
    }
    let mut program = Program::spawn(command);
    program.wait_for_port(port);
    program
}

/// Repeats a request under its key until it is answered, across all kills of the gateway.
async fn until_answered(merchant: &Merchant, key: &str, body: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match timeout_at(deadline, merchant.try_pay(key, body)).await.unwrap() {
            Ok(answer) if matches!(answer.status, 201 | 202) => return answer.json(),
            // In flight, or unknown until the saga of a killed process has been taken over.
            Ok(answer) => assert!(matches!(answer.status, 409 | 503), "{answer:?}"),
            // Nobody listens, or the process died under the request.
            Err(error) => assert!(!error.is_builder(), "{error}"),
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// The state of one payment in the databases.
#[derive(Debug)]
struct Seen {
    payment_no: String,
    order_no: String,
    status: String,
    saga: Option<String>,
}

async fn payments(pool: &Pool) -> Vec<Seen> {
    let rows: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "SELECT p.payment_no, p.order_no, p.status, si.status AS saga FROM payments p
           LEFT JOIN saga_instances si ON si.business_id = p.payment_no
                AND si.business_type = 'payment' ORDER BY p.payment_no",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let seen = |(payment_no, order_no, status, saga)| Seen { payment_no, order_no, status, saga };
    rows.into_iter().map(seen).collect()
}

/// Waits until no saga is on its way any more.
async fn at_rest(pool: &Pool) -> Vec<Seen> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = payments(pool).await;
        let resting = |seen: &Seen| {
            let saga = seen.saga.as_deref().unwrap_or("none");
            match saga {
                "completed" | "compensated" => {
                    matches!(seen.status.as_str(), "success" | "failed" | "expired")
                }
                "stuck" | "paused" => true,
                _ => false,
            }
        };
        if seen.iter().all(resting) {
            return seen;
        }
        let moving: Vec<_> = seen.iter().filter(|seen| !resting(seen)).collect();
        assert!(Instant::now() < deadline, "still moving: {moving:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a saga of this round is on its way, so that on a slow machine too some kills meet one.
async fn under_way(pool: &Pool, round: u32) {
    let deadline = Instant::now() + PATIENCE;
    let accepted = async || -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT COUNT(*) FROM payments WHERE order_no LIKE $1")
            .bind(format!("S{round}-%"))
            .fetch_one(pool)
            .await
    };
    // Before the first start is through there is no table.
    while accepted().await.unwrap_or(0) == 0 {
        assert!(Instant::now() < deadline, "no payment of round {round} was accepted");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn count(pool: &Pool, sql: &'static str, number: &str) -> i64 {
    sqlx::query_scalar(sql).bind(number).fetch_one(pool).await.unwrap()
}

/// The promise: charged once, or not at all, or visibly waiting for a person.
async fn assert_charged_as_told(platform: &Platform, seen: &[Seen]) {
    let (channel, orders) = (platform.channel.open().await, platform.orders.open().await);
    for payment in seen {
        let live = "SELECT COUNT(*) FROM channel_charges WHERE payment_no = $1 AND status = 'charged'";
        let live = count(&channel, live, &payment.payment_no).await;
        let ever = "SELECT COUNT(*) FROM channel_charges WHERE payment_no = $1 AND status <> 'refused'";
        let ever = count(&channel, ever, &payment.payment_no).await;
        assert!(ever <= 1, "charged more than once: {payment:?}");
        let open = "SELECT COUNT(*) FROM orders WHERE order_no = $1 AND status IN ('pending', 'paid')";
        let open = count(&orders, open, &payment.order_no).await;
        match payment.status.as_str() {
            "success" => assert_eq!((live, open), (1, 1), "{payment:?}"),
            "failed" | "expired" => assert_eq!((live, open), (0, 0), "{payment:?}"),
            _ => assert!(matches!(payment.saga.as_deref(), Some("stuck" | "paused")), "{payment:?}"),
        }
    }
}

// proves: S-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_every_payment_is_charged_once_or_undone_or_visibly_waiting() {
    let mut rng = Rng::new(testkit::seed());
    let platform = Platform::start().await;
    let port = testkit::free_port();
    let mut gateway = spawn(&platform, port);
    let merchant = platform.merchant(&format!("http://127.0.0.1:{port}")).await;
    let pool = platform.gateway.open().await;
    let mut customers = Vec::new();
    for kill in 0..KILLS {
        for customer in 0..CUSTOMERS {
            let order_no = format!("S{kill}-{customer}");
            let (merchant, body) = (merchant.clone(), payment(&order_no, rng.pick::<&str>(&METHODS)));
            let key = format!("key-{order_no}");
            customers.push(tokio::spawn(async move {
                let told = until_answered(&merchant, &key, &body).await;
                (key, body, told)
            }));
        }
        if kill % 2 == 0 {
            under_way(&pool, kill).await;
        }
        sleep(Duration::from_millis(rng.between(1, 300))).await;
        gateway.kill9();
        gateway = spawn(&platform, port);
    }
    let mut answered = Vec::new();
    for customer in customers {
        answered.push(customer.await.unwrap());
    }
    let seen = at_rest(&pool).await;
    assert_charged_as_told(&platform, &seen).await;
    assert_eq!(seen.len(), answered.len(), "one payment per request, however often it was sent");
    for (key, body, answer) in &answered {
        let row = seen.iter().find(|row| row.payment_no == answer["payment_no"]).unwrap();
        let told = answer["status"].as_str().unwrap();
        assert!(told == row.status || told == "processing", "told {told}, but {row:?}");
        // Whatever was told first, a retry shows the payment as it is.
        assert_eq!(until_answered(&merchant, key, body).await["status"], row.status.as_str(), "{row:?}");
    }
    // What would make this test say nothing: kills that met nobody, or payments that all ended the same way.
    let all = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap() };
    assert!(all("SELECT COUNT(*) FROM saga_instances WHERE lease_epoch > 1").await > 0, "no kill met a saga");
    let declined =
        "SELECT COUNT(*) FROM payments WHERE payment_method = 'card_declined' AND status = 'success'";
    assert_eq!(all(declined).await, 0);
    for paying in [
        "SELECT COUNT(*) FROM payments WHERE payment_method = 'card_ok' AND status = 'success'",
        "SELECT COUNT(*) FROM payments WHERE payment_method <> 'card_ok' AND status = 'success'",
    ] {
        assert!(all(paying).await > 0, "{paying}");
    }
    let by_end = |status: &str| seen.iter().filter(|row| row.status == status).count();
    println!(
        "{KILLS} kills, {} payments: {} success, {} failed, {} waiting for a person",
        seen.len(),
        by_end("success"),
        by_end("failed"),
        seen.len() - by_end("success") - by_end("failed")
    );
    let resting = by_end("success") + by_end("failed");
    assert!(resting * 2 > seen.len(), "most payments need no person: {seen:?}");
    gateway.terminate();
}
