//! Tenants: no route shows or touches what is another merchant's, or of the other mode of the same merchant.

use serde_json::{Value, json};

use super::platform::{Answer, Merchant, Platform, payment, read};
use super::{count, gateway, kind, pay};

/// The things of the owner, for which a stranger asks.
struct Owned {
    payment_no: String,
    refund_no: String,
    secret: String,
}

/// Asks for what is the owner's on one route, as a stranger would, and tells what came.
async fn ask(stranger: &Merchant, method: &str, path: &str, owned: &Owned) -> String {
    let filled = path.replace("{payment_no}", &owned.payment_no).replace("{refund_no}", &owned.refund_no);
    let got = async |path: &str| stranger.get(path).await.unwrap();
    // The keys that the owner used as well.
    let key = if path == "/api/v1/refunds" { "key-2" } else { "key-1" };
    let posted = async |body: Value| stranger.post(&filled, key, &body).await.unwrap();
    match (method, path) {
        ("get", "/api/v1/payments" | "/api/v1/refunds") => {
            items(&got(path).await, path.rsplit('/').next().unwrap())
        }
        ("get", "/api/v1/payments/{payment_no}" | "/api/v1/refunds/{refund_no}") => {
            refusal(&got(&filled).await)
        }
        // The order number is the stranger's own, although the owner used the same.
        ("post", "/api/v1/payments") => {
            let made = posted(payment("A-1", "card_ok")).await;
            assert_eq!((made.status, made.replayed), (201, false), "{made:?}");
            assert_ne!(made.json()["payment_no"], owned.payment_no.as_str());
            "one of its own".to_owned()
        }
        ("post", "/api/v1/payments/{payment_no}/cancel") => refusal(&posted(json!({})).await),
        ("post", "/api/v1/refunds") => {
            let body = json!({"payment_no": owned.payment_no, "amount": 100, "currency": "USD"});
            refusal(&posted(body).await)
        }
        ("get", "/api/v1/notifications/secret") => {
            let shown = got(path).await;
            assert_ne!(shown.body, owned.secret, "two merchants have one secret");
            "one of its own".to_owned()
        }
        // Routes of operators, channels and services: a merchant's signature opens none.
        _ => refusal(&match method {
            "get" => got(&filled).await,
            "post" => posted(json!({})).await,
            other => panic!("{other} {path} has no check of tenants"),
        }),
    }
}

fn refusal(answer: &Answer) -> String {
    format!("{} {}", answer.status, kind(answer))
}

fn items(answer: &Answer, list: &str) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("{} items", answer.json()[list].as_array().map_or(0, Vec::len))
}

#[tokio::test]
async fn no_route_shows_or_touches_what_is_anothers() {
    let platform = Platform::start().await;
    let base = gateway(&platform, &[]).await;
    let [owner, production] = platform.merchant_in_both_modes(&base).await;
    let others = [("another merchant", platform.merchant(&base).await), ("the other mode", production)];
    let text = |answer: &Answer, field: &str| answer.json()[field].as_str().unwrap().to_owned();
    let payment_no = text(&pay(&owner, "key-1", &payment("A-1", "card_ok")).await, "payment_no");
    let body = json!({"payment_no": payment_no, "amount": 100, "currency": "USD"});
    let refund_no = text(&owner.post("/api/v1/refunds", "key-2", &body).await.unwrap(), "refund_no");
    let secret = owner.get("/api/v1/notifications/secret").await.unwrap().body;
    let owned = Owned { payment_no, refund_no, secret };
    let document = read(owner.http.get(format!("{base}/openapi.json"))).await.unwrap().json();
    let mut asked = 0;
    for (who, stranger) in &others {
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().filter(|_| path.starts_with("/api/")) {
                let came = ask(stranger, method, path, &owned).await;
                eprintln!("{who}: {method} {path}: {came}");
                let nothing = ["0 items", "one of its own", "404 not-found", "401 authentication-failed"];
                assert!(nothing.contains(&came.as_str()), "{who}: {method} {path}: {came}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 18, "{asked} checks");
    assert_eq!(count(&platform.gateway, "SELECT COUNT(*) FROM refunds").await, 1);
    let kept = owner.get(&format!("/api/v1/payments/{}", owned.payment_no)).await.unwrap();
    assert_eq!(kept.json()["status"], "success");
}
