//! `cargo xtask up`: the platform on PostgreSQL and Redis, for a machine without containers.
//!
//! The servers are started on free ports, as the tests start theirs, and end with this command. A server that the
//! environment names, in `DATABASE_URL` or `REDIS_URL`, is used instead. The services, and the commands that they print,
//! are those of `cargo demo -- --serve`.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::{demo, say};

/// Runs the platform until Ctrl-C.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let (sqlite, arguments) = match arguments.strip_prefix(&["--sqlite"]) {
        Some(rest) => (true, rest),
        None => (false, arguments),
    };
    let features: &[&str] = if sqlite { &[] } else { &["--features", "postgres,redis"] };
    let program = demo::build(features)?;
    let mut command = Command::new(&program);
    command.args(["demo", "--serve"]).args(arguments);
    let _servers = if sqlite { None } else { Some(Servers::start(&mut command, &in_environment)?) };
    let failed = |error| format!("failed to run {}: {error}", program.display());
    let mut platform = command.spawn().map_err(failed)?;
    let pid = i32::try_from(platform.id()).ok().and_then(Pid::from_raw);
    // The servers must outlive the services, which give their sagas back when they stop. The platform may have heard
    // Ctrl-C itself, and be gone.
    let stop = move || {
        let _gone = pid.map(|pid| kill_process(pid, Signal::TERM));
    };
    ctrlc::set_handler(stop).map_err(|error| format!("Ctrl-C cannot be heard: {error}"))?;
    let status = platform.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("the platform ended with {status}")) }
}

/// The servers that this command started; they end with it.
struct Servers {
    _postgres: Option<testkit::Postgres>,
    _redis: Option<testkit::Redis>,
}

impl Servers {
    /// Starts what the environment does not name, and tells the command where it is.
    fn start(command: &mut Command, named: &dyn Fn(&str) -> bool) -> Result<Servers, String> {
        let missing = |missing: testkit::Missing| {
            format!("{missing}\n\nor: cargo xtask services install\nor: cargo xtask up --sqlite")
        };
        let postgres = if named("DATABASE_URL") || named("DB_HOST") {
            None
        } else {
            testkit::postgres_tools().map_err(missing)?;
            Some(testkit::Postgres::start())
        };
        if let Some(server) = &postgres {
            say::line(&format!("DATABASE_URL={}", server.url()));
            command.env("DATABASE_URL", server.url());
        }
        let redis = if named("REDIS_URL") || named("REDIS_HOST") {
            None
        } else {
            testkit::redis_server().map_err(missing)?;
            Some(testkit::Redis::start_with(&["--appendonly", "yes"]))
        };
        if let Some(server) = &redis {
            say::line(&format!("REDIS_URL={}", server.url()));
            command.env("REDIS_URL", server.url());
        }
        Ok(Servers { _postgres: postgres, _redis: redis })
    }
}

fn in_environment(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_services_are_told_of_servers_that_answer() {
        let mut command = Command::new("true");
        let _servers = Servers::start(&mut command, &|_| false).expect("PostgreSQL and Redis");
        let told: Vec<String> = command
            .get_envs()
            .filter_map(|(_, url)| url.map(|url| url.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        for url in told {
            let place = url.rsplit('@').next().unwrap_or(&url).trim_start_matches("redis://");
            let place = place.split('/').next().unwrap_or(place).to_owned();
            TcpStream::connect(&place).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }
}
