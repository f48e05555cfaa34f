//! The life of a service process, so that every `main.rs` is a few lines.

use std::io::{self, Write};
use std::process::ExitCode;

use axum::Router;

use crate::{Drain, Settings, StartError, bind, init_logging, serve, shutdown_signal};

/// Binds, starts, serves until Ctrl-C or SIGTERM, drains. A refusal is one readable line and exit status 1.
///
/// # Cancel safety
/// Dropping the future is a crash: nothing is drained.
///
/// # Examples
/// ```no_run
/// # async fn start(_: service_shell::Settings) -> Result<(axum::Router, service_shell::Drain), service_shell::StartError> {
/// #     Ok((axum::Router::new(), service_shell::Drain::nothing()))
/// # }
/// #[tokio::main]
/// async fn main() -> std::process::ExitCode {
///     service_shell::run("order-service", 40004, start).await
/// }
/// ```
pub async fn run<S, F>(name: &'static str, default_port: u16, start: S) -> ExitCode
where
    S: FnOnce(Settings) -> F,
    F: Future<Output = Result<(Router, Drain), StartError>>,
{
    init_logging();
    match live(name, default_port, start).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            // Nothing is left to tell somebody whose standard error is closed.
            drop(writeln!(io::stderr(), "{name}: {refused}"));
            ExitCode::FAILURE
        }
    }
}

async fn live<S, F>(name: &'static str, default_port: u16, start: S) -> Result<(), StartError>
where
    S: FnOnce(Settings) -> F,
    F: Future<Output = Result<(Router, Drain), StartError>>,
{
    let settings = Settings::from_env(name, default_port)?;
    let listener = bind(settings.address).await?;
    let address = listener.local_addr().map_err(|error| StartError::other("the listener", error))?;
    let (router, drain) = start(settings).await?;
    tracing::info!("{name} listening on http://{address}");
    let served = serve(listener, router, shutdown_signal()).await;
    drain.run().await;
    served.map_err(|error| StartError::other("serving", error))
}
