//! Other services change balances once per reference, never below zero, and the ledger adds up.

use http::StatusCode;
use serde_json::{Value, json};
use service_shell::Id;

use crate::platform::{NOWHERE, Platform, SERVICE, entry, problem, serve};

/// Checks that each balance is the sum of its ledger, and that the balance of the merchant is this.
async fn holds(platform: &Platform, merchant: Id, expected: (i64, i64)) {
    assert_eq!(platform.balance(merchant, "production").await, Some(expected));
    let wrong = "SELECT COUNT(*) FROM balances b WHERE (available, frozen) <> (
        SELECT CAST(SUM(m.available) AS BIGINT), CAST(SUM(m.frozen) AS BIGINT) FROM balance_movements m
         WHERE (m.merchant_id, m.mode, m.currency) = (b.merchant_id, b.mode, b.currency))";
    assert_eq!(platform.number(wrong).await, 0, "the ledger says something else");
}

async fn kind(reply: reqwest::Response, status: u16) -> String {
    let problem = problem(reply, status).await;
    problem["type"].as_str().unwrap().rsplit_once('#').unwrap().1.to_owned()
}

async fn credited(platform: &Platform, amount: i64) -> Id {
    let merchant = Id::new();
    let credit = entry(merchant, &format!("PAY-{merchant}"), amount);
    assert_eq!(platform.book("credits", &credit).await.status(), StatusCode::CREATED);
    merchant
}

#[tokio::test]
async fn a_credit_is_booked_once_per_reference_and_mode_apart() {
    let platform = Platform::start().await;
    let merchant = Id::new();
    let credit = entry(merchant, "PAY-1", 500);
    let book = async || {
        let reply = platform.book("credits", &credit).await;
        assert_eq!(reply.status(), StatusCode::CREATED);
        reply.bytes().await.unwrap()
    };
    let answers = tokio::join!(book(), book(), book());
    assert_eq!((&answers.0, &answers.0), (&answers.1, &answers.2));
    let mut shown = credit.clone();
    shown["status"] = json!("booked");
    assert_eq!(serde_json::from_slice::<Value>(&book().await).unwrap(), shown);
    holds(&platform, merchant, (500, 0)).await;

    for (field, value) in [("amount", json!(501)), ("mode", json!("test")), ("merchant_id", json!(Id::new()))]
    {
        let mut other = credit.clone();
        other[field] = value;
        assert_eq!(kind(platform.book("credits", &other).await, 422).await, "reference-reused");
    }
    let mut test = entry(merchant, "PAY-2", 7);
    test["mode"] = json!("test");
    assert_eq!(platform.book("credits", &test).await.status(), StatusCode::CREATED);
    assert_eq!(platform.balance(merchant, "test").await, Some((7, 0)));
    holds(&platform, merchant, (500, 0)).await;
}

#[tokio::test]
async fn what_cannot_be_booked_is_refused_and_nothing_is_written() {
    let platform = Platform::start().await;
    let merchant = Id::new();
    for (field, value) in [("amount", json!(0)), ("reference", json!("")), ("currency", json!("usd"))] {
        let mut bad = entry(merchant, "PAY-1", 500);
        bad[field] = value;
        assert_eq!(problem(platform.book("credits", &bad).await, 422).await["field"], field);
    }
    for (field, value) in [("mode", json!("prod")), ("amount", json!(1.5)), ("credit_no", json!("x"))] {
        let mut bad = entry(merchant, "PAY-1", 500);
        bad[field] = value;
        problem(platform.book("credits", &bad).await, 400).await;
    }
    for path in ["credits", "debits", "freezes", "debits/PAY-1/cancel"] {
        let url = platform.url(&format!("/api/v1/balances/{path}"));
        let bare = platform.client.post(url).json(&entry(merchant, "PAY-1", 500));
        problem(bare.send().await.unwrap(), 401).await;
    }
    let query = async |query: &str| {
        let url = platform.url(&format!("/api/v1/balances?{query}"));
        platform.client.get(url).bearer_auth(SERVICE).send().await.unwrap()
    };
    problem(query("merchant_id=M-1&mode=test").await, 400).await;
    problem(query(&format!("merchant_id={NOWHERE}")).await, 400).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM balance_entries").await, 0);
}

// proves: S-5
#[tokio::test]
async fn of_debits_at_once_those_that_fit_are_taken_and_given_back_once() {
    let platform = Platform::start().await;
    let merchant = credited(&platform, 1_000).await;
    let debit = async |reference: &str| {
        platform.book("debits", &entry(merchant, reference, 400)).await.status().as_u16()
    };
    let mut taken: [u16; 4] = tokio::join!(debit("RF-1"), debit("RF-1"), debit("RF-2"), debit("RF-3")).into();
    taken.sort_unstable();
    assert!(taken == [201, 201, 201, 422] || taken == [201, 201, 422, 422], "{taken:?}");
    holds(&platform, merchant, (200, 0)).await;
    assert_eq!(
        kind(platform.book("debits", &entry(merchant, "RF-4", 201)).await, 422).await,
        "insufficient-balance"
    );
    assert_eq!(platform.number("SELECT COUNT(*) FROM balance_entries WHERE reference = 'RF-4'").await, 0);

    let first = "SELECT reference FROM balance_entries WHERE kind = 'debit' ORDER BY reference LIMIT 1";
    let first: String = sqlx::query_scalar(first).fetch_one(&platform.pool).await.unwrap();
    let cancel =
        async || platform.book(&format!("debits/{first}/cancel"), &json!({})).await.bytes().await.unwrap();
    let answers = tokio::join!(cancel(), cancel(), cancel());
    assert_eq!((&answers.0, &answers.0), (&answers.1, &answers.2));
    holds(&platform, merchant, (600, 0)).await;
    assert_eq!(
        kind(platform.book("debits", &entry(merchant, &first, 400)).await, 409).await,
        "reference-cancelled"
    );
    holds(&platform, merchant, (600, 0)).await;
}

// proves: S-5
#[tokio::test]
async fn a_cancel_before_its_debit_is_remembered_also_by_another_process() {
    let mut platform = Platform::start().await;
    let merchant = credited(&platform, 1_000).await;
    let cancelled: Value = platform.book("debits/RF-1/cancel", &json!({})).await.json().await.unwrap();
    assert_eq!((&cancelled["status"], &cancelled["amount"]), (&json!("cancelled"), &Value::Null));
    platform.base = serve(platform.settings.clone()).await;
    let late = entry(merchant, "RF-1", 400);
    for _ in 0..2 {
        assert_eq!(kind(platform.book("debits", &late).await, 409).await, "reference-cancelled");
    }
    assert_eq!(platform.book("debits/RF-1/cancel", &json!({})).await.status(), StatusCode::OK);
    holds(&platform, merchant, (1_000, 0)).await;
    // A debit and its cancel at once end cancelled, whichever comes first.
    let other = entry(merchant, "RF-2", 400);
    let nothing = json!({});
    let (_, cancel) =
        tokio::join!(platform.book("debits", &other), platform.book("debits/RF-2/cancel", &nothing));
    assert_eq!(cancel.status(), StatusCode::OK);
    holds(&platform, merchant, (1_000, 0)).await;
}

// proves: S-5
#[tokio::test]
async fn a_freeze_is_confirmed_or_cancelled_once_and_never_both() {
    let platform = Platform::start().await;
    let merchant = credited(&platform, 1_000).await;
    let freeze = async |reference: &str| platform.book("freezes", &entry(merchant, reference, 300)).await;
    let end = async |reference: &str, verb: &str| {
        platform.book(&format!("freezes/{reference}/{verb}"), &json!({})).await
    };
    for reference in ["F-1", "F-1", "F-2", "F-3"] {
        assert_eq!(freeze(reference).await.status(), StatusCode::CREATED);
    }
    assert_eq!(kind(freeze("F-4").await, 422).await, "insufficient-balance");
    holds(&platform, merchant, (100, 900)).await;
    for _ in 0..2 {
        assert_eq!(end("F-1", "confirm").await.status(), StatusCode::OK);
        assert_eq!(end("F-2", "cancel").await.status(), StatusCode::OK);
    }
    holds(&platform, merchant, (400, 300)).await;
    assert_eq!(kind(end("F-1", "cancel").await, 409).await, "freeze-confirmed");
    assert_eq!(kind(end("F-2", "confirm").await, 409).await, "reference-cancelled");
    assert_eq!(kind(freeze("F-2").await, 409).await, "reference-cancelled");
    assert_eq!(freeze("F-1").await.status(), StatusCode::CREATED, "a repetition is answered");
    problem(end("F-9", "confirm").await, 404).await;
    let (confirm, cancel) = tokio::join!(end("F-3", "confirm"), end("F-3", "cancel"));
    let mut statuses = [confirm.status().as_u16(), cancel.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let spent = if confirm.status() == StatusCode::OK { 400 } else { 700 };
    holds(&platform, merchant, (spent, 0)).await;
    // A cancel that comes first is remembered; the freezes of withdrawals are not reached by these routes.
    assert_eq!(end("F-5", "cancel").await.status(), StatusCode::OK);
    assert_eq!(kind(freeze("F-5").await, 409).await, "reference-cancelled");
    holds(&platform, merchant, (spent, 0)).await;
}
