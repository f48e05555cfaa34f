//! Real servers, kills and seeds for tests.
//!
//! A promise about money is worth what its test survived. So the tests of this workspace talk to real `postgres` and
//! real `redis-server` processes, some of them through a real `pgbouncer` or read by a real `prometheus`, cut them off with `kill -9`, freeze them with
//! `SIGSTOP`, and run our own binaries the same way. This crate makes that one line each, and makes sure that nothing
//! outlives the test.
//!
//! ```no_run
//! let database = testkit::Postgres::shared().database(); // one server per test process, one database per test
//! let url = database.url(); // hand it to sqlx; the database is dropped with `database`
//!
//! let mut own = testkit::Postgres::start(); // a server of our own, because this test breaks it
//! own.kill9(); // no goodbye: what was not on disk is gone
//! own.restart(); // same port, same data, crash recovery first
//! # let _ = url;
//! ```
//!
//! # What it promises
//!
//! * **Nothing is skipped.** A missing server is a failing test whose message is the command that installs it.
//! * **Nothing is left behind**, even when the test process itself dies by `kill -9`: every child is on a leash. A
//!   small shell, the watchdog, holds the other end of a pipe that the kernel closes when the test process ends,
//!   however it ends; then it ends every process on the leash and removes the session's folder.
//! * **Faults need exclusive ownership.** [`Postgres::shared`] gives `&'static`, and the methods that break a server
//!   take `&mut self`: a test cannot kill the server under another test's feet, because that does not compile.
//! * **Nothing waits for ever.** [`time_limit`] ends a test process that hangs, and names the tests that still run.
//! * **Durability is on.** `fsync` is as in production; a test that does not care may start a server with
//!   [`Postgres::start_with`]`(&["fsync=off"])`.
//!
//! `PROBITY_TEST_DATABASE_URL` and `PROBITY_TEST_REDIS_URL` make the `shared` servers be the given ones.
//! `PROBITY_TEST_SEED` replays the random choices of a failed test ([`seed`]).
//!
//! Everything here but [`PostgresProxy`] and [`probe`](probe()) is synchronous, and nothing knows our crates: it serves any runtime, and a test of
//! any crate can use it without compiling that crate twice. Start reading at `leash.rs`.

#![forbid(unsafe_code)]

mod account;
mod documented;
mod golden;
mod launch;
mod leash;
mod locate;
mod patience;
mod pgbouncer;
mod port;
mod postgres;
mod probe;
mod process;
mod program;
mod prometheus;
mod proxy;
mod random;
mod redis;
mod session;
mod worker;

pub use documented::{Documented, documented};
pub use golden::golden;
pub use locate::{Missing, pgbouncer, postgres_tools, prometheus, redis_server};
pub use patience::time_limit;
pub use pgbouncer::{PgBouncer, Pooling};
pub use port::free_port;
pub use postgres::{Postgres, TestDatabase, TestRole};
pub use probe::{Probe, Words, probe};
pub use program::Program;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use proxy::postgres::{Cut, PostgresProxy};
pub use random::{Rng, seed};
pub use redis::{Redis, RedisCluster, TlsFiles};
pub use session::temp_dir;
pub use tempfile::TempDir;
pub use worker::Worker;
