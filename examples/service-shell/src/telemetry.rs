//! The things a service tells its operators: log lines, metrics, and spans for a collector of OpenTelemetry.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::{Args, ValueEnum};
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::{StartError, environment, metrics, settings};

/// The time that the last spans have to reach the collector when a process ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// The settings of logs and traces.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs and traces")]
pub struct TelemetrySettings {
    /// The filter of the log, such as `info` or `info,sqlx=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_parser = filter)]
    rust_log: String,
    /// The form of a line of the log.
    #[arg(long, env = "LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The collector that receives traces by OTLP over HTTP, such as `http://127.0.0.1:4318` [default: no traces].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = collector)]
    otel_exporter_otlp_endpoint: Option<String>,
}

/// The forms of a line of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object, for programs.
    Json,
}

/// The telemetry of a process. It sends the last spans when it is dropped.
#[derive(Debug)]
#[must_use = "the last spans are sent when it is dropped"]
pub struct Telemetry(Option<SdkTracerProvider>);

impl TelemetrySettings {
    /// Reads the environment, and its file `.env`, for a process that is no single service.
    ///
    /// # Errors
    /// [`StartError::Setting`] names the variable that cannot work and what to do.
    pub fn from_env() -> Result<TelemetrySettings, StartError> {
        settings::parsed(
            TelemetrySettings::augment_args(clap::Command::new("telemetry")),
            &settings::given(environment::read()?.into_iter()),
        )
    }

    /// Begins to log, measure and trace as `service`; logs and traces of a second call in one process change nothing.
    ///
    /// # Errors
    /// [`StartError::Setting`] when the filter is none, [`StartError::Other`] when spans cannot be sent.
    pub fn begin(&self, service: &'static str) -> Result<Telemetry, StartError> {
        metrics::install();
        let filter = EnvFilter::try_new(&self.rust_log)
            .map_err(|error| StartError::setting("RUST_LOG", error.to_string()))?;
        let lines =
            tracing_subscriber::fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
        let lines = match self.log_format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        };
        let provider = self.otel_exporter_otlp_endpoint.as_deref().map(|to| provider(service, to));
        let provider = provider.transpose()?;
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(service))
                .with_filter(LevelFilter::INFO)
        });
        let lines = lines.with_filter(filter);
        let first = tracing_subscriber::registry().with(lines).with(spans).try_init().is_ok();
        Ok(Telemetry(provider.filter(|_| first)))
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown_with_timeout(FAREWELL)) else {
            return;
        };
        tracing::warn!(%error, "the last spans did not reach the collector");
    }
}

fn provider(service: &'static str, endpoint: &str) -> Result<SdkTracerProvider, StartError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| StartError::other("the exporter of traces", error))?;
    global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Reads a filter of the log, so that one with a mistake is not taken for `info`.
fn filter(text: &str) -> Result<String, String> {
    let parsed = EnvFilter::try_new(text);
    parsed.map(|_| text.to_owned()).map_err(|error| format!("is no filter such as info,sqlx=warn: {error}"))
}

fn collector(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.has_host());
    url.map(|_| text.to_owned()).ok_or_else(|| {
        "must be an http:// URL such as http://127.0.0.1:4318: run a collector beside the service".to_owned()
    })
}
