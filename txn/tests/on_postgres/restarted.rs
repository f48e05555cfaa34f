//! COMMITs that are under way while the server restarts: cleanly and by a crash, with and without a token.
//!
//! Runs are counted so: the wire holds each COMMIT fast, half of them before the server sees it and half
//! behind the server's answer, and says so. Only when all of a round are held the server goes down, so each
//! of them was in flight, and only when it serves again the wire lets go, so each of them lost its answer, and
//! none of them looks for it on a server that is still on its way down.

use std::collections::BTreeMap;
use std::time::Duration;

use probity_txn::{Effect, Error, Policy, create_token_table, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::{Cut, PostgresProxy};
use tokio::sync::oneshot;

use super::lost::a_proxy;

const ROUNDS: usize = 14;
/// In each round, so many with a token, and so many without.
const IN_FLIGHT: usize = 16;

type Outcome = Result<String, Error<sqlx::Error>>;

/// The way in which the server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Cleanly,
    Crashing,
}

/// Writes its name into the table that refuses nothing.
async fn run(pool: PgPool, name: String, token: bool) -> (String, Outcome) {
    let transaction = on(&pool, "effect").policy(Policy {
        deadline: Duration::from_secs(120),
        commit_timeout: Duration::from_secs(120),
        ..Policy::payments()
    });
    let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| -> Result<String, sqlx::Error> {
        sqlx::query("INSERT INTO effects VALUES ($1)").bind(&name).execute(&mut *tx).await?;
        Ok(name.clone())
    };
    let outcome = if token { transaction.once(&name).run(body).await } else { transaction.run(body).await };
    (name, outcome)
}

/// Starts a round's runs, takes the server down under all of them, and brings it back.
async fn round(
    proxy: &PostgresProxy,
    pool: &PgPool,
    mut server: testkit::Postgres,
    number: usize,
    down: Down,
) -> (testkit::Postgres, Vec<(String, Outcome)>) {
    let cuts = [Cut::BeforeTheServer, Cut::BeforeTheAnswer].into_iter().cycle().take(2 * IN_FLIGHT);
    let mut held = proxy.pause_next(cuts);
    let runs: Vec<_> = (0..2 * IN_FLIGHT)
        .map(|place| {
            let token = place % 4 < 2;
            let name = format!("{} {number} {place}", if token { "token" } else { "plain" });
            tokio::spawn(run(pool.clone(), name, token))
        })
        .collect();
    let mut let_go: Vec<oneshot::Sender<()>> = Vec::new();
    while let_go.len() < 2 * IN_FLIGHT {
        let_go.push(held.recv().await.expect("each run sends a COMMIT"));
    }
    server = tokio::task::spawn_blocking(move || {
        match down {
            Down::Cleanly => server.stop(),
            Down::Crashing => server.kill9(),
        }
        server.restart();
        server
    })
    .await
    .unwrap();
    drop(let_go);
    let mut outcomes = Vec::new();
    for run in runs {
        outcomes.push(run.await.unwrap());
    }
    (server, outcomes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_commits_in_flight_at_a_restart_are_each_settled_once() {
    // proves: T-2
    // proves: T-6
    let mut server = testkit::Postgres::start();
    let url = server.url().to_owned();
    let proxy = a_proxy(&url).await;
    let pool = PgPoolOptions::new()
        .max_connections(u32::try_from(2 * IN_FLIGHT + 4).unwrap())
        .acquire_timeout(Duration::from_secs(120))
        .connect(&proxy.url(&url))
        .await
        .unwrap();
    sqlx::query("CREATE TABLE effects (name TEXT NOT NULL)").execute(&pool).await.unwrap();
    create_token_table(&pool).await.unwrap();

    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..ROUNDS {
        let down = if number % 2 == 0 { Down::Cleanly } else { Down::Crashing };
        let (back, outcomes) = round(&proxy, &pool, server, number, down).await;
        server = back;
        for (name, outcome) in outcomes {
            let effects: i64 = sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = $1")
                .bind(&name)
                .fetch_one(&pool)
                .await
                .unwrap();
            let kind = if name.starts_with("token") { "token" } else { "plain" };
            *counted.entry(kind).or_default() += 1;
            match outcome {
                Ok(result) => assert_eq!((&result, effects), (&name, 1), "{down:?}"),
                // Without a token the outcome across a crash is unknown, and the run says so.
                Err(error) => {
                    assert_eq!((kind, down), ("plain", Down::Crashing), "{name}: {error}");
                    assert!(matches!(error, Error::Unknown { .. }), "{name}: {error}");
                    assert_eq!(error.effect(), Effect::Unknown);
                    assert!(effects <= 1, "{name}");
                }
            }
        }
    }
    assert!(counted["token"] >= 200 && counted["plain"] >= 200, "too few were in flight: {counted:?}");
}
