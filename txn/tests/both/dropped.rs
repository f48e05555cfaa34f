use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use probity_txn::on;

use super::{Bank, move_60};

/// Polls `future` at most `polls` times, each time after it asked for it, then drops it.
pub(crate) async fn poll_then_drop<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll is not waited for: this is the moment of the drop.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_run_dropped_at_any_await_leaves_all_or_nothing_and_a_clean_session() {
    // proves: T-1
    // proves: T-5
    let bank = Bank::open(1).await;
    for polls in 1.. {
        let run = on(&bank.pool, "transfer").run(async |tx| {
            // A fast database answers without a pause; these are pauses all the same.
            tokio::task::yield_now().await;
            move_60(tx).await?;
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            Ok::<_, sqlx::Error>(())
        });
        let outcome = poll_then_drop(run, polls).await;
        bank.assert_clean().await;
        let balances = (bank.balance("a").await, bank.balance("b").await);
        if let Some(result) = outcome {
            result.unwrap();
            assert_eq!(balances, (40, 60));
            assert!(polls > 3, "the run must have been dropped at several points");
            return;
        }
        assert!(balances == (100, 0) || balances == (40, 60), "after {polls} polls: {balances:?}");
        sqlx::query("UPDATE accounts SET balance = CASE id WHEN 'a' THEN 100 ELSE 0 END")
            .execute(&bank.pool)
            .await
            .unwrap();
    }
}
