//! Sessions and servers are killed while money moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, PgConnection};
use testkit::{Postgres, Rng};
use tokio::sync::mpsc;

use super::both::ledger::{audit, audit_answers, prepare, workers};

/// The number of sessions that are terminated in the middle of a transaction.
const SESSIONS: u32 = 24;
/// After so many sessions the whole server is killed, and starts again with crash recovery.
const SESSIONS_PER_SERVER: u32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_transfers_refunds_and_kills_conserve_money() {
    // proves: T-1
    // proves: T-2
    // proves: T-6
    let mut server = Postgres::start();
    let pool = PgPoolOptions::new()
        .max_connections(6)
        .acquire_timeout(Duration::from_secs(60))
        .connect(server.url())
        .await
        .unwrap();
    prepare(&pool).await;
    let seed = testkit::seed();
    let mut random = Rng::new(!seed);
    let enough = Arc::new(AtomicBool::new(false));
    let (answered, mut progress) = mpsc::unbounded_channel();
    let working: Vec<_> = workers(seed)
        .map(|mut worker| {
            let (pool, enough, answered) = (pool.clone(), Arc::clone(&enough), answered.clone());
            tokio::spawn(async move {
                let mut answers = BTreeMap::new();
                while !enough.load(Ordering::SeqCst) {
                    let request = worker.next_request();
                    let answer = worker.settle(&pool, &request).await;
                    answers.insert(request.token().to_owned(), answer);
                    let _ = answered.send(());
                }
                answers
            })
        })
        .collect();

    for killed in 1..=SESSIONS {
        for _ in 0..random.between(1, 8) {
            progress.recv().await.unwrap();
        }
        terminate_one_in_a_transaction(server.url()).await;
        if killed % SESSIONS_PER_SERVER == 0 {
            server = tokio::task::spawn_blocking(move || {
                server.kill9();
                server.restart();
                server
            })
            .await
            .unwrap();
            audit(&pool).await;
        }
    }
    enough.store(true, Ordering::SeqCst);
    let mut answers = BTreeMap::new();
    for worker in working {
        answers.append(&mut worker.await.unwrap());
    }
    audit_answers(&pool, &answers).await;
}

/// Ends the session that has been longest in its transaction; waits for one.
async fn terminate_one_in_a_transaction(url: &str) {
    let mut killer = PgConnection::connect(url).await.unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        ORDER BY xact_start LIMIT 1";
    let hit = async {
        loop {
            let hit: Option<bool> = sqlx::query_scalar(terminate).fetch_optional(&mut killer).await.unwrap();
            if hit == Some(true) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), hit).await.expect("the workers never rest");
}
