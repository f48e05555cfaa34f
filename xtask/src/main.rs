//! The developer's commands, the same on a laptop and in CI.
//!
//! ```text
//! cargo demo                     the whole platform, one kill -9 in the middle of a payment, and the books checked
//! cargo xtask up                 the whole platform on PostgreSQL and Redis, until Ctrl-C
//! cargo xtask test               everything a change must pass, on SQLite, PostgreSQL and Redis
//! cargo xtask ci                 the same, and packages and benches: what a fresh machine must pass
//! cargo xtask tidy               the cheap rules that no compiler checks
//! cargo xtask chaos [NAME]       the tests that choose at random, for much longer
//! cargo xtask features           the published crates with every two features
//! cargo xtask services install   the servers the tests need
//! ```
//!
//! A command is one file. What CI runs is `cargo xtask ci` and nothing else, so what fails there fails here, and a new
//! job is a line in `ci.rs`. The crate depends on little on purpose: it is compiled before anything can be shown.
//!
//! Start reading at [`test`](mod@test), which is a list; then at [`tidy`], where each rule is a pure function from the
//! text of the tree to what is wrong with it, with a test that shows it failing.

#![forbid(unsafe_code)]

mod chaos;
mod ci;
mod components;
mod demo;
mod disk;
mod features;
mod say;
mod services;
mod step;
mod test;
mod tidy;
mod up;
mod workspace;

use std::process::ExitCode;

const HELP: &str = "\
The developer's commands of Probity.

  cargo demo [-- OPTIONS]        run the platform's story and check its books; -- --help says more
  cargo xtask up [--sqlite]      run the platform on a PostgreSQL and a Redis that it starts, or on those that DATABASE_URL
                                 and REDIS_URL name, until Ctrl-C; --ports N and --seconds N as for the demo
  cargo xtask test               fmt, clippy, rustdoc, doctests, all tests; installs the servers they need
  cargo xtask ci                 tidy, test, package the published crates, run the benches once
  cargo xtask tidy               sizes, dependency edges, circles, twins, first sentences, promises, decisions, links, leftovers
  cargo xtask chaos [NAME]       the tests that choose at random, for much longer; --seed N makes the same choices
  cargo xtask chaos fuzz, mutants, flakes
                                 the fuzz targets, edits of the pure cores, all tests many times: by name only
  cargo xtask features           check the published crates with every two of their features; takes many minutes
  cargo xtask services install   install redis-server, PostgreSQL and PgBouncer, if missing";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo", rest @ ..] => demo::run(rest),
        ["up", rest @ ..] => up::run(rest),
        ["test"] => test::run(),
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["chaos", rest @ ..] => chaos::run(rest),
        ["features"] => features::run(),
        ["services", "install"] => services::install(),
        [] | ["help" | "--help" | "-h"] => {
            say::line(HELP);
            Ok(())
        }
        _ => Err(format!("no such command: cargo xtask {}\n\n{HELP}", words.join(" "))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say::error(&message);
            ExitCode::FAILURE
        }
    }
}
