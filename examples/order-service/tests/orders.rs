//! Orders over real HTTP: whole or not at all, paid once, and cancelled even before they come.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use service_shell::{Clock, HttpTimeouts, Id, PROBLEM_TYPES, Pool, Settings, database};
use sqlx::Row as _;

struct Orders {
    base: String,
    client: reqwest::Client,
    token: String,
    pool: Pool,
    clock: Clock,
    _folder: testkit::TempDir,
    #[cfg(feature = "postgres")]
    _database: testkit::TestDatabase,
}

impl Orders {
    async fn start() -> Orders {
        testkit::time_limit();
        let folder = testkit::temp_dir();
        #[cfg(feature = "postgres")]
        let database = testkit::Postgres::shared().database();
        #[cfg(feature = "postgres")]
        let url = database.url().to_owned();
        #[cfg(not(feature = "postgres"))]
        let url = format!("sqlite:{}", folder.path().join("orders.sqlite3").display());
        let settings = Settings::from_vars(order_service::NAME, 0, [("DATABASE_URL", url)]).unwrap();
        let pool = database::open(&settings).await.unwrap();
        let token = settings.service_token.text().to_owned();
        let clock = Clock::default();
        let (router, _drain) = order_service::start_at(settings, clock.clone()).await.unwrap();
        let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(service_shell::serve(listener, router, std::future::pending()));
        let client = service_shell::http_client(HttpTimeouts::default()).unwrap();
        Orders {
            base,
            client,
            token,
            pool,
            clock,
            _folder: folder,
            #[cfg(feature = "postgres")]
            _database: database,
        }
    }

    async fn post(&self, merchant: Id, path: &str, key: &str, body: Value) -> (u16, Value) {
        let call =
            self.client.post(format!("{}{path}", self.base)).header("idempotency-key", key).json(&body);
        self.answer(merchant, call).await
    }

    async fn get(&self, merchant: Id, path: &str) -> (u16, Value) {
        self.answer(merchant, self.client.get(format!("{}{path}", self.base))).await
    }

    async fn answer(&self, merchant: Id, call: reqwest::RequestBuilder) -> (u16, Value) {
        let call = call.bearer_auth(&self.token).header("x-merchant-id", merchant.to_string());
        let reply = call.send().await.unwrap();
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

fn order(order_no: &str) -> Value {
    json!({"order_no": order_no, "payment_no": "PAY-1", "amount": 700, "currency": "USD",
           "items": [{"name": "tea", "quantity": 2, "unit_price": 300}, {"name": "cup", "quantity": 1, "unit_price": 100}]})
}

fn paid_by(payment_no: &str) -> Value {
    json!({"payment_no": payment_no, "amount": 700, "currency": "USD"})
}

#[tokio::test]
async fn an_order_comes_with_its_items_and_a_log_row_once() {
    let (orders, shop) = (Orders::start().await, Id::new());
    let (status, created) = orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await;
    assert_eq!((status, &created["status"]), (201, &json!("pending")), "{created}");
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await, (201, created.clone()));
    let (status, same) = orders.post(shop, "/api/v1/orders", "k-2", order("A-1")).await;
    assert_eq!((status, &same), (200, &created), "the same payment's order, with its items");
    let (status, found) = orders.get(shop, "/api/v1/orders/A-1").await;
    assert_eq!((status, found["items"].as_array().unwrap().len()), (200, 2));
    assert_eq!(orders.count("SELECT COUNT(*) FROM orders").await, 1);
    assert_eq!(orders.count("SELECT COUNT(*) FROM order_items").await, 2);
    assert_eq!(orders.count("SELECT COUNT(*) FROM order_logs").await, 1);
    let mut other = order("A-1");
    other["payment_no"] = json!("PAY-2");
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-3", other).await.0, 409);
    let mut cheaper = order("A-1");
    (cheaper["amount"], cheaper["items"][0]["quantity"]) = (json!(400), json!(1));
    let (status, refused) = orders.post(shop, "/api/v1/orders", "k-4", cheaper).await;
    assert_eq!((status, &refused["type"]), (409, &json!(format!("{PROBLEM_TYPES}order-number-taken"))));
    let reason = json!({"reason": "undo"});
    assert_eq!(orders.post(shop, "/api/v1/orders/A-1/cancel", "c-1", reason).await.0, 200);
    let (status, closed) = orders.post(shop, "/api/v1/orders", "k-5", order("A-1")).await;
    assert_eq!((status, &closed["type"]), (409, &json!(format!("{PROBLEM_TYPES}order-cancelled"))));
}

#[tokio::test]
async fn an_order_is_refunded_by_the_payment_that_paid_it_only() {
    let (orders, shop) = (Orders::start().await, Id::new());
    orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await;
    assert_eq!(orders.post(shop, "/api/v1/orders/A-1/pay", "p-1", paid_by("PAY-1")).await.0, 200);
    let refund = |payment: &str| json!({"reason": "given back", "payment_no": payment});
    let (status, refused) = orders.post(shop, "/api/v1/orders/A-1/refund", "r-1", refund("PAY-2")).await;
    assert_eq!((status, &refused["type"]), (409, &json!(format!("{PROBLEM_TYPES}other-payment"))));
    let (status, refunded) = orders.post(shop, "/api/v1/orders/A-1/refund", "r-2", refund("PAY-1")).await;
    assert_eq!((status, &refunded["status"]), (200, &json!("refunded")));
}

#[tokio::test]
async fn an_order_without_items_or_with_another_sum_is_refused_and_not_written() {
    let (orders, shop) = (Orders::start().await, Id::new());
    let mut empty = order("A-1");
    empty["items"] = json!([]);
    let mut wrong = order("A-1");
    wrong["amount"] = json!(701);
    for (key, body) in [("k-1", empty), ("k-2", wrong)] {
        assert_eq!(orders.post(shop, "/api/v1/orders", key, body).await.0, 422);
    }
    assert_eq!(orders.count("SELECT COUNT(*) FROM orders").await, 0);
}

#[tokio::test]
async fn a_cancel_that_comes_before_its_order_keeps_the_order_away() {
    let (orders, shop) = (Orders::start().await, Id::new());
    let reason = json!({"reason": "undo", "payment_no": "PAY-1"});
    let (status, cancelled) = orders.post(shop, "/api/v1/orders/A-1/cancel", "c-1", reason).await;
    assert_eq!((status, &cancelled["seen"]), (200, &json!(false)));
    let (status, late) = orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await;
    assert_eq!((status, &late["type"]), (409, &json!(format!("{PROBLEM_TYPES}order-cancelled"))));
    assert_eq!(orders.count("SELECT COUNT(*) FROM orders").await, 0);
    assert_eq!(
        orders.post(Id::new(), "/api/v1/orders", "k-1", order("A-1")).await.0,
        201,
        "another merchant's number"
    );
}

#[tokio::test]
async fn a_create_and_its_cancel_at_the_same_moment_leave_no_open_order() {
    let (orders, shop) = (Orders::start().await, Id::new());
    for round in 0..10 {
        let number = format!("A-{round}");
        let path = format!("/api/v1/orders/{number}/cancel");
        let (create_key, cancel_key) = (format!("k-{round}"), format!("c-{round}"));
        let (created, cancelled) = tokio::join!(
            orders.post(shop, "/api/v1/orders", &create_key, order(&number)),
            orders.post(shop, &path, &cancel_key, json!({"reason": "undo"})),
        );
        assert!(matches!(created.0, 201 | 409), "{created:?}");
        assert_eq!(cancelled.0, 200, "{cancelled:?}");
    }
    assert_eq!(orders.count("SELECT COUNT(*) FROM orders WHERE status <> 'cancelled'").await, 0);
}

#[tokio::test]
async fn an_order_is_paid_once_by_its_own_payment_only() {
    let (orders, shop) = (Orders::start().await, Id::new());
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await.0, 201);
    let path = "/api/v1/orders/A-1/pay";
    let short = json!({"payment_no": "PAY-1", "amount": 699, "currency": "USD"});
    assert_eq!(orders.post(shop, path, "p-1", short).await.0, 409);
    assert_eq!(orders.post(shop, path, "p-2", paid_by("PAY-2")).await.0, 409);
    let (a, b) = tokio::join!(
        orders.post(shop, path, "p-3", paid_by("PAY-1")),
        orders.post(shop, path, "p-4", paid_by("PAY-1")),
    );
    assert_eq!((a.0, b.0), (200, 200));
    assert_eq!(orders.count("SELECT COUNT(*) FROM order_logs WHERE to_status = 'paid'").await, 1);
    let late = json!({"reason": "too late"});
    let (status, refused) = orders.post(shop, "/api/v1/orders/A-1/cancel", "c-1", late).await;
    assert_eq!((status, &refused["state"]), (409, &json!("paid")));
    let back = json!({"reason": "returned"});
    assert_eq!(
        orders.post(shop, "/api/v1/orders/A-1/refund", "r-1", back.clone()).await.1["status"],
        "refunded"
    );
    assert_eq!(orders.post(shop, "/api/v1/orders/A-1/refund", "r-2", back).await.0, 200);
}

#[tokio::test]
async fn another_merchants_order_does_not_exist() {
    let (orders, ours, theirs) = (Orders::start().await, Id::new(), Id::new());
    assert_eq!(orders.post(ours, "/api/v1/orders", "k-1", order("A-1")).await.0, 201);
    assert_eq!(orders.get(theirs, "/api/v1/orders/A-1").await.0, 404);
    assert_eq!(orders.post(theirs, "/api/v1/orders/A-1/pay", "k-1", paid_by("PAY-1")).await.0, 404);
    assert_eq!(orders.get(theirs, "/api/v1/orders").await.1["orders"].as_array().unwrap().len(), 0);
    let call = orders.client.get(format!("{}/api/v1/orders/A-1", orders.base)).bearer_auth("wrong");
    assert_eq!(call.send().await.unwrap().status().as_u16(), 401);
}

#[tokio::test]
async fn an_order_that_nobody_pays_expires_and_one_of_a_payment_waits_for_its_payment() {
    let (orders, shop) = (Orders::start().await, Id::new());
    let mut unpaid = order("A-1");
    unpaid.as_object_mut().unwrap().remove("payment_no");
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-1", unpaid).await.0, 201);
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-2", order("A-2")).await.0, 201);
    orders.clock.advance(Duration::from_secs(1700));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(orders.count("SELECT COUNT(*) FROM orders WHERE status = 'pending'").await, 2, "too early");
    orders.clock.advance(Duration::from_secs(200));
    while orders.get(shop, "/api/v1/orders/A-1").await.1["status"] != "expired" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(orders.get(shop, "/api/v1/orders/A-2").await.1["status"], "pending");
    assert_eq!(orders.count("SELECT COUNT(*) FROM order_logs WHERE to_status = 'expired'").await, 1);
    let (status, late) = orders.post(shop, "/api/v1/orders/A-1/pay", "p-1", paid_by("PAY-1")).await;
    assert_eq!((status, &late["state"]), (409, &json!("expired")));
}

#[tokio::test]
async fn orders_are_listed_by_pages_and_by_status() {
    let (orders, shop) = (Orders::start().await, Id::new());
    for n in 1..=3 {
        let mut body = order(&format!("A-{n}"));
        body["payment_no"] = json!(format!("PAY-{n}"));
        assert_eq!(orders.post(shop, "/api/v1/orders", &format!("k-{n}"), body).await.0, 201);
    }
    assert_eq!(orders.post(shop, "/api/v1/orders/A-2/pay", "p-1", paid_by("PAY-2")).await.0, 200);
    let numbers = |page: &Value| -> Vec<String> {
        let of = |order: &Value| order["order_no"].as_str().unwrap().to_owned();
        page["orders"].as_array().unwrap().iter().map(of).collect()
    };
    let first = orders.get(shop, "/api/v1/orders?limit=2").await.1;
    assert_eq!(numbers(&first), ["A-3", "A-2"]);
    let next = format!("/api/v1/orders?limit=2&before={}", first["next"].as_str().unwrap());
    let last = orders.get(shop, &next).await.1;
    assert_eq!((numbers(&last), &last["next"]), (vec!["A-1".to_owned()], &Value::Null));
    assert_eq!(numbers(&orders.get(shop, "/api/v1/orders?status=paid").await.1), ["A-2"]);
    for wrong in ["limit=0", "limit=101", "status=lost", "before=x", "nonsuch=1"] {
        let status = orders.get(shop, &format!("/api/v1/orders?{wrong}")).await.0;
        assert!(matches!(status, 400 | 422), "{wrong}: {status}");
    }
}

#[tokio::test]
async fn the_sweep_reads_only_orders_that_may_expire() {
    let orders = Orders::start().await;
    let mut tx = orders.pool.begin().await.unwrap();
    let sql = if service_shell::POSTGRES {
        sqlx::query("SET LOCAL enable_seqscan = off").execute(&mut *tx).await.unwrap();
        "EXPLAIN SELECT id FROM orders WHERE status = 'pending' AND payment_no IS NULL
            AND created_at < clock_timestamp() - interval '1 hour' ORDER BY created_at LIMIT 100"
    } else {
        "EXPLAIN QUERY PLAN SELECT id FROM orders WHERE status = 'pending' AND payment_no IS NULL
            AND created_at < strftime('%Y') ORDER BY created_at LIMIT 100"
    };
    let rows = sqlx::query(sql).fetch_all(&mut *tx).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(row.len() - 1)).collect();
    assert!(plan.iter().any(|line| line.contains("orders_to_expire")), "{plan:?}");
}

#[tokio::test]
async fn a_number_of_one_mode_is_none_of_the_other() {
    let (orders, shop) = (Orders::start().await, Id::new());
    assert_eq!(orders.post(shop, "/api/v1/orders", "k-1", order("A-1")).await.0, 201);
    let in_test = async |call: reqwest::RequestBuilder| {
        orders.answer(shop, call.header("x-merchant-mode", "test")).await
    };
    let url = |path: &str| format!("{}/api/v1/orders{path}", orders.base);
    let post = |path: &str, key: &str, body: &Value| {
        orders.client.post(url(path)).header("idempotency-key", key).json(body)
    };
    assert_eq!(in_test(orders.client.get(url("/A-1"))).await.0, 404);
    assert_eq!(in_test(orders.client.get(url(""))).await.1["orders"], json!([]));
    assert_eq!(in_test(post("/A-1/pay", "p-1", &paid_by("PAY-1"))).await.0, 404);
    // The same key and number, and neither a replay nor a conflict.
    assert_eq!(in_test(post("", "k-1", &order("A-1"))).await.0, 201);
    assert_eq!(
        in_test(post("/A-1/cancel", "c-1", &json!({"reason": "test"}))).await.1["status"],
        "cancelled"
    );
    assert_eq!(orders.get(shop, "/api/v1/orders/A-1").await.1["status"], "pending");
    let wrong = orders.client.get(url("")).header("x-merchant-mode", "live");
    assert_eq!(orders.answer(shop, wrong).await.0, 400);
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_says() {
    let orders = Orders::start().await;
    let document = orders.client.get(format!("{}/openapi.json", orders.base)).send().await.unwrap();
    let listed = testkit::documented(&document.json().await.unwrap());
    assert_eq!((listed.len(), listed.iter().filter(|one| one.guarded).count()), (11, 6));
    let words: testkit::Words<'_> =
        &[("currency", &["USD"]), ("order_no", &["A-1", "A-2"]), ("payment_no", &["PAY-1", "PAY-2"])];
    testkit::probe(&orders.base, words, 40, |_, call| call.bearer_auth(&orders.token)).await;
}
