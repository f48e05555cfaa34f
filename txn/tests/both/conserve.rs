//! Money is conserved, also when the runs that move it are dropped. The same with kills: `killed.rs` of each database.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Barrier;

use super::Bank;
use super::ledger::{audit_answers, prepare, workers};

const REQUESTS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_transfers_and_refunds_conserve_money_even_when_runs_are_dropped_at_random() {
    // proves: T-1
    // proves: T-4
    // proves: T-5
    // proves: T-6
    let bank = Bank::open(4).await;
    prepare(&bank.pool).await;
    let workers: Vec<_> = workers(testkit::seed()).collect();
    let start = Arc::new(Barrier::new(workers.len()));
    let working: Vec<_> = workers
        .into_iter()
        .map(|mut worker| {
            let (pool, start) = (bank.pool.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let mut answers = BTreeMap::new();
                for _ in 0..REQUESTS {
                    let request = worker.next_request();
                    let answer = worker.settle(&pool, &request).await;
                    answers.insert(request.token().to_owned(), answer);
                }
                answers
            })
        })
        .collect();
    let mut answers = BTreeMap::new();
    for worker in working {
        answers.append(&mut worker.await.unwrap());
    }
    audit_answers(&bank.pool, &answers).await;
}
