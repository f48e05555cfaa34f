//! The channel as a process of its own.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    service_shell::run::<channel_adapter::Own>(
        channel_adapter::NAME,
        channel_adapter::PORT,
        channel_adapter::start,
    )
    .await
}
