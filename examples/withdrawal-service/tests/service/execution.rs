//! The money leaves once, or stays; while the outcome is unknown it is neither sent again nor released.

use std::time::Duration;

use serde_json::{Value, json};
use service_shell::Id;

use crate::platform::{Platform, account, entry, problem, serve, withdrawal};

const TRANSFERS: &str = "SELECT COUNT(*) FROM channel_transfers WHERE status = 'sent'";

/// An approved withdrawal of 10.00 to this account, from a balance of 100.00.
pub(crate) async fn approved(platform: &Platform, number: &str) -> (Id, Value) {
    let merchant = Id::new();
    assert_eq!(platform.post(merchant, "/api/v1/bank-accounts", &account(number)).await.status(), 201);
    let credit = entry(merchant, &format!("SETTLE-{merchant}"), 10_000);
    assert_eq!(platform.book("credits", &credit).await.status(), 201);
    let reply = platform.post(merchant, "/api/v1/withdrawals", &withdrawal(10)).await;
    let created: Value = reply.json().await.unwrap();
    (merchant, platform.approve(&created, "ada").await.json().await.unwrap())
}

pub(crate) async fn balance(platform: &Platform, merchant: Id) -> (i64, i64) {
    platform.balance(merchant, "production").await.unwrap()
}

/// Asks until the saga of this withdrawal rests and the row says so, and returns how.
pub(crate) async fn rest(platform: &Platform, withdrawal: &Value) -> String {
    let number = withdrawal["withdrawal_no"].as_str().unwrap();
    let resting = async {
        loop {
            let status: Option<String> = sqlx::query_scalar(
                "SELECT status FROM saga_instances WHERE business_id = $1
                    AND status IN ('completed', 'compensated', 'stuck', 'paused', 'aborted')",
            )
            .bind(number)
            .fetch_optional(&platform.pool)
            .await
            .unwrap();
            let open = "SELECT COUNT(*) FROM withdrawals WHERE withdrawal_no = $1 AND status = 'processing'";
            let open: i64 = sqlx::query_scalar(open).bind(number).fetch_one(&platform.pool).await.unwrap();
            match status {
                // The row follows its saga within a second.
                Some(ended) if open == 0 || !["completed", "compensated"].contains(&ended.as_str()) => {
                    return ended;
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    // What the bank cannot tell is asked for some twenty times, each of which takes the bank's whole timeout.
    tokio::time::timeout(Duration::from_secs(120), resting).await.unwrap()
}

pub(crate) async fn shown(platform: &Platform, merchant: Id, withdrawal: &Value) -> Value {
    platform.get(merchant, &format!("/api/v1/withdrawals/{}", withdrawal["id"].as_str().unwrap())).await
}

pub(crate) async fn sent(platform: &Platform) -> i64 {
    sqlx::query_scalar(TRANSFERS).fetch_one(&platform.ledger).await.unwrap()
}

#[tokio::test]
async fn an_approved_withdrawal_leaves_once_with_its_fee_whoever_executes_it_how_often() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_ok").await;
    let execute = || async { platform.decide(&withdrawal, "execute", &json!({})).await.status().as_u16() };
    assert_eq!(tokio::join!(execute(), execute(), execute()), (202, 202, 202));
    assert_eq!(rest(&platform, &withdrawal).await, "completed");
    let done = shown(&platform, merchant, &withdrawal).await;
    assert_eq!(done["status"], "completed");
    assert!(done["bank_reference"].is_string());
    assert_eq!(balance(&platform, merchant).await, (10_000 - 1_000 - 100, 0));
    assert_eq!(sent(&platform).await, 1);
    assert_eq!(platform.number("SELECT COUNT(*) FROM withdrawals WHERE executed_by = 'ada'").await, 1);
    // As one whose answer was lost, and whose repetition comes when the money has arrived.
    let late: Value = platform.decide(&withdrawal, "execute", &json!({})).await.json().await.unwrap();
    assert_eq!((late["status"].as_str(), sent(&platform).await), (Some("completed"), 1));
}

#[tokio::test]
async fn a_withdrawal_that_is_not_approved_is_not_executed() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let pending = platform.withdrawal(merchant, 10).await;
    assert_eq!(
        problem(platform.decide(&pending, "execute", &json!({})).await, 409).await["state"],
        "pending"
    );
    let path = format!("/api/v1/withdrawals/{}/execute", pending["id"].as_str().unwrap());
    problem(platform.post(merchant, &path, &json!({})).await, 401).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_instances").await, 0);
}

#[tokio::test]
async fn a_refused_transfer_gives_the_money_back_and_says_why() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_declined").await;
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "compensated");
    let failed = shown(&platform, merchant, &withdrawal).await;
    assert_eq!(failed["status"], "failed");
    assert!(failed["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{failed}");
    assert_eq!(balance(&platform, merchant).await, (10_000, 0));
    assert_eq!(sent(&platform).await, 0);
}

#[tokio::test]
async fn a_balance_that_is_too_small_fails_the_withdrawal_and_the_bank_is_not_asked() {
    let platform = Platform::start().await;
    let (merchant, first) = approved(&platform, "acct_ok").await;
    let reply = platform.post(merchant, "/api/v1/withdrawals", &withdrawal(95)).await;
    let second: Value = reply.json().await.unwrap();
    let second: Value = platform.approve(&second, "ada").await.json().await.unwrap();
    platform.decide(&first, "execute", &json!({})).await;
    assert_eq!(rest(&platform, &first).await, "completed");
    platform.decide(&second, "execute", &json!({})).await;
    assert_eq!(rest(&platform, &second).await, "compensated");
    let failed = shown(&platform, merchant, &second).await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("failed"), &json!("insufficient_balance")));
    assert_eq!(balance(&platform, merchant).await, (8_900, 0));
    assert_eq!(sent(&platform).await, 1);
}

// proves: S-5
#[tokio::test]
async fn a_balance_that_is_too_small_fails_the_withdrawal_although_the_bank_is_away_and_its_reason_cannot_be_kept()
 {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_ok").await;
    sqlx::query("UPDATE balances SET available = 5").execute(&platform.pool).await.unwrap();
    let refuse_the_reason = if service_shell::POSTGRES {
        "ALTER TABLE withdrawals ADD CHECK (reason IS NULL OR status <> 'processing')"
    } else {
        "CREATE TRIGGER no_reason BEFORE UPDATE ON withdrawals
           WHEN NEW.reason IS NOT NULL AND NEW.status = 'processing'
         BEGIN SELECT RAISE(ABORT, 'no reason'); END"
    };
    sqlx::query(refuse_the_reason).execute(&platform.pool).await.unwrap();
    platform.to_bank.cut();
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "compensated");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "failed");
    assert_eq!(balance(&platform, merchant).await, (5, 0));
}

// proves: S-5
#[tokio::test]
async fn an_account_that_the_bank_does_not_know_is_refused_and_the_refusal_is_in_its_ledger() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "DE00-unknown").await;
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "compensated");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "failed");
    assert_eq!((balance(&platform, merchant).await, sent(&platform).await), ((10_000, 0), 0));
    let refused = "SELECT COUNT(*) FROM channel_transfers WHERE status = 'refused'";
    assert_eq!(sqlx::query_scalar::<_, i64>(refused).fetch_one(&platform.ledger).await.unwrap(), 1);
}

// proves: S-9
#[tokio::test]
async fn money_whose_freeze_cannot_be_recorded_is_not_frozen() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_ok").await;
    let refuse_the_record = if service_shell::POSTGRES {
        "ALTER TABLE saga_heads ADD CHECK (current_step <> 1)"
    } else {
        "CREATE TRIGGER no_record BEFORE UPDATE ON saga_heads WHEN NEW.current_step = 1
         BEGIN SELECT RAISE(ABORT, 'no record'); END"
    };
    sqlx::query(refuse_the_record).execute(&platform.pool).await.unwrap();
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "paused");
    assert_eq!(balance(&platform, merchant).await, (10_000, 0));
    assert_eq!(platform.number("SELECT COUNT(*) FROM balance_entries WHERE kind = 'withdrawal'").await, 0);
    assert_eq!(sent(&platform).await, 0);
}

#[tokio::test]
async fn an_answer_that_never_came_is_asked_for_and_the_money_leaves_once() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_hangs").await;
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "completed");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "completed");
    assert_eq!(balance(&platform, merchant).await, (8_900, 0));
    assert_eq!(sent(&platform).await, 1);
}

#[tokio::test]
async fn what_the_bank_cannot_tell_stays_frozen_and_visible() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_never_arrives").await;
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "stuck");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "processing");
    assert_eq!(balance(&platform, merchant).await, (8_900, 1_100));
    assert_eq!(sent(&platform).await, 0);
}

#[tokio::test]
async fn a_withdrawal_whose_process_died_before_its_saga_began_is_finished_by_the_next_start() {
    let mut platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_ok").await;
    // What a crash between the commit of the intent and the start of the saga leaves.
    sqlx::query("UPDATE withdrawals SET status = 'processing'").execute(&platform.pool).await.unwrap();
    platform.base = serve(platform.settings.clone()).await;
    assert_eq!(rest(&platform, &withdrawal).await, "completed");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "completed");
    assert_eq!(sent(&platform).await, 1);
}

/// A purge forgets the saga of a withdrawal that has ended, and nothing begins again; a stuck one stays.
#[tokio::test]
async fn an_old_saga_is_forgotten_and_its_withdrawal_stays_as_it_ended() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = approved(&platform, "acct_ok").await;
    let (_, doubtful) = approved(&platform, "acct_never_arrives").await;
    for withdrawal in [&withdrawal, &doubtful] {
        assert_eq!(platform.decide(withdrawal, "execute", &json!({})).await.status(), 202);
    }
    assert_eq!(rest(&platform, &withdrawal).await, "completed");
    assert_eq!(rest(&platform, &doubtful).await, "stuck");
    let purging = platform.serve_with(&[("PURGE_EVERY_MS", "50"), ("SAGA_KEEP_MS", "1")]).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while platform.number("SELECT COUNT(*) FROM saga_instances WHERE status = 'completed'").await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the saga is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = platform.decide(&withdrawal, "execute", &json!({})).await;
    assert_eq!(late.json::<Value>().await.unwrap()["status"], "completed");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "completed");
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_instances").await, 1, "the stuck one");
    assert_eq!((balance(&platform, merchant).await, sent(&platform).await), ((8_900, 0), 1));
    let metrics =
        platform.client.get(format!("{purging}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"purged_rows_total{service="withdrawal-service",rows="sagas"}"#), "{metrics}");
}
