use std::time::Duration;

use probity_txn::{
    Error, Isolation, Misuse, Policy,
    lock::{LockError, Lockable, TryLock},
    on,
};
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{Barrier, oneshot};
use tokio::time::Instant;

use super::Bank;
use super::both::lock::Account;
use super::both::metrics::Notes;
use super::both::patient;
use super::pitfalls::until_somebody_waits;

/// Holds the lock of `a` until the returned sender is dropped.
async fn hold_a(bank: &Bank) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (release, released) = oneshot::channel::<()>();
    let (locked, is_locked) = oneshot::channel();
    let pool = bank.pool.clone();
    let holder = tokio::spawn(async move {
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM accounts WHERE id = 'a' FOR NO KEY UPDATE")
            .execute(&mut *tx)
            .await
            .unwrap();
        let _ = locked.send(());
        let _ = released.await;
        tx.commit().await.unwrap();
    });
    is_locked.await.unwrap();
    (release, holder)
}

#[tokio::test]
async fn a_held_row_is_reported_to_callers_that_do_not_wait() {
    let bank = Bank::open(2).await;
    let (release, holder) = hold_a(&bank).await;
    on(&bank.pool, "lock")
        .run(async |tx| {
            assert!(matches!(tx.try_lock_one::<Account>("a").await?, TryLock::Held));
            assert!(matches!(tx.try_lock_one::<Account>("b").await?, TryLock::Locked(_)));
            let free = tx.lock_free::<Account>(["a", "b"]).await?;
            assert_eq!(free.len(), 1);
            Ok::<_, LockError>(())
        })
        .await
        .unwrap();
    let refused =
        on(&bank.pool, "lock").run(async |tx| tx.lock_one_nowait::<Account>("a").await.map(|_| ())).await;
    assert!(matches!(refused, Err(Error::App(LockError::Held { table: "accounts" }))));
    drop(release);
    holder.await.unwrap();
}

#[tokio::test]
async fn a_lock_is_refused_where_it_would_prove_nothing() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "lock")
        .isolation(Isolation::RepeatableRead)
        .run(async |tx| tx.lock_one::<Account>("a").await.map(|_| ()))
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Lock { .. }))), "{outcome:?}");
    let outcome = on(&bank.pool, "lock")
        .isolation(Isolation::RepeatableRead)
        .run(async |tx| tx.advisory("account", "a").await.map(|_| ()))
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Lock { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn rows_committed_by_the_previous_holder_are_seen_under_any_default_isolation() {
    let bank = Bank::open(1).await;
    let default = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L',
        current_database(), 'repeatable read'); END $$";
    sqlx::raw_sql(default).execute(&bank.pool).await.unwrap();
    // Only new connections use the new default.
    let pool = PgPoolOptions::new().connect_with((*bank.pool.connect_options()).clone()).await.unwrap();
    let default: String =
        sqlx::query_scalar("SHOW default_transaction_isolation").fetch_one(&pool).await.unwrap();
    assert_eq!(default, "repeatable read");

    let mut holder = bank.pool.begin().await.unwrap();
    let refund = "SELECT 1 FROM accounts WHERE id = 'a' FOR NO KEY UPDATE";
    sqlx::query(refund).execute(&mut *holder).await.unwrap();
    let looked = Barrier::new(2);
    let run = on(&pool, "refund").policy(patient()).run(async |tx| {
        // A snapshot of the whole transaction would be taken here, before the other refund.
        sqlx::query("SELECT 1 FROM accounts").execute(&mut *tx).await?;
        looked.wait().await;
        tx.lock_one::<Account>("a").await?;
        let refunds: i64 = sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(&mut *tx).await?;
        Ok::<_, LockError>(refunds)
    });
    let other = async {
        looked.wait().await;
        sqlx::query("INSERT INTO entries VALUES ('a', 60)").execute(&mut *holder).await.unwrap();
        holder.commit().await.unwrap();
    };
    let (refunds, ()) = tokio::join!(run, other);
    assert_eq!(refunds.unwrap(), 1, "the sum under the lock shows the other refund");
}

#[tokio::test]
async fn children_can_be_inserted_while_the_parent_is_locked() {
    let bank = Bank::open(2).await;
    let pool = bank.pool.clone();
    on(&bank.pool, "parent")
        .run(async |tx| {
            tx.lock_one::<Account>("a").await?;
            let pool = pool.clone();
            // With FOR UPDATE this run would wait for the parent, whose holder waits for this run.
            let child = tokio::spawn(async move {
                let entry = "INSERT INTO entries VALUES ('a', 5)";
                on(&pool, "child").run(async |tx| sqlx::query(entry).execute(&mut *tx).await).await
            });
            child.await.unwrap().expect("the child does not wait");
            Ok::<_, LockError>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn runs_that_lock_the_same_rows_in_any_order_never_deadlock() {
    // proves: T-7
    let bank = Bank::open(8).await;
    sqlx::query("INSERT INTO accounts SELECT 'n' || i, 100 FROM generate_series(1, 10) AS i")
        .execute(&bank.pool)
        .await
        .unwrap();
    let seed = testkit::seed();
    let start = std::sync::Arc::new(Barrier::new(8));
    let workers = (0..8_u64).map(|worker| {
        let pool = bank.pool.clone();
        let start = start.clone();
        tokio::spawn(async move {
            let mut random = testkit::Rng::new(seed ^ worker);
            start.wait().await;
            for _ in 0..25 {
                let mut keys: Vec<_> = (1..=10).map(|number| format!("n{number}")).collect();
                random.shuffle(&mut keys);
                keys.truncate(5);
                // One attempt: a deadlock would be a failure, not a retry.
                let policy = Policy { attempts: 1, ..patient() };
                on(&pool, "shuffle")
                    .policy(policy)
                    .run(async |tx| {
                        for row in tx.lock_many::<Account>(keys.iter().map(String::as_str)).await? {
                            sqlx::query("UPDATE accounts SET balance = balance + 1 WHERE id = $1")
                                .bind(row.key())
                                .execute(&mut *tx)
                                .await?;
                        }
                        Ok::<_, LockError>(())
                    })
                    .await
                    .unwrap();
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let sum: i64 =
        sqlx::query_scalar("SELECT sum(balance)::bigint FROM accounts").fetch_one(&bank.pool).await.unwrap();
    assert_eq!(sum, 100 + 10 * 100 + 8 * 25 * 5);
}

#[tokio::test]
async fn an_advisory_lock_keeps_the_second_run_out_until_the_first_has_committed() {
    let bank = Bank::open(2).await;
    let both = Barrier::new(2);
    // Check, then insert: without the lock both would find no row.
    let register = || {
        on(&bank.pool, "register").policy(patient()).run(async |tx| {
            if tx.attempt() == 1 {
                both.wait().await;
            }
            tx.advisory("customer", "42").await?;
            let known: i64 = sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(&mut *tx).await?;
            if known == 0 {
                sqlx::query("INSERT INTO entries VALUES ('a', 1)").execute(&mut *tx).await?;
            }
            Ok::<_, LockError>(known)
        })
    };
    let (one, two) = tokio::join!(register(), register());
    let mut found = [one.unwrap(), two.unwrap()];
    found.sort_unstable();
    assert_eq!(found, [0, 1]);
}

#[tokio::test]
async fn waiting_for_a_lock_is_not_time_between_statements() {
    let bank = Bank::open(3).await;
    let (release, holder) = hold_a(&bank).await;
    let notes = Notes::default();
    let _recorded = metrics::set_default_local_recorder(&notes);
    let began = Instant::now();
    let run = on(&bank.pool, "patient")
        .policy(patient())
        .run(async |tx| tx.lock_one::<Account>("a").await.map(|_| ()));
    let later = async {
        until_somebody_waits(&bank.pool).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(release);
    };
    let (outcome, ()) = tokio::join!(run, later);
    let all = began.elapsed();
    outcome.unwrap();
    holder.await.unwrap();
    let last = |name: &str| Duration::from_secs_f64(notes.last(&format!("{name}{{label=patient}}")));
    let waited = last("probity_txn_lock_wait_seconds");
    let between = last("probity_txn_between_statements_seconds");
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(waited + between <= all, "{waited:?} and {between:?} of {all:?}: some of it counts twice");
}

#[tokio::test]
async fn a_key_that_comes_back_with_blanks_is_not_missing() {
    let bank = Bank::open(1).await;
    super::both::lock::equal_by_the_database_alone(&bank, "CHAR(8)", "a", "a").await;
}

#[tokio::test]
async fn a_row_replaced_during_the_wait_is_not_reported_as_locked() {
    let bank = Bank::open(4).await;
    let mut holder = bank.pool.begin().await.unwrap();
    sqlx::query("DELETE FROM accounts WHERE id = 'a'").execute(&mut *holder).await.unwrap();
    let run = on(&bank.pool, "lock")
        .policy(patient())
        .run(async |tx| tx.lock_many::<Account>(["a", "b"]).await.map(|rows| rows.len()));
    let replace = async {
        until_somebody_waits(&bank.pool).await;
        sqlx::query("INSERT INTO accounts VALUES ('a', 0)").execute(&mut *holder).await.unwrap();
        holder.commit().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(run, replace);
    assert!(matches!(outcome, Err(Error::App(LockError::Missing { missing: 1, .. }))), "{outcome:?}");
}

struct Qualified;

impl Lockable for Qualified {
    type Key = String;
    const TABLE: &'static str = "public.accounts";
}

#[tokio::test]
async fn a_table_may_be_named_with_its_schema() {
    let bank = Bank::open(1).await;
    let rows = on(&bank.pool, "lock")
        .run(async |tx| tx.lock_many::<Qualified>(["a", "b"]).await.map(|rows| rows.len()))
        .await;
    assert_eq!(rows.unwrap(), 2);
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
struct AccountNo(String);

struct Numbered;

impl Lockable for Numbered {
    type Key = AccountNo;
    const TABLE: &'static str = "accounts";
}

#[tokio::test]
async fn the_statement_is_the_same_for_every_number_of_keys() {
    // proves: T-7
    let bank = Bank::open(1).await;
    sqlx::query("INSERT INTO accounts SELECT 'n' || i, 100 FROM generate_series(1, 100) AS i")
        .execute(&bank.pool)
        .await
        .unwrap();
    let texts: Vec<String> = on(&bank.pool, "lock")
        .run(async |tx| {
            for count in 1..=100 {
                let keys = (1..=count).map(|number| AccountNo(format!("n{number}")));
                let locked = tx.lock_many::<Numbered>(keys).await?;
                assert!(locked.is_sorted_by(|a, b| a.key() < b.key()));
                assert_eq!(locked.len(), count);
            }
            let texts = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%FROM accounts%FOR NO KEY UPDATE'";
            Ok::<_, LockError>(sqlx::query_scalar(texts).fetch_all(&mut *tx).await?)
        })
        .await
        .unwrap();
    assert_eq!(texts.len(), 2, "one for one key, one for every other count: {texts:?}");
}

#[tokio::test]
async fn rows_are_locked_in_the_order_of_their_keys_and_not_of_the_array_or_the_table() {
    // proves: T-7
    let bank = Bank::open(4).await;
    // The rows are stored in the reverse order, and without an index the database would lock them in that order.
    sqlx::raw_sql("ALTER TABLE entries DROP CONSTRAINT entries_account_fkey; ALTER TABLE accounts DROP CONSTRAINT accounts_pkey;
        DELETE FROM accounts; INSERT INTO accounts VALUES ('c', 1), ('b', 1), ('a', 1)")
        .execute(&bank.pool)
        .await
        .unwrap();
    let (release, holder) = hold_a(&bank).await;
    let waiting = on(&bank.pool, "lock")
        .run(async |tx| tx.lock_many::<Account>(["c", "b", "a"]).await.map(|rows| rows.len()));
    let look = async {
        until_somebody_waits(&bank.pool).await;
        let free = "SELECT id FROM accounts WHERE id > 'a' FOR UPDATE SKIP LOCKED";
        let free: Vec<String> = sqlx::query_scalar(free).fetch_all(&bank.pool).await.unwrap();
        drop(release);
        free.len()
    };
    let (locked, free) = tokio::join!(waiting, look);
    holder.await.unwrap();
    assert_eq!((locked.unwrap(), free), (3, 2), "it holds nothing behind the key that it waits for");
}
