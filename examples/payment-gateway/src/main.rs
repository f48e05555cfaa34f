//! The gateway as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_shell::run::<payment_gateway::Own>(
        payment_gateway::NAME,
        payment_gateway::PORT,
        payment_gateway::start,
    )
    .await
}
