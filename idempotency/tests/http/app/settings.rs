//! A service chooses the parts of the fingerprint, and the names and the format of refusals.

use http::HeaderName;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use probity_idempotency::layer::FingerprintRules;

use super::*;

fn typed(content_type: &str, body: &str) -> Request<Body> {
    let mut request = request(Some("k"), body);
    request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
    request
}

fn paying(layer: IdempotencyLayer) -> Router {
    answering(layer, &Count::default(), || Response::new(Body::from("paid")))
}

async fn told(app: &Router, request: Request<Body>) -> String {
    call(app, request).await.headers()["idempotency-status"].to_str().unwrap().to_owned()
}

// proves: I-3
#[tokio::test]
async fn another_spelling_of_a_request_has_the_same_fingerprint() {
    let form = |boundary: &str, amount: u32| {
        let body = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"amount\"\r\n\r\n{amount}\r\n--{boundary}--\r\n"
        );
        typed(&format!("multipart/form-data; boundary={boundary}"), &body)
    };
    let app = paying(layer());
    for (request, expected) in
        [(form("one", 100), "created"), (form("two", 100), "replayed"), (form("three", 900), "mismatch")]
    {
        assert_eq!(told(&app, request).await, expected);
    }
    let app = paying(layer());
    for (request, expected) in [
        (typed("application/json", "{}"), "created"),
        (typed("Application/Json; charset=utf-8", "{}"), "replayed"),
        (typed("application/json; version=2", "{}"), "mismatch"),
        (typed("application/json", "{ }"), "mismatch"),
    ] {
        assert_eq!(told(&app, request).await, expected);
    }
}

// proves: I-3
#[tokio::test]
async fn a_service_chooses_the_parts_of_the_fingerprint() {
    let rules = FingerprintRules::new()
        .canonical_json()
        .ignore_field("/sent_at")
        .header(HeaderName::from_static("api-version"));
    let app = paying(layer().fingerprint(rules));
    let json = |body: &str| typed("application/json", body);
    let mut versioned = json(r#"{"amount":1}"#);
    versioned.headers_mut().insert("api-version", "2".parse().unwrap());
    for (request, expected) in [
        (json(r#"{"amount":1,"sent_at":1}"#), "created"),
        (json(r#"{ "sent_at":2, "amount" : 1 }"#), "replayed"),
        (json(r#"{"amount":1}"#), "replayed"),
        (json(r#"{"amount":2}"#), "mismatch"),
        (json(r#"{"amount":1.0}"#), "mismatch"),
        (versioned, "mismatch"),
    ] {
        assert_eq!(told(&app, request).await, expected);
    }
}

#[tokio::test]
async fn refusals_use_the_names_that_the_service_chose() {
    let layer = layer()
        .key_header(HeaderName::from_static("x-payment-key"))
        .problem_base("https://docs.example/problems#");
    let app = paying(layer.clone());
    let refused = call(&app, request(Some("k"), "{}")).await;
    let document: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(document["type"], "https://docs.example/problems#key-missing");
    assert_eq!(document["title"], "x-payment-key is missing");
    let keyed = |key: &str| {
        let mut request = request(None, "{}");
        request.headers_mut().insert("x-payment-key", key.parse().unwrap());
        request
    };
    assert_eq!(told(&app, keyed("k-1")).await, "created");
    assert_eq!(told(&app, keyed("k-1")).await, "replayed");
    // Looks of its own, too; what clients rely on stays.
    let app = paying(layer.response_cap(1).render(|problem| {
        let mut response = Response::new(format!("{} ({})", problem.name, problem.status.as_u16()).into());
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    }));
    assert_eq!(told(&app, keyed("k-2")).await, "created");
    let refused = call(&app, keyed("k-2")).await;
    assert_eq!(
        (refused.status(), &refused.body()[..]),
        (StatusCode::IM_A_TEAPOT, &b"not-replayable (409)"[..])
    );
    assert_eq!(refused.headers()["idempotency-status"], "not-replayable");
}

#[tokio::test]
async fn a_header_outside_of_the_list_is_replayed_if_it_is_kept() {
    let answer =
        || Response::builder().header("x-payment", "7").header("x-request", "8").body(Body::empty()).unwrap();
    let app = answering(layer().keep_header(HeaderName::from_static("x-payment")), &Count::default(), answer);
    let _ = call(&app, request(Some("k"), "{}")).await;
    let replay = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(
        (replay.headers()["x-payment"].as_bytes(), replay.headers().get("x-request")),
        (&b"7"[..], None)
    );
}

#[test]
#[should_panic(expected = "belongs to one delivery")]
fn a_header_that_frames_an_answer_cannot_be_kept() {
    let _ = layer().keep_header(CONTENT_LENGTH);
}
