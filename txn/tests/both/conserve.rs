//! Money is conserved, whatever happens to the runs that move it.

use std::sync::Arc;

use probity_txn::{Affected as _, Error, LockError, Policy, Tx, on};
use testkit::Rng;
use tokio::sync::Barrier;

use super::dropped::poll_then_drop;
use super::lock::Account;
use super::{Bank, Database};

const WORKERS: u64 = 6;
const MOVES: u32 = 20;
const NAMES: [&str; 4] = ["c", "d", "e", "f"];

#[derive(Clone, Copy)]
struct Move {
    from: &'static str,
    to: &'static str,
    amount: i64,
    /// Locks both rows first, or lets the guards of the updates decide.
    locks: bool,
}

/// Takes from one account and gives to the other; the second half may fail alone, with the first.
async fn carry_out(tx: &mut Tx<'_, Database>, step: Move) -> Result<(), LockError> {
    if step.locks {
        let _both = tx.lock_many::<Account>([step.from, step.to]).await?;
    }
    sqlx::query("UPDATE accounts SET balance = balance - $1 WHERE id = $2 AND balance >= $1")
        .bind(step.amount)
        .bind(step.from)
        .execute(&mut *tx)
        .await?
        .expect_one()
        .map_err(sqlx::Error::from)?;
    sqlx::query("UPDATE accounts SET balance = balance + $1 WHERE id = $2")
        .bind(step.amount)
        .bind(step.to)
        .execute(&mut *tx)
        .await?
        .expect_one()
        .map_err(sqlx::Error::from)?;
    Ok(())
}

fn choose(random: &mut Rng) -> Move {
    let mut names = NAMES;
    random.shuffle(&mut names);
    let amount = i64::try_from(random.between(1, 80)).unwrap();
    Move { from: names[0], to: names[1], amount, locks: random.between(0, 1) == 1 }
}

async fn work(bank: Arc<Bank>, mut random: Rng, start: Arc<Barrier>) {
    start.wait().await;
    for _ in 0..MOVES {
        let step = choose(&mut random);
        let policy = Policy { attempts: 50, ..Policy::payments() };
        let run = on(&bank.pool, "move").policy(policy).run(async |tx| carry_out(tx, step).await);
        let outcome = match random.between(0, 2) {
            0 => {
                let polls = u32::try_from(random.between(1, 12)).unwrap();
                match poll_then_drop(run, polls).await {
                    Some(outcome) => outcome,
                    None => continue,
                }
            }
            _ => run.await,
        };
        match outcome {
            // Too little on the account is the only refusal there may be.
            Ok(()) | Err(Error::App(LockError::Database(sqlx::Error::RowNotFound))) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_moves_conserve_money_even_when_runs_are_dropped_at_random() {
    // proves: T-1
    // proves: T-4
    // proves: T-5
    let bank = Arc::new(Bank::open(4).await);
    sqlx::query("INSERT INTO accounts VALUES ('c', 100), ('d', 100), ('e', 100), ('f', 100)")
        .execute(&bank.pool)
        .await
        .unwrap();
    let seed = testkit::seed();
    let start = Arc::new(Barrier::new(usize::try_from(WORKERS).unwrap()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(Arc::clone(&bank), Rng::new(seed ^ worker), Arc::clone(&start))))
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let mut total = 0;
    for name in NAMES {
        let balance = bank.balance(name).await;
        assert!(balance >= 0);
        total += balance;
    }
    assert_eq!(total, 400);
}
