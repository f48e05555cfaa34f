//! Telemetry of the running services, received by what a team has: a collector of traces, Prometheus, and readers of logs.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod collector;
mod prometheus;
mod services;
mod traces;

use std::process::Command;

use services::Services;

/// A setting of the log that cannot work is refused by every program, with the remedy.
#[test]
fn a_wrong_setting_of_the_log_is_refused() {
    let refusals = [
        ("RUST_LOG", "info,=", "RUST_LOG is no filter such as info,sqlx=warn"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be one of: text, json"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "localhost:4317",
            "OTEL_EXPORTER_OTLP_ENDPOINT must be an http:// URL",
        ),
    ];
    for (name, value, words) in refusals {
        for program in [["--serve"].as_slice(), &["gateway"], &["service", "order-service"]] {
            let url = cfg!(feature = "postgres").then_some(("DATABASE_URL", "postgres://127.0.0.1:1/none"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_payment-platform"));
            let ended = command.args(program).envs(url).env(name, value).output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(!ended.status.success() && said.contains(words), "{program:?} {name}: {said}");
        }
    }
}

/// A line of the log is JSON when it is asked for, and names the request it belongs to.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_the_log_names_its_request() {
    testkit::time_limit();
    let log = ("RUST_LOG", "info,service_shell=debug".to_owned());
    let mut services = Services::start(&["order-service"], &[log, ("LOG_FORMAT", "json".to_owned())]);
    let call = |id: String| {
        services.http.get(services.url("order-service") + "/api/v1/orders").header("x-request-id", id)
    };
    let named = call("req-4711".to_owned()).send().await.unwrap();
    assert_eq!(named.headers()["x-request-id"], "req-4711");
    let strange = call("a b".repeat(99)).send().await.unwrap();
    assert_eq!(strange.headers()["x-request-id"].len(), 36, "an id of ours");
    let line = services.program("order-service").wait_for_line("req-4711");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["span"]["request_id"], "req-4711");
    assert_eq!((&line["message"], &line["status"]), (&"answered".into(), &401.into()));
}
