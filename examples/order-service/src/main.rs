//! The order service as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_shell::run::<order_service::Own>(order_service::NAME, order_service::PORT, order_service::start)
        .await
}
