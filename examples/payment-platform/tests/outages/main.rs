//! Every service and every database away, at random, while payments, refunds and withdrawals run; then the books.
//!
//! Each service is a process of its own. In each round customers come, and one or two neighbours go away for 1 s to
//! 3 min: a process gets `kill -9`, or is frozen; a database is locked (SQLite), or its server is killed or frozen
//! (PostgreSQL). `PROBITY_TEST_SECOND_MS` says how long a second is, for outages and for every wait of the services
//! alike; `PROBITY_TEST_ROUNDS` how many rounds there are; `PROBITY_TEST_SEED` makes the same choices again.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod books;
mod customers;
mod neighbours;

use std::time::Duration;

use books::Books;
use customers::Customers;
use neighbours::Neighbours;
use testkit::Rng;
use tokio::time::{Instant, sleep};

/// For everything to come to rest after the last outage; only a fault reaches it.
const PATIENCE: Duration = Duration::from_secs(900);

/// The books are read this often while the outages go on.
const READ_EVERY: u64 = 10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

// proves: S-5, S-7, S-8, S-12, S-13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_away_money_is_where_the_books_say_or_visibly_open() {
    testkit::time_limit();
    let rounds = number("PROBITY_TEST_ROUNDS", 4);
    let second = Duration::from_millis(number("PROBITY_TEST_SECOND_MS", 10));
    let mut rng = Rng::new(testkit::seed());
    let mut neighbours = Neighbours::start(second);
    let mut customers = Customers::open(&neighbours).await;
    for round in 0..rounds {
        customers.come(&mut rng, round).await;
        neighbours.outage(&mut rng, second).await;
        if round % READ_EVERY == READ_EVERY - 1 {
            println!("round {round}: {}", neighbours.summary());
            Books::read(&neighbours).await.assert_honest();
        }
    }
    let told = customers.leave(PATIENCE).await;
    let books = at_rest(&neighbours, &customers).await;
    books.assert_honest();
    books.assert_told(&told);
    println!("{rounds} rounds of outages ({}): {}", neighbours.summary(), books.summary());
    books.assert_says_something();
}

/// Waits until nothing moves, now that every service is back: what waits goes on by itself, and an operator lets each saga
/// that is stuck go on once.
async fn at_rest(neighbours: &Neighbours, customers: &Customers) -> Books {
    let deadline = Instant::now() + PATIENCE;
    let mut retried = std::collections::BTreeSet::new();
    loop {
        let books = Books::read(neighbours).await;
        let stuck = books.stuck();
        for saga in stuck.iter().filter(|saga| !retried.contains(*saga)) {
            customers.retry(saga).await;
        }
        let fresh = stuck.iter().any(|saga| retried.insert(saga.clone()));
        if !fresh && books.open() == stuck.len() {
            return books;
        }
        assert!(Instant::now() < deadline, "still moving: {:?}", books.moving());
        sleep(Duration::from_millis(200)).await;
    }
}
