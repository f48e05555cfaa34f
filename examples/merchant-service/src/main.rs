//! Runs merchant-service from the environment; everything else is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_shell::run::<merchant_service::Own>("merchant-service", 40002, merchant_service::start).await
}
