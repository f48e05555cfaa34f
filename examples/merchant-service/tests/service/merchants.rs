//! A merchant and its two keys are created together or not at all, and stay together.

use crate::platform::{Platform, problem, serve};
use http::Method;
use serde_json::{Value, json};
use service_shell::Settings;

const MERCHANTS: &str = "SELECT COUNT(*) FROM merchants";
const KEYS: &str = "SELECT COUNT(*) FROM api_keys";

#[tokio::test]
async fn a_registration_gives_a_merchant_exactly_two_keys_and_shows_their_secrets_once() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let modes: Vec<_> = merchant.keys.iter().map(|key| key["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["test", "production"]);
    assert_eq!((platform.number(MERCHANTS).await, platform.number(KEYS).await), (1, 2));

    let secret = merchant.key("test")["api_secret"].as_str().unwrap();
    let sealed: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT sealed_secret FROM api_keys").fetch_all(&platform.pool).await.unwrap();
    assert!(sealed.iter().all(|bytes| !bytes.windows(secret.len()).any(|part| part == secret.as_bytes())));
    // A test key would see itself alone.
    let listed = platform.signed(merchant.key("production"), Method::GET, "/api/v1/api-keys", "");
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["api_keys"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("secret"), "{listed}");
}

#[tokio::test]
async fn of_many_registrations_of_one_email_exactly_one_succeeds() {
    let platform = Platform::start().await;
    let body = json!({"name": "Shop", "email": "Shop@Example.com"});
    let one = || async { platform.post("/api/v1/merchants/register", &body).await.status().as_u16() };
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    let mut statuses = [a, b, c, d];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    assert_eq!((platform.number(MERCHANTS).await, platform.number(KEYS).await), (1, 2));
}

#[tokio::test]
async fn what_cannot_be_a_merchant_is_refused_with_what_to_fix_and_nothing_is_written() {
    let platform = Platform::start().await;
    let send = async |body: String, kind: &str| {
        let request = platform.client.post(platform.url("/api/v1/merchants/register"));
        request.header("content-type", kind).body(body).send().await.unwrap()
    };
    let json_type = "application/json";
    for body in ["", "{", "[]", "null", r#"{"name":"x"}"#, r#"{"name":1,"email":"a@b.c"}"#] {
        problem(send(body.to_owned(), json_type).await, 400).await;
    }
    let unknown = send(r#"{"name":"x","email":"a@b.c","admin":true}"#.to_owned(), json_type).await;
    assert!(problem(unknown, 400).await["detail"].as_str().unwrap().contains("unknown field `admin`"));
    let nameless = send(r#"{"name":" ","email":"a@b.c"}"#.to_owned(), json_type).await;
    assert_eq!(problem(nameless, 422).await["field"], "name");
    let nowhere = send(r#"{"name":"x","email":"nowhere"}"#.to_owned(), json_type).await;
    assert_eq!(problem(nowhere, 422).await["field"], "email");
    problem(send(r#"{"name":"x","email":"a@b.c"}"#.to_owned(), "text/plain").await, 415).await;
    problem(send(" ".repeat(10_000_000), json_type).await, 413).await;
    assert_eq!((platform.number(MERCHANTS).await, platform.number(KEYS).await), (0, 0));
}

#[tokio::test]
async fn only_an_operator_creates_lists_and_suspends_merchants() {
    let platform = Platform::start().await;
    let body = json!({"name": "Shop", "email": "shop@example.com"});
    problem(platform.post("/api/v1/merchants", &body).await, 401).await;
    let wrong = platform.client.post(platform.url("/api/v1/merchants")).bearer_auth("somebody-else-here");
    problem(wrong.json(&body).send().await.unwrap(), 401).await;
    assert_eq!(platform.number(MERCHANTS).await, 0);

    let created = platform.operator(Method::POST, "/api/v1/merchants").json(&body).send().await.unwrap();
    assert_eq!(created.status(), 201);
    assert_eq!(created.headers()["cache-control"], "no-store");
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    let found = platform.operator(Method::GET, &location).send().await.unwrap();
    assert_eq!(found.json::<Value>().await.unwrap()["email"], "shop@example.com");
    problem(platform.client.get(platform.url("/api/v1/merchants")).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn merchants_are_listed_page_by_page() {
    let platform = Platform::start().await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.push(platform.register().await.id);
    }
    let page = async |query: &str| -> Value {
        let path = format!("/api/v1/merchants?{query}");
        platform.operator(Method::GET, &path).send().await.unwrap().json().await.unwrap()
    };
    let first = page("limit=2").await;
    let rest = page(&format!("limit=2&after={}", first["next"].as_str().unwrap())).await;
    let ids = [&first, &rest].map(|page| page["merchants"].as_array().unwrap().clone()).concat();
    let ids: Vec<_> = ids.iter().map(|merchant| merchant["id"].as_str().unwrap()).collect();
    assert_eq!(ids, expected);
    assert_eq!(rest["next"], Value::Null);
    for query in ["limit=0", "limit=101", "limit=x", "after=x", "page=2"] {
        let reply =
            platform.operator(Method::GET, &format!("/api/v1/merchants?{query}")).send().await.unwrap();
        let status = reply.status().as_u16();
        assert!(matches!(status, 400 | 422), "{query}: {status}");
        problem(reply, status).await;
    }
}

#[tokio::test]
async fn a_merchant_sees_itself_and_nobody_else() {
    let platform = Platform::start().await;
    let (one, other) = (platform.register().await, platform.register().await);
    let look = async |id: &str| {
        let path = format!("/api/v1/merchants/{id}");
        platform.signed(one.key("test"), Method::GET, &path, "").send().await.unwrap()
    };
    assert_eq!(look(&one.id).await.json::<Value>().await.unwrap()["id"], one.id.as_str());
    let foreign = problem(look(&other.id).await, 404).await;
    let missing = problem(look("00000000-0000-7000-8000-000000000000").await, 404).await;
    assert_eq!(foreign, missing, "somebody else's and nobody's look alike");
    problem(look("not-an-id").await, 400).await;
}

#[tokio::test]
async fn a_suspended_merchant_may_not_call_and_a_closed_one_stays_closed() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let path = format!("/api/v1/merchants/{}/status", merchant.id);
    let set = async |status: &str| {
        platform.operator(Method::PUT, &path).json(&json!({"status": status})).send().await.unwrap()
    };
    let call = async || {
        let request = platform.signed(merchant.key("production"), Method::GET, "/api/v1/api-keys", "");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(set("suspended").await.status(), 200);
    assert_eq!(call().await, 401);
    assert_eq!(set("active").await.status(), 200);
    assert_eq!(call().await, 200);
    assert_eq!(set("closed").await.status(), 200);
    assert_eq!(set("closed").await.status(), 200, "saying it twice is not an error");
    problem(set("active").await, 409).await;
    assert!(
        problem(set("gone").await, 400).await["detail"]
            .as_str()
            .unwrap()
            .contains("active, suspended, closed")
    );
    assert_eq!(call().await, 401);
}

#[tokio::test]
async fn keys_work_after_a_restart_and_another_sealing_key_is_refused_at_start() {
    let mut platform = Platform::start().await;
    let merchant = platform.register().await;
    platform.base = serve(platform.settings.clone()).await;
    let call = platform.signed(merchant.key("test"), Method::GET, "/api/v1/api-keys", "");
    assert_eq!(call.send().await.unwrap().status(), 200);

    let folder = platform.settings.data_dir.to_str().unwrap();
    let url = match &platform.settings.database {
        service_shell::DatabaseChoice::Url(url) => url.clone(),
        service_shell::DatabaseChoice::Default => String::new(),
    };
    let other = "00".repeat(32);
    let vars = [("DATA_DIR", folder), ("DATABASE_URL", &url), ("MERCHANT_SECRETS_KEY", &other)];
    let settings = Settings::from_vars("merchant-service", 0, vars).unwrap();
    let refused = merchant_service::start(settings).await.expect_err("another key").to_string();
    assert!(refused.starts_with("MERCHANT_SECRETS_KEY does not open"), "{refused}");
}

#[tokio::test]
async fn health_metrics_and_the_description_are_served() {
    let platform = Platform::start().await;
    let get = async |path: &str| platform.client.get(platform.url(path)).send().await.unwrap();
    let health: Value = get("/health").await.json().await.unwrap();
    assert_eq!(health["dependencies"]["database"]["status"], "ok", "{health}");
    assert_eq!(get("/health/ready").await.status(), 200);
    assert!(get("/metrics").await.text().await.unwrap().contains("http_requests_total"));
    assert_eq!(get("/openapi.json").await.json::<Value>().await.unwrap()["openapi"], "3.1.0");
}

/// A route answers 401 to a caller without credentials exactly where the document asks for some.
#[tokio::test]
async fn the_document_says_which_routes_need_credentials() {
    let platform = Platform::start().await;
    let document = platform.client.get(platform.url("/openapi.json")).send().await.unwrap();
    let operations = testkit::documented(&document.json().await.unwrap());
    for operation in &operations {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let url = platform.url(&operation.path.replace("{id}", "0195f000-0000-7000-8000-000000000000"));
        let status = platform.client.request(method, url).send().await.unwrap().status().as_u16();
        assert_eq!(status == 401, operation.guarded, "{operation:?} answered {status}");
        assert!(!matches!(status, 404 | 405), "{operation:?} answered {status}");
    }
    // Open: the registration, and what every service shows of itself.
    assert_eq!((operations.len(), operations.iter().filter(|one| one.guarded).count()), (15, 9));
}
