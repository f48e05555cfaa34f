//! The whole payment platform in one process, and the demo that kills it. Start reading at `story.rs`.
#![forbid(unsafe_code)]

mod acts;
mod arguments;
mod console;
mod evidence;
mod fleet;
mod folder;
mod gateway_process;
mod merchant_client;
mod registration;
mod serve;
mod standard_input;
mod story;

use std::io::Write;
use std::process::ExitCode;

use arguments::{Command, USAGE};
use fleet::Service;
use story::Failure;

#[tokio::main]
async fn main() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => report(std::io::stdout(), USAGE, ExitCode::SUCCESS),
        Ok(Command::Gateway) => finish(gateway_process::serve_alone().await),
        Ok(Command::Service { name }) => match Service::named(&name) {
            Some(service) => service.run().await,
            None => report(std::io::stderr(), &format!("there is no service `{name}`\n"), ExitCode::FAILURE),
        },
        Ok(Command::Demo { data }) => finish(unless_interrupted(Box::pin(story::tell(data))).await),
        Ok(Command::Serve { data, seconds, ports }) => finish(serve::serve(data, seconds, ports).await),
        Err(mistake) => report(std::io::stderr(), &format!("{mistake}\n\n{USAGE}"), ExitCode::FAILURE),
    }
}

/// Dropping the story tears its world down.
async fn unless_interrupted(story: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        told = story => told,
        () = service_shell::shutdown_signal() => Err(Failure::Interrupted),
    }
}

fn finish(ended: Result<(), Failure>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(std::io::stderr(), &format!("\n{failure}\n"), ExitCode::FAILURE),
    }
}

fn report(mut out: impl Write, text: &str, code: ExitCode) -> ExitCode {
    // A closed pipe leaves nobody to tell; the exit status still does.
    drop(out.write_all(text.as_bytes()));
    code
}
