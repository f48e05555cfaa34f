//! Logs to standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Installs the subscriber with a filter such as `info`; the second call of a process changes nothing.
pub fn init_logging(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .try_init();
    if installed.is_ok() && std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build does not export traces yet");
    }
}
