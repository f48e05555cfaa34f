//! One set of records in every state, made through the layer where a request can make them; and the requests that meet
//! them later.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use probity_idempotency::layer::{ReplayBody, Verdict};
use probity_idempotency::store::*;
use probity_idempotency::*;
use tower::{ServiceBuilder, ServiceExt};

use super::v1;

type Body = Full<Bytes>;
type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
type Store = Arc<dyn IdempotencyManager>;

const SCOPE: &str = "merchant:M-1";
const BODY: &str = r#"{"amount":100}"#;

/// The token of every claim that is made without the layer. The layer draws its own: see [`TOKEN`].
const FIXED: OwnerToken = OwnerToken::from_bytes(*TOKEN);
/// Stands in a golden file where a store keeps a token.
pub(super) const TOKEN: &[u8; 16] = b"sixteen letters!";

/// The keys of the records, in the order of the golden files.
pub(super) const KEYS: [&str; 9] =
    ["paid", "paid-grpc", "secret", "busy", "job", "running", "crashed", "lost", "opaque"];

pub(super) fn record(key: &str) -> RecordId {
    RecordId::derive(&HashKey::default(), &Scope::new(SCOPE).unwrap(), &IdempotencyKey::new(key).unwrap())
}

/// Does what the key says.
async fn handler(request: Request<ReplayBody<Body>>) -> Result<Response<AnswerBody>, Infallible> {
    let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
    let answer = Response::builder().status(StatusCode::CREATED);
    let full = |text: &'static str| Full::from(text).boxed_unsync();
    let response = match key.as_str() {
        "paid" => answer
            .header("content-type", "application/json")
            .header("location", "/payments/1")
            .header("link", "</payments>; rel=collection")
            .header("link", "</refunds>; rel=related")
            .header("set-cookie", "session=belongs to one delivery")
            .body(full(r#"{"payment":"PAY-1"}"#)),
        "paid-grpc" => {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let body = Full::from("paid").with_trailers(async move { Some(Ok(trailers)) });
            answer.header("content-type", "application/grpc").body(body.boxed_unsync())
        }
        "secret" => answer.header("location", "/cards/1").extension(Verdict::NoStore).body(full("4111")),
        "busy" => answer.status(503).extension(Verdict::Retryable).body(full("")),
        again => answer.status(200).body(Full::from(format!("{again} ran again")).boxed_unsync()),
    };
    Ok(response.unwrap())
}

async fn send(store: &Store, key: &str, body: &'static str) -> String {
    let layer = IdempotencyLayer::new(Arc::clone(store)).scope(|_| Ok(Scope::new(SCOPE)?));
    let service = ServiceBuilder::new().layer(layer.effects(Effects::Marked)).service_fn(handler);
    let request = Request::post("/payments").header("idempotency-key", key);
    let request = request.header("content-type", "application/json").body(Full::from(body)).unwrap();
    shown(service.oneshot(request).await.unwrap()).await
}

/// An answer in full, its headers by name.
pub(super) async fn shown<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> String
where
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let mut text = format!("{}\n", parts.status.as_u16());
    let headers = |headers: &HeaderMap| {
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}\n")).collect();
        lines.sort();
        lines.concat()
    };
    text += &headers(&parts.headers);
    let trailers = body.trailers().map(headers).unwrap_or_default();
    let bytes = body.to_bytes();
    let shown = match serde_json::from_slice::<serde_json::Value>(&bytes) {
        // Its length follows from the detail, which is prose for people and may be worded better.
        Ok(mut problem) if problem.get("detail").is_some() => {
            problem["detail"] = "(for people)".into();
            text = text
                .lines()
                .filter(|line| !line.starts_with("content-length"))
                .fold(String::new(), |kept, line| kept + line + "\n");
            problem.to_string()
        }
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    };
    write!(text, "{shown}\n{trailers}").unwrap();
    text
}

/// A claim as the layer makes one for [`send`].
fn a_claim(key: &str, effects: Effects, lease: Duration) -> Claim {
    let parts: [&[u8]; 5] = [b"POST", b"/payments", b"application/json", b"", BODY.as_bytes()];
    Claim {
        record: record(key),
        token: FIXED,
        fingerprint: Fingerprint::of(&HashKey::default(), &parts),
        effects,
        terms: Terms {
            lease,
            lease_cap: Duration::from_secs(7200),
            retention: Duration::from_secs(24 * 3600),
        },
    }
}

/// Makes a record in every state.
pub(super) async fn fill(store: &Store) {
    for key in ["paid", "paid-grpc", "secret", "busy"] {
        send(store, key, BODY).await;
    }
    for (key, effects, lease) in [
        ("job", Effects::Local, 30),
        ("running", Effects::Local, 3600),
        ("crashed", Effects::Local, 0),
        ("lost", Effects::Marked, 0),
        ("opaque", Effects::Opaque, 0),
    ] {
        let claim = a_claim(key, effects, Duration::from_secs(lease));
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        let written = match key {
            "job" => {
                store.complete(&claim.holder(), &Recording::payload("3 rows"), claim.terms.retention).await
            }
            "lost" => store.mark_effect(&claim.holder()).await,
            _ => Ok(Written::Applied),
        };
        assert_eq!(written.unwrap(), Written::Applied);
    }
}

/// Retries every request on records that an older build stored. Every store must answer the same.
pub(super) async fn retry(store: &Store) {
    let mut answers = String::new();
    for key in KEYS.into_iter().filter(|key| *key != "job") {
        write!(answers, "## {key}\n{}\n", send(store, key, BODY).await).unwrap();
    }
    write!(answers, "## paid, with another body\n{}\n", send(store, "paid", "{}").await).unwrap();
    testkit::golden(v1!("answers.txt"), &answers);

    let job = store.get(record("job")).await.unwrap().unwrap();
    assert_eq!(job.recording, Some(Recording::payload("3 rows")));
    let attempts = [("paid", 1), ("busy", 2), ("running", 1), ("crashed", 2), ("lost", 1)];
    for (key, attempt) in attempts {
        assert_eq!(store.get(record(key)).await.unwrap().unwrap().attempt, attempt, "{key}");
    }
}
