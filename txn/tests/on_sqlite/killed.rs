//! The process is killed while money moves. The test reads the file afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use testkit::{Program, Rng, Worker};

use super::both::ledger::{Answer, audit, audit_answers, prepare, workers};

/// Its orders are a seed and a file.
const WORKER: Worker = Worker::named("killed::a_process_that_moves_money");
const REQUESTS_PER_WORKER: u32 = 20;
const KILLS: u64 = 8;

async fn open(file: &Path) -> SqlitePool {
    let options = probity_txn::sqlite::options(file);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

/// Runs as the process that is killed: carries out everything from the beginning, under the same
/// tokens in each life, and writes down what it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_moves_money() {
    let Some(role) = WORKER.orders() else { return };
    let (seed, file) = role.split_once(' ').unwrap();
    let pool = open(Path::new(file)).await;
    let count = Arc::new(AtomicU32::new(0));
    let working: Vec<_> = workers(seed.parse().unwrap())
        .map(|mut worker| {
            let (pool, count) = (pool.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                for _ in 0..REQUESTS_PER_WORKER {
                    let request = worker.next_request();
                    let answer = worker.settle(&pool, &request).await;
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    println!("answer {number}; {} {answer:?}", request.token());
                }
            })
        })
        .collect();
    for worker in working {
        worker.await.unwrap();
    }
    println!("all answered");
}

fn start(seed: u64, file: &Path) -> Program {
    WORKER.start(&format!("{seed} {}", file.display()))
}

/// The answers that the process got, by token.
fn answers(output: &str) -> BTreeMap<String, Answer> {
    let lines = output.lines().filter_map(|line| line.split_once("answer ")?.1.split_once("; "));
    lines
        .filter_map(|(_, answer)| answer.split_once(' '))
        .map(|(token, answer)| {
            (token.to_owned(), if answer == "Done" { Answer::Done } else { Answer::Refused })
        })
        .collect()
}

#[tokio::test]
async fn random_transfers_refunds_and_kills_conserve_money() {
    // proves: T-1
    // proves: T-2
    // proves: T-6
    let folder = testkit::temp_dir();
    let file = folder.path().join("ledger.db");
    let pool = open(&file).await;
    prepare(&pool).await;
    pool.close().await;
    let seed = testkit::seed();
    let mut random = Rng::new(!seed);
    for life in 0..KILLS {
        let mut process = start(seed, &file);
        process.wait_for_line(&format!("answer {};", life * 10 + random.between(0, 9)));
        process.kill9();
        let told = answers(&process.output());
        let pool = open(&file).await;
        audit(&pool).await;
        for (token, _) in told.iter().filter(|(_, answer)| **answer == Answer::Done) {
            let effects: i64 = sqlx::query_scalar("SELECT count(*) FROM effects WHERE token = $1")
                .bind(token)
                .fetch_one(&pool)
                .await
                .unwrap();
            assert_eq!(effects, 1, "{token} was answered before the kill");
        }
        pool.close().await;
    }
    let mut process = start(seed, &file);
    process.wait_for_line("all answered");
    process.wait();
    let told = answers(&process.output());
    assert_eq!(told.len(), 120, "six workers, twenty requests each");
    audit_answers(&open(&file).await, &told).await;
}
