use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_txn::{Policy, Tx, on};

use super::metrics::Journal;
use super::{Bank, Database, move_60};

/// The events of a test, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<&'static str>>>);

impl Diary {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn read(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn hooks_run_in_order_after_the_outermost_commit() {
    // proves: T-8
    let bank = Bank::open(1).await;
    let diary = Diary::default();
    let pool = &bank.pool;
    on(pool, "transfer")
        .run(async |tx| {
            let (first, second) = (diary.clone(), diary.clone());
            let reader = pool.clone();
            tx.after_commit(async move {
                // The pool has one connection: this waits for ever unless the transaction has ended.
                let moved: i64 = sqlx::query_scalar("SELECT balance FROM accounts WHERE id = 'b'")
                    .fetch_one(&reader)
                    .await
                    .unwrap();
                first.note(if moved == 60 { "first saw the commit" } else { "first was too early" });
            });
            tx.scope(async |tx| {
                tx.after_commit(async move { second.note("second") });
                move_60(tx).await
            })
            .await
            .unwrap();
            diary.note("closure ends");
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(diary.read(), ["closure ends", "first saw the commit", "second"]);
}

#[tokio::test]
async fn hooks_of_rolled_back_scopes_and_runs_do_not_run() {
    // proves: T-8
    let bank = Bank::open(1).await;
    let diary = Diary::default();
    on(&bank.pool, "transfer")
        .run(async |tx| {
            let undone = diary.clone();
            let scope = tx
                .scope(async |tx| {
                    tx.after_commit(async move { undone.note("of an undone scope") });
                    Err::<(), _>(sqlx::Error::RowNotFound)
                })
                .await;
            assert!(scope.is_err());
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    let refused = on(&bank.pool, "transfer")
        .run(async |tx| {
            let undone = diary.clone();
            tx.after_commit(async move { undone.note("of a failed run") });
            Err::<(), _>(sqlx::Error::RowNotFound)
        })
        .await;
    assert!(refused.is_err());
    assert!(diary.read().is_empty());
}

/// Runs a hook that does not end well, and another one behind it; the run and that other hook do not notice.
async fn another_hook_runs_behind(first: fn(&mut Tx<'_, Database>)) {
    let bank = Bank::open(1).await;
    let diary = Diary::default();
    let policy = Policy { hook_timeout: Duration::from_millis(20), ..Policy::payments() };
    on(&bank.pool, "endless")
        .policy(policy)
        .run(async |tx| {
            let next = diary.clone();
            first(&mut *tx);
            tx.after_commit(async move { next.note("next") });
            move_60(tx).await
        })
        .await
        .unwrap();
    assert_eq!(diary.read(), ["next"]);
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn a_panic_in_a_hook_changes_neither_the_result_nor_the_next_hook() {
    // proves: T-8
    another_hook_runs_behind(|tx| tx.after_commit(async { panic!("a bug in a hook") })).await;
}

#[tokio::test]
async fn a_hook_that_never_ends_delays_neither_the_run_nor_the_next_hook() {
    // proves: T-8
    let (journal, _listening) = Journal::listen();
    another_hook_runs_behind(|tx| tx.after_commit(std::future::pending())).await;
    assert!(journal.has(&["event ERROR", "label=\"endless\"", "a hook took too long"]));
}
