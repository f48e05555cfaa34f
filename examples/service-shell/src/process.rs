//! The life of a service process, so that every `main.rs` is a few lines.

use std::io::{self, Write};
use std::process::ExitCode;

use axum::Router;
use clap::Args;

use crate::environment;
use crate::settings::NoSettings;
use crate::{Drain, Settings, StartError, bind, serve, shutdown_signal};

/// Reads flags and environment, binds, starts, serves until Ctrl-C or SIGTERM, drains.
///
/// `Own` describes the settings that only this service reads. A refusal is one readable line and exit status 1; `--help`
/// shows every setting and starts nothing.
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
///     service_shell::run::<()>("order-service", 40004, start).await
/// }
/// ```
pub async fn run<Own: Args>(
    name: &'static str,
    default_port: u16,
    start: impl AsyncFnOnce(Settings) -> Result<(Router, Drain), StartError>,
) -> ExitCode {
    let variables = match environment::read() {
        Ok(variables) => variables,
        Err(refused) => return run_with(Err(refused), name, start).await,
    };
    match Settings::from_command_line::<Own>(name, default_port, std::env::args_os(), variables) {
        Ok(settings) => run_with(Ok(settings), name, start).await,
        Err(NoSettings::Refused(refused)) => run_with(Err(refused), name, start).await,
        Err(NoSettings::Said(help)) => {
            drop(help.print());
            ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(u8::MAX))
        }
    }
}

/// The same with settings that were read before, for a program that has a command line of its own.
///
/// # Cancel safety
/// The same as of [`run`].
pub async fn run_with(
    settings: Result<Settings, StartError>,
    name: &'static str,
    start: impl AsyncFnOnce(Settings) -> Result<(Router, Drain), StartError>,
) -> ExitCode {
    match live(settings, name, start).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => {
            // Nothing is left to tell somebody whose standard error is closed.
            drop(writeln!(io::stderr(), "{name}: {refused}"));
            ExitCode::FAILURE
        }
    }
}

async fn live(
    settings: Result<Settings, StartError>,
    name: &'static str,
    start: impl AsyncFnOnce(Settings) -> Result<(Router, Drain), StartError>,
) -> Result<(), StartError> {
    let settings = settings?;
    let _telemetry = settings.telemetry.begin(name)?;
    let listener = bind(settings.address).await?;
    let address = listener.local_addr().map_err(|error| StartError::other("the listener", error))?;
    let (router, drain) = start(settings).await?;
    tracing::info!("{name} listening on http://{address}");
    let served = serve(listener, router, shutdown_signal()).await;
    drain.run().await;
    served.map_err(|error| StartError::other("serving", error))
}
