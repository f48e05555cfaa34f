//! The runbook: a reader who has only `docs/RUNBOOK.md` finds, understands and resolves a stuck payment.

use std::time::Duration;

use serde_json::Value;
use service_shell::Operators;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::platform::{Merchant, Platform, payment};
use super::{pay, setup, word};

const RUNBOOK: &str = include_str!("../../../../docs/RUNBOOK.md");

/// Short tries: the saga is stuck soon.
const SHORT: [(&str, &str); 6] = [
    ("STEP_TIMEOUT_MS", "400"),
    ("STEP_RETRY_MS", "1"),
    ("STEP_PATIENCE", "2"),
    ("PROVIDER_PAUSE_MS", "5"),
    ("SAGA_POLL_MS", "50"),
    ("REQUEST_WAIT_MS", "100"),
];

/// Only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The commands of the page, from the first one after the variables are set.
fn commands() -> Vec<&'static str> {
    let blocks = RUNBOOK.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.filter(|block| !block.starts_with("export")).collect()
}

/// A person with the page, a shell and a token.
struct Reader {
    service: String,
    /// The last saga that was shown.
    seen: Value,
}

impl Reader {
    /// Runs a command as it stands, with the number and the version of the saga that was seen in the places for them.
    async fn run(&mut self, command: &str) -> Value {
        let mut filled = command.to_owned();
        if let Some(number) = self.seen["business_id"].as_str() {
            filled = filled.replace("PAY-…", number);
        }
        if let Some(version) = self.seen["row_version"].as_i64() {
            filled = filled.replace("\"row_version\": 7", &format!("\"row_version\": {version}"));
        }
        let mut shell = Command::new("bash");
        shell.args(["-c", &filled]).env("SERVICE", &self.service).env("NO_PROXY", "*");
        let output = shell.env("TOKEN", Operators::token_for_this_machine("ann")).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{filled}\n{text}"));
        if answer["row_version"].is_i64() {
            self.seen = answer.clone();
        }
        answer
    }
}

/// The channel charges, and is away before it answers, until the undo is stuck.
async fn stuck() -> (Platform, Merchant, Reader) {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.keep_answers();
    let body = payment("A-1", "card_ok");
    let outage = async {
        platform.gate.answered(1).await;
        platform.to_channel.cut();
    };
    let (first, ()) = tokio::join!(pay(&merchant, "key-1", &body), outage);
    assert_eq!(first.status, 202, "{first:?}");
    let deadline = Instant::now() + PATIENCE;
    while word(&platform.gateway, "SELECT status FROM saga_instances").await != "stuck" {
        assert!(Instant::now() < deadline, "it is not stuck");
        sleep(Duration::from_millis(50)).await;
    }
    let reader = Reader { service: merchant.base.clone(), seen: Value::Null };
    (platform, merchant, reader)
}

/// Finds and understands it: the first three commands.
async fn found(reader: &mut Reader) {
    let [list, show, health, ..] = commands()[..] else { panic!("the page lost commands") };
    let listed = reader.run(list).await;
    reader.seen = listed["sagas"][0].clone();
    let shown = reader.run(show).await;
    let open = shown["steps"].as_array().unwrap().iter().find(|step| step["open"] == true).unwrap();
    assert_eq!((&open["name"], &open["step"]), (&"CallPaymentChannel".into(), &2.into()), "{shown}");
    assert_eq!(shown["resumes_as"], "compensating", "{shown}");
    for verb in ["retry", "resolve"] {
        assert!(shown["verbs"].as_array().unwrap().iter().any(|can| can["verb"] == verb), "{shown}");
    }
    assert!(reader.run(health).await["status"].is_string());
}

/// Looks by the last command of the page until the saga has its end, and tells the last entry of the audit.
async fn verified(reader: &mut Reader) -> (String, Value) {
    let verify = *commands().last().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = reader.run(verify).await;
        let status = shown["status"].as_str().unwrap().to_owned();
        if status == "completed" || status == "compensated" {
            return (status, shown["audit"].as_array().unwrap().last().unwrap().clone());
        }
        assert!(Instant::now() < deadline, "{shown}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The end of the payment, which follows its saga within a second.
async fn told_to_the_merchant(platform: &Platform) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = word(&platform.gateway, "SELECT status FROM payments").await;
        if status != "processing" {
            return status;
        }
        assert!(Instant::now() < deadline, "the payment has no end");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stuck_payment_whose_channel_is_back_is_resolved_by_the_page_alone() {
    let (platform, _merchant, mut reader) = stuck().await;
    found(&mut reader).await;
    platform.gate.answer_again();
    platform.to_channel.restore();
    let [.., retry, _resolve, _verify] = commands()[..] else { panic!("the page lost commands") };
    reader.run(retry).await;
    let (status, audit) = verified(&mut reader).await;
    assert_eq!(
        (&audit["actor"], &audit["reason"]),
        (&"ann".into(), &"the channel is back".into()),
        "{audit}"
    );
    let end = told_to_the_merchant(&platform).await;
    assert_eq!(end, if status == "completed" { "success" } else { "failed" });
}

#[tokio::test]
async fn a_stuck_payment_whose_channel_is_gone_is_resolved_by_the_page_with_evidence() {
    let (platform, _merchant, mut reader) = stuck().await;
    found(&mut reader).await;
    let [.., resolve, _verify] = commands()[..] else { panic!("the page lost commands") };
    reader.run(resolve).await;
    let (status, audit) = verified(&mut reader).await;
    assert_eq!(status, "compensated");
    let evidence = "voided in the dashboard of the channel, ticket 17";
    assert_eq!((&audit["actor"], &audit["reason"]), (&"ann".into(), &evidence.into()), "{audit}");
    assert_eq!(told_to_the_merchant(&platform).await, "failed");
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "cancelled");
}
