//! Is the process alive, and can it do its work?
//!
//! `/health/live` asks nothing of anybody; `/health/ready` asks what the service cannot work without;
//! `/health` shows everything, also peers that may come back later.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Pool;

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

#[derive(Clone)]
struct Dependency {
    name: &'static str,
    required: bool,
    ask: Arc<dyn Fn() -> Answer + Send + Sync>,
}

/// The things on which a service depends.
#[derive(Clone)]
pub struct Health {
    service: &'static str,
    dependencies: Vec<Dependency>,
}

impl Health {
    /// Health of a service that depends on nothing yet.
    #[must_use]
    pub fn named(service: &'static str) -> Health {
        Health { service, dependencies: Vec::new() }
    }

    /// It cannot work without its database.
    #[must_use]
    pub fn database(self, pool: &Pool) -> Health {
        let pool = pool.clone();
        self.depends("database", true, move || {
            let pool = pool.clone();
            async move {
                sqlx::query("SELECT 1").execute(&pool).await.map(drop).map_err(|error| error.to_string())
            }
        })
    }

    /// It calls another service; without it, it is degraded but keeps answering.
    #[must_use]
    pub fn peer(self, name: &'static str, client: &reqwest::Client, base_url: &str) -> Health {
        let (client, url) = (client.clone(), format!("{base_url}/health/live"));
        self.depends(name, false, move || {
            let call = client.get(&url).send();
            async move {
                let reply = call.await.map_err(|error| error.without_url().to_string())?;
                reply.error_for_status().map(drop).map_err(|error| error.without_url().to_string())
            }
        })
    }

    /// Anything else that can be asked. `required` decides whether `/health/ready` needs it.
    #[must_use]
    pub fn depends<F, A>(mut self, name: &'static str, required: bool, ask: F) -> Health
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.dependencies.push(Dependency { name, required, ask: Arc::new(move || Box::pin(ask())) });
        self
    }

    /// Asks every dependency, or only what must answer.
    async fn report(&self, required_only: bool) -> (StatusCode, Json<Report>) {
        let (mut dependencies, mut ready, mut complete) = (BTreeMap::new(), true, true);
        for dependency in self.dependencies.iter().filter(|d| d.required || !required_only) {
            let started = Instant::now();
            let answer = timeout(ASK_TIMEOUT, (dependency.ask)()).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer within 2 s".to_owned()));
            complete &= answer.is_ok();
            ready &= answer.is_ok() || !dependency.required;
            let asked = Asked {
                status: if answer.is_ok() { "ok" } else { "down" },
                required: dependency.required,
                milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                detail: answer.is_err().then_some("did not answer as it should; the log has the cause"),
            };
            if let Err(cause) = answer {
                tracing::warn!(dependency = dependency.name, %cause, "a dependency is down");
            }
            dependencies.insert(dependency.name, asked);
        }
        let status = match (ready, complete) {
            (true, true) => "ok",
            (true, false) => "degraded",
            (false, _) => "down",
        };
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Json(Report { service: self.service, status, dependencies }))
    }
}

/// The answer of the health routes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthReport)]
struct Report {
    service: &'static str,
    /// `ok`, `degraded` (something it can work without is down) or `down`.
    status: &'static str,
    dependencies: BTreeMap<&'static str, Asked>,
}

/// The answer of one dependency.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthDependency)]
struct Asked {
    /// `ok` or `down`.
    status: &'static str,
    /// False when the service keeps answering without it.
    required: bool,
    milliseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

/// The three health routes.
pub(crate) fn routes(health: Health) -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(all))
        .routes(routes!(live))
        .routes(routes!(ready))
        .with_state(health)
}

/// Asks every dependency.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, description = "It works, perhaps without something optional.", body = Report),
    (status = 503, description = "It cannot work.", body = Report),
))]
async fn all(State(health): State<Health>) -> (StatusCode, Json<Report>) {
    health.report(false).await
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/health/live", responses((status = 200, description = "It lives.")))]
async fn live(State(health): State<Health>) -> Json<Value> {
    Json(json!({"service": health.service, "status": "ok"}))
}

/// Asks what the service cannot work without.
#[utoipa::path(get, path = "/health/ready", responses(
    (status = 200, description = "It can work.", body = Report),
    (status = 503, description = "It cannot work.", body = Report),
))]
async fn ready(State(health): State<Health>) -> (StatusCode, Json<Report>) {
    health.report(true).await
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.dependencies.iter().map(|dependency| dependency.name).collect();
        f.debug_struct("Health").field("service", &self.service).field("dependencies", &names).finish()
    }
}
