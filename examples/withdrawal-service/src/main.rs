//! Runs withdrawal-service from the environment; everything else is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_shell::run::<withdrawal_service::Own>("withdrawal-service", 40014, withdrawal_service::start)
        .await
}
