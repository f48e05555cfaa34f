//! Servers that were given to the tests: named by the environment, used and never broken.
//!
//! The environment of a process cannot be changed safely while it runs, so the test starts this binary once more.

use testkit::{Postgres, Program, Redis, Worker};

const DATABASE: &str = "PROBITY_TEST_DATABASE_URL";
const REDIS: &str = "PROBITY_TEST_REDIS_URL";
const GUEST: Worker = Worker::named("a_test_process_that_was_given_servers");

/// Runs as the test process whose environment names the servers.
#[test]
fn a_test_process_that_was_given_servers() {
    if GUEST.orders().is_none() {
        return;
    }
    assert_eq!(Postgres::shared().url(), std::env::var(DATABASE).expect("given"));
    assert_eq!(Redis::shared().url(), std::env::var(REDIS).expect("given"));
    let database = Postgres::shared().database();
    println!("created {}", database.query("SELECT current_database()"));
}

#[test]
fn given_servers_are_used_and_left_clean() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let mut command = GUEST.command("look");
    command.env(DATABASE, postgres.url()).env(REDIS, redis.url());
    let mut process = Program::spawn(command);
    assert!(process.wait().success(), "{}", process.output());
    assert!(process.output().contains("created probity_test_"), "{}", process.output());
    let left =
        postgres.database().query("SELECT count(*) FROM pg_database WHERE datname LIKE 'probity_test_%'");
    assert_eq!(left, "1", "only the database that asks");
}
