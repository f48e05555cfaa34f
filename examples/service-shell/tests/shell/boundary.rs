//! The boundary of any service as a caller sees it, over real HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use service_shell::{
    BODY_LIMIT, Credential, Guarded, Health, HttpTimeouts, Json, ServiceToken, StartError, api, shell,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo {
    amount: i64,
}

async fn echo(Json(body): Json<Echo>) -> Json<Value> {
    Json(json!({"amount": body.amount}))
}

async fn explode() -> &'static str {
    assert!(std::env::args().count() == usize::MAX, "password=hunter2");
    "never"
}

fn router() -> Router {
    let token = ServiceToken::new("0123456789abcdef");
    let routes = api("Is tested.")
        .route("/private", get(async || "private"))
        .require(Credential::Service, &token)
        .route("/echo", post(echo))
        .route("/explode", get(explode))
        .route("/plain", post(async || (StatusCode::CONFLICT, "taken")));
    let health = Health::named("test").depends("wanted", false, async || Err("gone".to_owned())).depends(
        "needed",
        true,
        async || Ok(()),
    );
    shell("test", health, routes).unwrap()
}

async fn start() -> String {
    let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(service_shell::serve(listener, router(), std::future::pending()));
    format!("http://{address}")
}

fn client() -> reqwest::Client {
    service_shell::http_client(HttpTimeouts::default()).unwrap()
}

/// Asserts the shape every error has, and returns the body.
async fn problem(reply: reqwest::Response, status: u16) -> Value {
    assert_eq!(reply.status().as_u16(), status);
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    let body: Value = reply.json().await.unwrap();
    assert_eq!(body["status"], status);
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}

#[tokio::test]
async fn axums_own_refusals_are_problems_too() {
    let (base, client) = (start().await, client());
    problem(client.get(format!("{base}/nowhere")).send().await.unwrap(), 404).await;
    let wrong_method = client.get(format!("{base}/echo")).send().await.unwrap();
    assert_eq!(wrong_method.headers()["allow"], "POST");
    problem(wrong_method, 405).await;
    problem(client.post(format!("{base}/echo")).body("{}").send().await.unwrap(), 415).await;
    let plain = client.post(format!("{base}/plain")).send().await.unwrap();
    assert_eq!(problem(plain, 409).await["detail"], "taken");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_a_problem_that_says_where() {
    let (base, client) = (start().await, client());
    let send = async |body: &'static str| {
        let request = client.post(format!("{base}/echo")).header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    };
    assert_eq!(send(r#"{"amount":7}"#).await.text().await.unwrap(), r#"{"amount":7}"#);
    for body in
        ["", "{", "[]", r#"{"amount":1.5}"#, r#"{"amount":9223372036854775808}"#, r#"{"amount":1,"x":2}"#]
    {
        problem(send(body).await, 400).await;
    }
}

#[tokio::test]
async fn a_body_that_says_two_things_of_itself_or_is_coded_is_refused() {
    let (base, client) = (start().await, client());
    let send = async |headers: &[(&str, &str)]| {
        let request = client.post(format!("{base}/echo")).body(r#"{"amount":7}"#);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .send()
            .await
            .unwrap()
    };
    let json = ("content-type", "application/json");
    for kind in ["application/json; charset=utf-8", r#"APPLICATION/JSON;charset="UTF-8""#] {
        assert_eq!(
            send(&[("content-type", kind), ("content-encoding", "identity")]).await.status(),
            200,
            "{kind}"
        );
    }
    problem(send(&[json, ("content-type", "text/plain")]).await, 400).await;
    problem(send(&[("content-type", "application/json; charset=utf-16")]).await, 415).await;
    problem(send(&[json, ("content-encoding", "gzip")]).await, 415).await;
}

#[tokio::test]
async fn a_nul_in_an_address_is_a_400_before_any_database_sees_it() {
    let (base, client) = (start().await, client());
    for address in ["/echo%00", "/nowhere/%00/x", "/explode?after=a%00b"] {
        let reply = client.get(format!("{base}{address}")).send().await.unwrap();
        assert!(problem(reply, 400).await["detail"].as_str().unwrap().contains("%00"), "{address}");
    }
}

#[tokio::test]
async fn a_body_of_10_mb_is_a_413_that_the_sender_gets_to_read() {
    let (base, client) = (start().await, client());
    let big = client.post(format!("{base}/echo")).header("content-type", "application/json");
    let body = problem(big.body(vec![b' '; 10_000_000]).send().await.unwrap(), 413).await;
    assert!(body["detail"].as_str().unwrap().contains(&BODY_LIMIT.to_string()), "{body}");
    let patient = client.post(format!("{base}/echo")).header("expect", "100-continue");
    problem(patient.body(vec![b' '; 10_000_000]).send().await.unwrap(), 413).await;
}

#[tokio::test]
async fn a_panic_is_a_500_without_its_text_and_the_service_lives_on() {
    let (base, client) = (start().await, client());
    let body = problem(client.get(format!("{base}/explode")).send().await.unwrap(), 500).await;
    assert!(body["incident"].is_string() && !body.to_string().contains("hunter2"), "{body}");
    assert_eq!(client.get(format!("{base}/health/live")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_route_behind_the_service_token_answers_only_its_bearer() {
    let (base, client) = (start().await, client());
    let call = |token: &str| client.get(format!("{base}/private")).bearer_auth(token).send();
    assert_eq!(call("0123456789abcdef").await.unwrap().status(), 200);
    assert_eq!(problem(call("wrong").await.unwrap(), 401).await["detail"], "Authentication failed");
    problem(client.get(format!("{base}/private")).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn health_shows_each_dependency_and_ready_needs_only_the_required() {
    let (base, client) = (start().await, client());
    let health = client.get(format!("{base}/health")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    let health: Value = health.json().await.unwrap();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["dependencies"]["wanted"]["status"], "down");
    assert_eq!(health["dependencies"]["needed"]["status"], "ok");
    let ready: Value = client.get(format!("{base}/health/ready")).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["status"], "ok");
    assert!(ready["dependencies"].get("wanted").is_none());
}

#[tokio::test]
async fn metrics_count_requests_by_route_template() {
    let (base, client) = (start().await, client());
    client.get(format!("{base}/nowhere/at/all")).send().await.unwrap();
    client.get(format!("{base}/health/live")).send().await.unwrap();
    let text = client.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(
        text.contains(r#"http_requests_total{service="test",method="GET",route="/health/live""#),
        "{text}"
    );
    assert!(text.contains(r#"route="unmatched",status="404""#) && !text.contains("nowhere"), "{text}");
    let openapi = client.get(format!("{base}/openapi.json")).send().await.unwrap();
    assert_eq!(openapi.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn a_port_in_use_is_refused_by_its_number() {
    let taken = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = taken.local_addr().unwrap();
    let refused = service_shell::bind(address).await.expect_err("in use");
    assert!(matches!(refused, StartError::PortInUse { .. }));
    assert!(refused.to_string().contains(&format!("port {} is already in use", address.port())));
}

#[tokio::test]
async fn a_request_in_flight_at_shutdown_is_answered() {
    let (entered, mut arrived) = tokio::sync::mpsc::channel::<()>(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = move || {
        let (entered, mut released) = (entered.clone(), released.clone());
        async move {
            entered.send(()).await.unwrap();
            released.wait_for(|released| *released).await.unwrap();
            "done"
        }
    };
    let router = Router::new().route("/slow", get(slow));
    let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(service_shell::serve(listener, router, async move { drop(stopped.await) }));
    let call = tokio::spawn(client().get(format!("{base}/slow")).send());
    arrived.recv().await.unwrap();
    stop.send(()).unwrap();
    release.send_replace(true);
    assert_eq!(call.await.unwrap().unwrap().text().await.unwrap(), "done");
    server.await.unwrap().unwrap();
}

/// A connection that sends half of a head.
async fn half_open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    stream
}

#[tokio::test]
async fn connections_that_only_wait_keep_no_caller_out() {
    let (base, client) = (start().await, client());
    let address = base.strip_prefix("http://").unwrap();
    let mut waiting = Vec::new();
    for _ in 0..1200 {
        waiting.push(half_open(address).await);
    }
    let echo = client.post(format!("{base}/echo")).json(&json!({"amount": 5})).send().await.unwrap();
    assert_eq!(echo.status(), 200);
    assert_eq!(client.get(format!("{base}/health/live")).send().await.unwrap().status(), 200);
    // All but 512 of all connections are closed, the oldest first, and long before half a head is too late.
    let closed = async {
        for stream in &mut waiting[..600] {
            assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
        }
    };
    tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap();
    let mut last = waiting.pop().unwrap();
    last.write_all(b"ly\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_waited_for_ten_seconds() {
    let base = start().await;
    let started = tokio::time::Instant::now();
    let mut stream = half_open(base.strip_prefix("http://").unwrap()).await;
    let mut answer = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap());
    assert!((10..=11).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}
