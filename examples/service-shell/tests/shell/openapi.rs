//! The document of a service says what its routes do, because both come from the same calls.

use std::net::SocketAddr;

use axum::extract::{Path, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::{Credential, Guarded, Health, HttpTimeouts, Id, Json, Problem, ServiceToken, api};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
    about: Option<Id>,
}

/// Writes a note.
#[utoipa::path(post, path = "/notes/{place}", responses(
    (status = 200, description = "Written.", body = Note),
    (status = 409, description = "The place is taken."),
))]
async fn write(Path(place): Path<String>, Json(note): Json<Note>) -> Result<Json<Note>, Problem> {
    if place == "taken" { Err(Problem::conflict("taken", "write elsewhere")) } else { Ok(Json(note)) }
}

/// Says hello.
#[utoipa::path(get, path = "/hello", responses((status = 200, description = "Hello.", body = String)))]
async fn hello() -> &'static str {
    "hello"
}

/// Stands in for the idempotency layer.
async fn with_key(request: Request, next: Next) -> Result<Response, Problem> {
    let missing = || Problem::bad_request("send an Idempotency-Key");
    request.headers().get("idempotency-key").ok_or_else(missing)?;
    Ok(next.run(request).await)
}

async fn document() -> (String, reqwest::Client, Value) {
    let token = ServiceToken::new("0123456789abcdef");
    let guarded = OpenApiRouter::default()
        .routes(routes!(write))
        .keyed(from_fn(with_key))
        .require(Credential::Service, &token)
        .require(Credential::Operator, &token);
    let routes = api("Keeps notes.").routes(routes!(hello)).merge(guarded);
    let router = service_shell::shell("notes", Health::named("notes"), routes).unwrap();
    let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(service_shell::serve(listener, router, std::future::pending()));
    let client = service_shell::http_client(HttpTimeouts::default()).unwrap();
    let document = client.get(format!("{base}/openapi.json")).send().await.unwrap().json().await.unwrap();
    (base, client, document)
}

#[tokio::test]
async fn a_route_is_described_with_its_body_its_answers_and_its_guards() {
    let (base, client, document) = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "notes");
    assert_eq!(document["info"]["description"], "Keeps notes.");
    let write = &document["paths"]["/notes/{place}"]["post"];
    assert_eq!(write["summary"], "Writes a note.");
    assert_eq!(write["security"], json!([{"service": [], "operator": []}]), "both layers ask");
    let names: Vec<_> = write["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["place", "Idempotency-Key"]);
    let note = json!({"$ref": "#/components/schemas/Note"});
    assert_eq!(write["requestBody"]["content"]["application/json"]["schema"], note);
    assert_eq!(write["responses"]["200"]["content"]["application/json"]["schema"], note);
    assert_eq!(document["components"]["schemas"]["Note"]["additionalProperties"], false);
    assert_eq!(document["components"]["securitySchemes"]["service"]["scheme"], "bearer");

    let url = format!("{base}/notes/here");
    assert_eq!(client.post(&url).json(&json!({"text": "x"})).send().await.unwrap().status(), 401);
    let known = || client.post(&url).bearer_auth("0123456789abcdef").json(&json!({"text": "x"}));
    assert_eq!(known().send().await.unwrap().status(), 400, "keyed() adds the layer");
    let written: Value =
        known().header("idempotency-key", "key-1").send().await.unwrap().json().await.unwrap();
    assert_eq!(written, json!({"text": "x", "about": null}));
}

#[tokio::test]
async fn every_refusal_is_described_as_a_problem() {
    let (_, _, document) = document().await;
    let problem = json!({"$ref": "#/components/schemas/Problem"});
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key("default"), "{method} {path}");
            let health = path.starts_with("/health");
            for (status, answer) in answers.iter().filter(|(status, _)| !status.starts_with('2') && !health) {
                let schema = &answer["content"]["application/problem+json"]["schema"];
                assert_eq!(*schema, problem, "{method} {path} {status}");
            }
        }
    }
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let own =
        ["/health", "/health/live", "/health/ready", "/hello", "/metrics", "/notes/{place}", "/openapi.json"];
    assert_eq!(paths, own);
    assert!(document["paths"]["/hello"]["get"].get("security").is_none());
}
