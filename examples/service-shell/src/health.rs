//! Is the process alive, and can it do its work?
//!
//! `/health/live` asks nothing of anybody; `/health/ready` asks what the service cannot work without;
//! `/health` shows everything, also peers that may come back later.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

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

    /// `/health/live`.
    pub(crate) fn live(&self) -> Json<Value> {
        Json(json!({"service": self.service, "status": "ok"}))
    }

    /// `/health` asks everything, `/health/ready` (`required_only`) what must answer.
    pub(crate) async fn report(&self, required_only: bool) -> Response {
        let (mut dependencies, mut ready, mut complete) = (Map::new(), true, true);
        for dependency in self.dependencies.iter().filter(|d| d.required || !required_only) {
            let started = Instant::now();
            let answer = timeout(ASK_TIMEOUT, (dependency.ask)()).await;
            let answer = answer.unwrap_or_else(|_| Err("no answer within 2 s".to_owned()));
            complete &= answer.is_ok();
            ready &= answer.is_ok() || !dependency.required;
            let mut shown = json!({
                "status": if answer.is_ok() { "ok" } else { "down" },
                "required": dependency.required,
                "milliseconds": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
            if let Err(cause) = answer {
                tracing::warn!(dependency = dependency.name, %cause, "a dependency is down");
                shown["detail"] = json!("did not answer as it should; the log has the cause");
            }
            dependencies.insert(dependency.name.to_owned(), shown);
        }
        let status = match (ready, complete) {
            (true, true) => "ok",
            (true, false) => "degraded",
            (false, _) => "down",
        };
        let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = json!({"service": self.service, "status": status, "dependencies": dependencies});
        (code, Json(body)).into_response()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.dependencies.iter().map(|dependency| dependency.name).collect();
        f.debug_struct("Health").field("service", &self.service).field("dependencies", &names).finish()
    }
}
