//! Operators find a saga that waits for a person, understand it, and decide about it, two of them where it is much money.

use http::Method;
use serde_json::{Value, json};

use crate::execution::{approved, balance, rest, sent, shown};
use crate::platform::{Platform, SERVICE, problem, saga_of};

/// A withdrawal of 10.00 whose transfer the bank cannot tell: stuck, with the money frozen.
async fn stuck(platform: &Platform) -> (service_shell::Id, Value) {
    let (merchant, withdrawal) = approved(platform, "acct_never_arrives").await;
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(platform, &withdrawal).await, "stuck");
    (merchant, withdrawal)
}

async fn send(platform: &Platform, operator: &str, path: &str, body: &Value) -> reqwest::Response {
    platform.operator(operator, Method::POST, path).json(body).send().await.unwrap()
}

async fn read(platform: &Platform, path: &str) -> Value {
    platform.operator("eve", Method::GET, path).send().await.unwrap().json().await.unwrap()
}

// proves: S-8
#[tokio::test]
async fn two_operators_resolve_a_stuck_withdrawal_and_the_audit_names_both() {
    let platform = Platform::start().await;
    let (merchant, withdrawal) = stuck(&platform).await;
    let found = read(&platform, "/api/v1/sagas?status=stuck&type=withdrawal").await;
    assert_eq!(found["sagas"][0]["business_id"], withdrawal["withdrawal_no"]);
    let saga = platform.saga(&withdrawal).await;
    let open = saga["steps"].as_array().unwrap().iter().find(|step| step["open"] == true).unwrap();
    assert_eq!(open["name"], "BankTransfer");
    let verbs: Vec<&Value> = saga["verbs"].as_array().unwrap().iter().map(|verb| &verb["verb"]).collect();
    assert_eq!(verbs, ["retry", "resolve", "compensate", "abort"]);

    let resolve = format!("{}/resolve", saga_of(&withdrawal));
    let mut decision = json!({
        "row_version": saga["row_version"], "reason": "call 4711 with the bank", "step": open["step"],
        "outcome": "not_applied",
    });
    let asked = send(&platform, "ada", &resolve, &decision).await;
    assert_eq!(asked.status(), 202);
    let confirm = asked.json::<Value>().await.unwrap()["confirm"].as_str().unwrap().to_owned();
    assert_eq!(platform.saga(&withdrawal).await["status"], "stuck", "one operator is not enough");
    let waiting = read(&platform, "/api/v1/saga-decisions").await;
    assert_eq!(waiting["decisions"][0]["asked_by"], "ada");
    assert_eq!(waiting["decisions"][0]["decision"], decision);
    let own = problem(send(&platform, "ada", &confirm, &json!({})).await, 409).await;
    assert!(own["type"].as_str().unwrap().ends_with("#second-operator-needed"), "{own}");
    problem(send(&platform, "eve", &confirm, &json!({})).await, 403).await;
    assert_eq!(send(&platform, "bob", &confirm, &json!({})).await.status(), 200);
    problem(send(&platform, "bob", &confirm, &json!({})).await, 404).await;

    assert_eq!(rest(&platform, &withdrawal).await, "compensated");
    assert_eq!(shown(&platform, merchant, &withdrawal).await["status"], "failed");
    assert_eq!((balance(&platform, merchant).await, sent(&platform).await), ((10_000, 0), 0));
    let saga = platform.saga(&withdrawal).await;
    assert_eq!(saga["audit"][0]["actor"], "ada, confirmed by bob");
    assert_eq!(saga["audit"][0]["reason"], "call 4711 with the bank");
    assert_eq!(saga["verbs"], json!([]));

    decision["row_version"] = saga["row_version"].clone();
    problem(send(&platform, "ada", &resolve, &decision).await, 409).await;
    assert_eq!(
        platform.number("SELECT COUNT(*) FROM saga_audit").await,
        1,
        "an ended saga is not decided again"
    );
}

#[tokio::test]
async fn a_decision_of_the_wrong_person_or_about_an_older_state_changes_nothing() {
    let platform = Platform::start().await;
    let (_, withdrawal) = stuck(&platform).await;
    let retry = format!("{}/retry", saga_of(&withdrawal));
    let version = platform.saga(&withdrawal).await["row_version"].as_i64().unwrap();
    let now = json!({"row_version": version, "reason": "the bank is back"});

    problem(send(&platform, "mallory", &retry, &now).await, 401).await;
    let service =
        platform.client.post(platform.url(&retry)).bearer_auth(SERVICE).json(&now).send().await.unwrap();
    problem(service, 401).await;
    assert_eq!(problem(send(&platform, "eve", &retry, &now).await, 403).await["role"], "act");
    let old = json!({"row_version": version - 1, "reason": "the bank is back"});
    let moved = problem(send(&platform, "ada", &retry, &old).await, 409).await;
    assert!(moved["type"].as_str().unwrap().ends_with("#saga-moved"), "{moved}");
    for (verb, body, field) in [
        ("retry", json!({"row_version": version, "reason": " "}), "reason"),
        ("retry", json!({"row_version": version, "reason": "x", "step": 3}), "step"),
        ("resolve", json!({"row_version": version, "reason": "x"}), "step"),
        (
            "resolve",
            json!({"row_version": version, "reason": "x", "step": 3, "outcome": "applied"}),
            "output",
        ),
        ("forget", now.clone(), "verb"),
    ] {
        let answer = send(&platform, "ada", &format!("{}/{verb}", saga_of(&withdrawal)), &body).await;
        assert_eq!(problem(answer, 422).await["field"], field);
    }
    let resume = send(&platform, "ada", &format!("{}/resume", saga_of(&withdrawal)), &now).await;
    problem(resume, 409).await;
    problem(send(&platform, "ada", "/api/v1/sagas/withdrawal/WD-none/retry", &now).await, 404).await;
    let counts = "SELECT (SELECT COUNT(*) FROM saga_audit) + (SELECT COUNT(*) FROM saga_decisions)";
    assert_eq!(platform.number(counts).await, 0);
    assert_eq!(platform.saga(&withdrawal).await["row_version"], version);
}

#[tokio::test]
async fn many_sagas_are_retried_at_once_and_a_preview_changes_nothing() {
    let platform = Platform::start().await;
    let (_, withdrawal) = stuck(&platform).await;
    let saga = platform.saga(&withdrawal).await;
    let number = withdrawal["withdrawal_no"].as_str().unwrap();
    let seen = |version: &Value| json!({"type": "withdrawal", "business_id": number, "row_version": version});
    let retries = |preview: bool, version: &Value| {
        let none = json!({"type": "withdrawal", "business_id": "WD-none", "row_version": 1});
        json!({"sagas": [seen(version), none], "reason": "the bank is back", "preview": preview})
    };
    let path = "/api/v1/saga-retries";
    let answers = async |preview| -> Value {
        let answer = send(&platform, "ada", path, &retries(preview, &saga["row_version"])).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    };
    let preview = answers(true).await;
    assert_eq!(
        (&preview["sagas"][0]["verb"], &preview["sagas"][1]["problem"]["status"]),
        (&json!("retry"), &json!(404))
    );
    assert_eq!(platform.saga(&withdrawal).await["row_version"], saga["row_version"]);
    assert_eq!(answers(false).await["sagas"][0]["verb"], "retry");
    assert_eq!(answers(false).await["sagas"][0]["verb"], Value::Null, "it has moved");
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_audit WHERE actor = 'ada'").await, 1);
    problem(send(&platform, "eve", path, &retries(true, &saga["row_version"])).await, 403).await;
    for (business_id, reason, field) in [("WD-\u{7}", "fine", "sagas"), ("WD-1", "a\u{7}", "reason")] {
        let seen = json!({"type": "withdrawal", "business_id": business_id, "row_version": 1});
        let body = json!({"sagas": [seen], "reason": reason, "preview": false});
        assert_eq!(problem(send(&platform, "ada", path, &body).await, 422).await["field"], field);
    }
}

#[tokio::test]
async fn a_decision_that_waits_is_not_carried_out_once_the_saga_has_moved() {
    let platform = Platform::start().await;
    let (_, withdrawal) = stuck(&platform).await;
    let seen = json!({"row_version": platform.saga(&withdrawal).await["row_version"], "reason": "close it"});
    let asked = send(&platform, "ada", &format!("{}/abort", saga_of(&withdrawal)), &seen).await;
    assert_eq!(asked.status(), 202);
    let confirm = asked.json::<Value>().await.unwrap()["confirm"].as_str().unwrap().to_owned();
    assert_eq!(platform.retry(&withdrawal).await.status(), 200);
    let moved = problem(send(&platform, "bob", &confirm, &json!({})).await, 409).await;
    assert!(moved["type"].as_str().unwrap().ends_with("#saga-moved"), "{moved}");
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_audit WHERE action = 'abort'").await, 0);
    assert_eq!(
        platform.number("SELECT COUNT(*) FROM saga_decisions WHERE confirmed_by IS NOT NULL").await,
        0
    );
}

#[tokio::test]
async fn a_saga_that_runs_is_paused_before_two_operators_decide_about_much_money() {
    let platform = Platform::start().await;
    let (_, withdrawal) = approved(&platform, "acct_ok").await;
    platform.to_bank.cut();
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    let compensate = format!("{}/compensate", saga_of(&withdrawal));
    let mut seen = platform.saga(&withdrawal).await;
    while seen["status"] != "in_progress" {
        seen = platform.saga(&withdrawal).await;
    }
    let decision = json!({"row_version": seen["row_version"], "reason": "the merchant asked"});
    let refused = problem(send(&platform, "ada", &compensate, &decision).await, 409).await;
    assert!(refused["detail"].as_str().unwrap().contains("pause it first"), "{refused}");
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_decisions").await, 0);
}

#[tokio::test]
async fn the_saga_of_another_service_in_the_same_database_is_not_shown_and_not_decided() {
    let platform = Platform::start().await;
    let (_, withdrawal) = stuck(&platform).await;
    let seen =
        json!({"row_version": platform.saga(&withdrawal).await["row_version"], "reason": "it is stuck"});
    sqlx::query("UPDATE saga_heads SET business_type = 'payment'").execute(&platform.pool).await.unwrap();
    let other = format!("/api/v1/sagas/payment/{}", withdrawal["withdrawal_no"].as_str().unwrap());
    problem(platform.operator("eve", Method::GET, &other).send().await.unwrap(), 404).await;
    for verb in ["retry", "abort"] {
        problem(send(&platform, "ada", &format!("{other}/{verb}"), &seen).await, 404).await;
    }
    assert_eq!(read(&platform, "/api/v1/sagas").await["sagas"], json!([]));
    let listed = platform.operator("eve", Method::GET, "/api/v1/sagas?type=payment").send().await.unwrap();
    assert_eq!(problem(listed, 422).await["field"], "type");
    let number = withdrawal["withdrawal_no"].as_str().unwrap();
    let bulk = json!({"type": "payment", "business_id": number, "row_version": seen["row_version"]});
    let bulk = json!({"sagas": [bulk], "reason": "it is stuck", "preview": false});
    let answer: Value = send(&platform, "ada", "/api/v1/saga-retries", &bulk).await.json().await.unwrap();
    assert_eq!(answer["sagas"][0]["problem"]["status"], 404);
    assert_eq!(platform.number("SELECT COUNT(*) FROM saga_audit").await, 0);
}

#[tokio::test]
async fn a_decision_that_is_asked_for_twice_waits_once_and_one_that_cannot_be_carried_out_does_not_wait() {
    let platform = Platform::start().await;
    let (_, withdrawal) = stuck(&platform).await;
    let saga = platform.saga(&withdrawal).await;
    assert_eq!(saga["steps"][0]["output"], "Yes", "an example of what resolve takes");
    let seen = json!({"row_version": saga["row_version"], "reason": "close it"});
    let abort = format!("{}/abort", saga_of(&withdrawal));
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.push(send(&platform, "ada", &abort, &seen).await.json::<Value>().await.unwrap());
    }
    assert_eq!(asked[0], asked[1]);
    let waiting =
        async || read(&platform, "/api/v1/saga-decisions").await["decisions"].as_array().unwrap().len();
    assert_eq!(waiting().await, 1);
    let known = json!({
        "row_version": saga["row_version"], "reason": "it was never frozen", "step": 1, "outcome": "not_applied",
    });
    problem(send(&platform, "ada", &format!("{}/resolve", saga_of(&withdrawal)), &known).await, 409).await;
    assert_eq!(waiting().await, 1);
    assert_eq!(platform.retry(&withdrawal).await.status(), 200);
    assert_eq!(waiting().await, 0, "the saga has moved");
}

#[tokio::test]
async fn an_operator_who_approves_sees_what_waits() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let (one, other) = (platform.withdrawal(merchant, 10).await, platform.withdrawal(merchant, 20).await);
    let path = "/api/v1/operations/withdrawals";
    assert_eq!(read(&platform, path).await["withdrawals"], json!([one, other]));
    let shown = read(&platform, &format!("{path}/{}", one["id"].as_str().unwrap())).await;
    assert_eq!(shown, one);
    let no = json!({"reason": "unknown account"});
    assert_eq!(platform.decide(&one, "reject", &no).await.status(), 200);
    assert_eq!(read(&platform, path).await["withdrawals"], json!([other]));
    problem(platform.call(merchant, Method::GET, path).send().await.unwrap(), 401).await;
}
