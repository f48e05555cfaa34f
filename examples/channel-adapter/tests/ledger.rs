//! The channel over real HTTP: the same key never moves money twice, and a cancel is final.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::SocketAddr;

use serde_json::{Value, json};
use service_shell::{HttpTimeouts, PROBLEM_TYPES, Settings};

struct Channel {
    base: String,
    client: reqwest::Client,
    token: String,
    _folder: testkit::TempDir,
    #[cfg(feature = "postgres")]
    _database: testkit::TestDatabase,
}

impl Channel {
    async fn start() -> Channel {
        Channel::start_with(&[]).await
    }

    async fn start_with(extra: &[(&str, &str)]) -> Channel {
        testkit::time_limit();
        let folder = testkit::temp_dir();
        #[cfg(feature = "postgres")]
        let database = testkit::Postgres::shared().database();
        #[cfg(feature = "postgres")]
        let url = database.url().to_owned();
        #[cfg(not(feature = "postgres"))]
        let url = format!("sqlite:{}", folder.path().join("channel.sqlite3").display());
        let vars = [("DATABASE_URL", url.as_str())].into_iter().chain(extra.iter().copied());
        let settings = Settings::from_vars(channel_adapter::NAME, 0, vars).unwrap();
        let token = settings.service_token.text().to_owned();
        let (router, _drain) = channel_adapter::start(settings).await.unwrap();
        let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(service_shell::serve(listener, router, std::future::pending()));
        let client = service_shell::http_client(HttpTimeouts::default()).unwrap();
        Channel {
            base,
            client,
            token,
            _folder: folder,
            #[cfg(feature = "postgres")]
            _database: database,
        }
    }

    async fn post(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let call = self.client.post(format!("{}{path}", self.base)).header("idempotency-key", key).json(body);
        answer(call.bearer_auth(&self.token)).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token)).await
    }
}

async fn answer(call: reqwest::RequestBuilder) -> (u16, Value) {
    let reply = call.send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

fn payment(number: &str, method: &str) -> Value {
    json!({"payment_no": number, "amount": 1000, "currency": "USD", "payment_method": method})
}

#[tokio::test]
async fn the_same_key_charges_once_and_answers_the_same() {
    let channel = Channel::start().await;
    let body = payment("PAY-1", "card_ok");
    let (status, first) = channel.post("/api/v1/channel/payments", "k-1", &body).await;
    assert_eq!((status, &first["status"]), (201, &json!("charged")));
    assert_eq!(channel.post("/api/v1/channel/payments", "k-1", &body).await, (201, first.clone()));
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await, (200, first));
    let (status, refused) =
        channel.post("/api/v1/channel/payments", "k-1", &payment("PAY-2", "card_ok")).await;
    assert_eq!((status, &refused["type"]), (422, &json!(format!("{PROBLEM_TYPES}idempotency-key-reused"))));
}

#[tokio::test]
async fn a_declined_card_is_refused_with_its_reason_and_moves_nothing() {
    let channel = Channel::start().await;
    let body = payment("PAY-1", "card_declined");
    for _ in 0..2 {
        let (status, refused) = channel.post("/api/v1/channel/payments", "k-1", &body).await;
        assert_eq!((status, &refused["reason"]), (402, &json!("card_declined")));
    }
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.1["status"], "refused");
}

#[tokio::test]
async fn a_cancel_of_what_was_never_seen_refuses_the_charge_that_comes_late() {
    let channel = Channel::start().await;
    let (status, unknown) = channel.get("/api/v1/channel/payments/PAY-1").await;
    assert_eq!((status, &unknown["final"]), (404, &json!(false)));
    let (status, cancelled) = channel.post("/api/v1/channel/payments/PAY-1/cancel", "c-1", &json!({})).await;
    assert_eq!((status, &cancelled["voided"]), (200, &json!(false)));
    let (status, late) = channel.post("/api/v1/channel/payments", "k-1", &payment("PAY-1", "card_ok")).await;
    assert_eq!((status, &late["reason"]), (402, &json!("cancelled_before")));
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.0, 200);
}

#[tokio::test]
async fn a_cancel_voids_a_charge_and_says_so_every_time() {
    let channel = Channel::start().await;
    assert_eq!(channel.post("/api/v1/channel/payments", "k-1", &payment("PAY-1", "card_ok")).await.0, 201);
    for _ in 0..2 {
        let (status, cancelled) =
            channel.post("/api/v1/channel/payments/PAY-1/cancel", "c-1", &json!({})).await;
        assert_eq!((status, &cancelled["voided"]), (200, &json!(true)));
    }
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.1["status"], "cancelled");
}

#[tokio::test]
async fn a_charge_and_a_cancel_at_the_same_moment_never_leave_a_charge_behind() {
    let channel = Channel::start().await;
    for round in 0..10 {
        let number = format!("PAY-{round}");
        let (body, path) = (payment(&number, "card_ok"), format!("/api/v1/channel/payments/{number}/cancel"));
        let (key, nothing) = (format!("k-{round}"), json!({}));
        let (charge, cancel) = tokio::join!(
            channel.post("/api/v1/channel/payments", &key, &body),
            channel.post(&path, "c", &nothing),
        );
        assert!(matches!(charge.0, 201 | 402), "{charge:?}");
        assert_eq!(cancel.0, 200, "{cancel:?}");
        let state = channel.get(&format!("/api/v1/channel/payments/{number}")).await.1;
        assert_ne!(state["status"], "charged", "{state}");
    }
}

#[tokio::test]
async fn a_hanging_card_is_charged_although_the_answer_does_not_come() {
    let channel = Channel::start_with(&[("CHANNEL_HANG_MS", "600000")]).await;
    let body = payment("PAY-1", "card_hangs");
    let call = channel.post("/api/v1/channel/payments", "k-1", &body);
    let charged = async {
        while channel.get("/api/v1/channel/payments/PAY-1").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = call => panic!("it should hang: {answer:?}"),
        () = charged => {}
    }
    // A repeat is answered at once, with the charge of the first.
    let (status, repeated) = channel.post("/api/v1/channel/payments", "k-1", &body).await;
    assert_eq!((status, &repeated["status"]), (201, &json!("charged")));
}

#[tokio::test]
async fn a_slow_card_is_charged_even_if_the_caller_hangs_up() {
    // The caller waits long enough for its request to arrive on any machine.
    let channel = Channel::start_with(&[("CHANNEL_SLOW_MS", "4000")]).await;
    let client = service_shell::http_client(HttpTimeouts {
        total: std::time::Duration::from_secs(2),
        ..HttpTimeouts::default()
    })
    .unwrap();
    let call = client.post(format!("{}/api/v1/channel/payments", channel.base)).bearer_auth(&channel.token);
    let hung_up =
        call.header("idempotency-key", "k-1").json(&payment("PAY-1", "card_slow")).send().await.unwrap_err();
    assert!(hung_up.is_timeout() || hung_up.is_request(), "{hung_up}");
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.0, 404, "it is slow");
    while channel.get("/api/v1/channel/payments/PAY-1").await.0 != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn refunds_never_exceed_the_charge_and_stop_its_cancel() {
    let channel = Channel::start().await;
    assert_eq!(channel.post("/api/v1/channel/payments", "k-1", &payment("PAY-1", "card_ok")).await.0, 201);
    let refund = |number: &str, amount: i64| json!({"refund_no": number, "payment_no": "PAY-1", "amount": amount, "currency": "USD"});
    let (bodies, path) =
        ([refund("REF-1", 400), refund("REF-2", 400), refund("REF-3", 400)], "/api/v1/channel/refunds");
    let (a, b, c) = tokio::join!(
        channel.post(path, "r-1", &bodies[0]),
        channel.post(path, "r-2", &bodies[1]),
        channel.post(path, "r-3", &bodies[2]),
    );
    let mut statuses = [a.0, b.0, c.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 402]);
    assert_eq!(channel.post("/api/v1/channel/payments/PAY-1/cancel", "c-1", &json!({})).await.0, 409);
    assert_eq!(channel.get("/api/v1/channel/refunds/REF-9").await.0, 404);
}

#[tokio::test]
async fn a_transfer_once_sent_cannot_be_cancelled_but_one_never_seen_can() {
    let channel = Channel::start().await;
    let transfer =
        |number: &str| json!({"transfer_no": number, "amount": 500, "currency": "EUR", "account": "acct_ok"});
    let (status, sent) = channel.post("/api/v1/channel/transfers", "t-1", &transfer("T-1")).await;
    assert_eq!((status, &sent["status"]), (201, &json!("sent")));
    assert_eq!(channel.post("/api/v1/channel/transfers/T-1/cancel", "c-1", &json!({})).await.0, 409);
    assert_eq!(channel.post("/api/v1/channel/transfers/T-2/cancel", "c-2", &json!({})).await.0, 200);
    assert_eq!(channel.post("/api/v1/channel/transfers", "t-2", &transfer("T-2")).await.0, 402);
}

#[tokio::test]
async fn a_request_that_cannot_be_right_is_a_problem_and_writes_nothing() {
    let channel = Channel::start().await;
    let path = "/api/v1/channel/payments";
    let with = |name: &str, value: Value| {
        let mut body = payment("PAY-1", "card_ok");
        body[name] = value;
        body
    };
    for (body, status) in [
        (with("amount", json!(-1)), 422),
        (with("amount", json!(i64::MAX)), 422),
        (with("currency", json!("XXX")), 422),
        (with("payment_method", json!("card_unheard_of")), 422),
        (with("payment_method", json!("acct_ok")), 422),
        (with("payment_no", json!("")), 422),
        (with("surprise", json!(1)), 400),
    ] {
        let (answered, problem) = channel.post(path, "k-1", &body).await;
        assert_eq!(answered, status, "{body} {problem}");
    }
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.0, 404);
    let call = channel.client.post(format!("{}{path}", channel.base)).json(&payment("PAY-1", "card_ok"));
    assert_eq!(answer(call.bearer_auth("wrong")).await.0, 401);
    let call = channel.client.post(format!("{}{path}", channel.base)).json(&payment("PAY-1", "card_ok"));
    assert_eq!(answer(call.bearer_auth(&channel.token)).await.0, 400, "a missing key");
}

#[tokio::test]
async fn what_one_mode_charged_is_never_seen_in_the_other() {
    let channel = Channel::start().await;
    let body = json!({"payment_no": "PAY-1", "amount": 500, "currency": "USD", "payment_method": "card_ok"});
    let in_test = async |call: reqwest::RequestBuilder| {
        answer(call.bearer_auth(&channel.token).header("x-merchant-mode", "test")).await.0
    };
    let url = |path: &str| format!("{}/api/v1/channel/{path}", channel.base);
    let post =
        |path: &str, body: &Value| channel.client.post(url(path)).header("idempotency-key", "t").json(body);
    assert_eq!(channel.post("/api/v1/channel/payments", "k-1", &body).await.0, 201);
    assert_eq!(in_test(channel.client.get(url("payments/PAY-1"))).await, 404);
    assert_eq!(in_test(post("payments/PAY-1/cancel", &json!({}))).await, 404);
    assert_eq!(in_test(post("payments", &body)).await, 409);
    let back = json!({"refund_no": "REF-1", "payment_no": "PAY-1", "amount": 500, "currency": "USD"});
    assert_eq!(in_test(post("refunds", &back)).await, 402);
    assert_eq!(channel.get("/api/v1/channel/payments/PAY-1").await.1["status"], "charged");
    let back = json!({"refund_no": "REF-2", "payment_no": "PAY-1", "amount": 500, "currency": "USD"});
    assert_eq!(channel.post("/api/v1/channel/refunds", "r-1", &back).await.0, 201);
    assert_eq!(in_test(channel.client.get(url("refunds/REF-2"))).await, 404);
    assert_eq!(channel.get("/api/v1/channel/refunds/REF-2").await.0, 200);
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_says() {
    let channel = Channel::start().await;
    let document = channel.client.get(format!("{}/openapi.json", channel.base)).send().await.unwrap();
    let listed = testkit::documented(&document.json().await.unwrap());
    assert_eq!((listed.len(), listed.iter().filter(|one| one.guarded).count()), (13, 8));
    let words: testkit::Words<'_> = &[
        ("currency", &["USD"]),
        ("payment_method", &["card_ok", "card_declined"]),
        ("account", &["acct_ok", "acct_unknown"]),
    ];
    testkit::probe(&channel.base, words, 40, |_, call| call.bearer_auth(&channel.token)).await;
}
