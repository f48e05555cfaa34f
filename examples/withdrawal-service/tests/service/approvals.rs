//! Approvals: an amount needs enough people, and each of them counts once.

use serde_json::{Value, json};

use http::Method;

use crate::platform::{Platform, problem, token_of};

#[tokio::test]
async fn the_last_approval_needed_approves_and_a_person_counts_once() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let large = platform.withdrawal(merchant, 1_000_000).await;
    assert_eq!(large["approvals_required"], 3);
    assert_eq!(platform.approve(&large, "ada").await.json::<Value>().await.unwrap()["status"], "pending");
    problem(platform.approve(&large, "ada").await, 409).await;
    assert_eq!(platform.approve(&large, "bob").await.json::<Value>().await.unwrap()["approvals"], 2);
    let approved: Value = platform.approve(&large, "cyd").await.json().await.unwrap();
    assert_eq!((&approved["status"], &approved["approvals"]), (&json!("approved"), &json!(3)));
    assert_eq!(problem(platform.approve(&large, "dan").await, 409).await["state"], "approved");
    assert_eq!(platform.number("SELECT COUNT(*) FROM withdrawal_approvals").await, 3);
}

#[tokio::test]
async fn of_concurrent_approvals_exactly_as_many_count_as_are_needed() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let withdrawal = platform.withdrawal(merchant, 100_000).await;
    let approve = async |person: &str| platform.approve(&withdrawal, person).await.status().as_u16();
    let (a, b, c, d) = tokio::join!(approve("ada"), approve("ada"), approve("bob"), approve("cyd"));
    let mut statuses = [a, b, c, d];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 409, 409]);
    assert_eq!(platform.number("SELECT COUNT(*) FROM withdrawal_approvals").await, 2);
    assert_eq!(platform.number("SELECT approvals FROM withdrawals WHERE status = 'approved'").await, 2);
}

#[tokio::test]
async fn an_approval_lost_after_its_commit_is_taken_over_and_counts_once() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let withdrawal = platform.withdrawal(merchant, 100_000).await;
    let path = format!("/api/v1/withdrawals/{}/approve", withdrawal["id"].as_str().unwrap());
    let approve = || async {
        let request = platform.client.post(platform.url(&path)).bearer_auth(token_of("ada"));
        let request = request.header("idempotency-key", "lost").json(&json!({}));
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let first = approve().await;
    assert_eq!(first["approvals"], 1);
    sqlx::query("DELETE FROM idempotency_records").execute(&platform.pool).await.unwrap();
    assert_eq!(approve().await, first);
}

#[tokio::test]
async fn a_key_of_an_approval_approves_no_other_withdrawal() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let (one, other) = (platform.withdrawal(merchant, 10).await, platform.withdrawal(merchant, 20).await);
    let approve = async |withdrawal: &Value| {
        sqlx::query("DELETE FROM idempotency_records").execute(&platform.pool).await.unwrap();
        let path = format!("/api/v1/withdrawals/{}/approve", withdrawal["id"].as_str().unwrap());
        let request = platform.client.post(platform.url(&path)).bearer_auth(token_of("ada"));
        request.header("idempotency-key", "day-1").json(&json!({})).send().await.unwrap()
    };
    assert_eq!(approve(&one).await.status(), 200);
    problem(approve(&other).await, 422).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM withdrawal_approvals").await, 1);
}

#[tokio::test]
async fn only_an_operator_with_the_role_approves_and_in_no_name_but_their_own() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let withdrawal = platform.withdrawal(merchant, 10).await;
    let path = format!("/api/v1/withdrawals/{}/approve", withdrawal["id"].as_str().unwrap());
    problem(platform.post(merchant, &path, &json!({})).await, 401).await;
    problem(platform.approve(&withdrawal, "mallory").await, 401).await;
    assert_eq!(problem(platform.approve(&withdrawal, "eve").await, 403).await["role"], "approve");
    let body = json!({"approver": "bob"});
    problem(platform.operator("ada", Method::POST, &path).json(&body).send().await.unwrap(), 400).await;
    assert_eq!(platform.approve(&withdrawal, "ada").await.status(), 200);
    let person = "SELECT person FROM withdrawal_approvals";
    let person: String = sqlx::query_scalar(person).fetch_one(&platform.pool).await.unwrap();
    assert_eq!(person, "ada");
    let nowhere = json!({"id": "00000000-0000-7000-8000-000000000000"});
    problem(platform.approve(&nowhere, "ada").await, 404).await;
    let silent = json!({"reason": ""});
    assert_eq!(problem(platform.decide(&withdrawal, "reject", &silent).await, 422).await["field"], "reason");
}
