use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use probity_txn::{Error, Misuse, RollbackReason, on};
use tokio::sync::Notify;

use super::{Bank, move_60};

#[tokio::test]
async fn a_failed_scope_is_undone_and_the_transaction_goes_on() {
    let bank = Bank::open(1).await;
    on(&bank.pool, "transfer")
        .run(async |tx| {
            move_60(tx).await?;
            let overdraft = tx.scope(async |tx| move_60(tx).await).await;
            assert!(matches!(overdraft, Err(Error::App(sqlx::Error::Database(_)))));
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60));
}

#[tokio::test]
async fn a_scope_that_swallows_an_error_is_undone() {
    // proves: T-3
    let bank = Bank::open(1).await;
    on(&bank.pool, "transfer")
        .run(async |tx| {
            let kept = tx
                .scope(async |tx| {
                    move_60(tx).await?;
                    let _ = move_60(tx).await;
                    Ok::<_, sqlx::Error>(())
                })
                .await;
            assert!(matches!(kept, Err(Error::RolledBack(RollbackReason::StatementFailed(_)))));
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn scopes_nest_and_may_change_what_they_capture() {
    let bank = Bank::open(1).await;
    let kept = on(&bank.pool, "transfer")
        .run(async |tx| {
            let mut kept = Vec::new();
            let outer = tx
                .scope(async |tx| {
                    kept.push("outer");
                    let inner = tx
                        .scope(async |tx| {
                            kept.push("inner");
                            move_60(tx).await?;
                            Err::<(), _>(sqlx::Error::RowNotFound)
                        })
                        .await;
                    assert!(inner.is_err());
                    move_60(tx).await
                })
                .await;
            outer.unwrap();
            Ok::<_, sqlx::Error>(kept)
        })
        .await
        .unwrap();
    assert_eq!(kept, ["outer", "inner"]);
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60));
}

#[tokio::test]
async fn a_scope_dropped_half_way_is_never_committed() {
    // proves: T-3
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| {
            let half_way = Notify::new();
            let scope = tx.scope(async |tx| {
                move_60(tx).await?;
                half_way.notify_one();
                std::future::pending::<()>().await;
                Ok::<_, sqlx::Error>(())
            });
            tokio::select! {
                _ = scope => panic!("the scope never ends"),
                () = half_way.notified() => {}
            }
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::ScopeAbandoned))), "{outcome:?}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn a_transaction_keeps_64_scopes_and_undoes_any_number() {
    let bank = Bank::open(1).await;
    on(&bank.pool, "many")
        .run(async |tx| {
            for _ in 0..100 {
                let undone = tx.scope(async |_tx| Err::<(), _>(sqlx::Error::RowNotFound)).await;
                assert!(undone.is_err());
            }
            for _ in 0..64 {
                tx.scope(async |_tx| Ok::<_, sqlx::Error>(())).await.unwrap();
            }
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
}

/// A table that takes each name once, and one for what it refused.
async fn names(bank: &Bank) {
    sqlx::raw_sql("CREATE TABLE names (name TEXT PRIMARY KEY); CREATE TABLE duplicates (name TEXT)")
        .execute(&bank.pool)
        .await
        .unwrap();
}

async fn file(tx: &mut probity_txn::Tx<'_, super::Database>, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO names VALUES ($1)").bind(name).execute(&mut *tx).await.map(drop)
}

async fn count(bank: &Bank, table: &str) -> i64 {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(count).fetch_one(&bank.pool).await.unwrap()
}

#[tokio::test]
async fn a_scope_above_the_limit_ends_the_run_and_nothing_is_committed() {
    // proves: T-3
    let bank = Bank::open(1).await;
    names(&bank).await;
    let outcome = on(&bank.pool, "import")
        .run(async |tx| {
            for number in 0..70 {
                let name = format!("n{number}");
                let filed = tx.scope(async |tx| file(tx, &name).await).await;
                if filed.is_err() {
                    // The error of this is swallowed as well.
                    let _ =
                        sqlx::query("INSERT INTO duplicates VALUES ($1)").bind(&name).execute(&mut *tx).await;
                }
            }
            // This closure answers "duplicate", although the scope was refused.
            Err::<(), _>("duplicate")
        })
        .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::TooManyScopes { limit: 64 })), "{error:?}");
    assert!(error.to_string().contains("use scope_each for a list"), "the remedy: {error}");
    assert_eq!((count(&bank, "names").await, count(&bank, "duplicates").await), (0, 0));
}

#[tokio::test]
async fn each_item_of_a_list_of_any_length_fails_alone() {
    let bank = Bank::open(1).await;
    names(&bank).await;
    // Every seventh is there already, and every ninth comes twice.
    for number in (0..200).step_by(7) {
        let there = sqlx::query("INSERT INTO names VALUES ($1)").bind(format!("n{number}"));
        there.execute(&bank.pool).await.unwrap();
    }
    let twice = (0..200).step_by(9);
    let list: Vec<String> = (0..200).chain(twice).map(|number| format!("n{number}")).collect();
    let there = count(&bank, "names").await;
    let duplicates = on(&bank.pool, "import")
        .run(async |tx| {
            let filed = tx.scope_each(&list, async |tx, name| file(tx, name).await).await.unwrap();
            assert_eq!(filed.len(), list.len());
            let mut duplicates = Vec::new();
            for (name, outcome) in list.iter().zip(filed) {
                match outcome {
                    Ok(()) => {}
                    Err(Error::App(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                        sqlx::query("INSERT INTO duplicates VALUES ($1)")
                            .bind(name)
                            .execute(&mut *tx)
                            .await?;
                        duplicates.push(name.clone());
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
            // It kept few scopes: these fit beside them.
            for _ in 0..48 {
                tx.scope(async |_tx| Ok::<_, sqlx::Error>(())).await.unwrap();
            }
            Ok::<_, sqlx::Error>(duplicates)
        })
        .await
        .unwrap();
    let expected = (0..200).step_by(7).chain((0..200).step_by(9)).map(|number| format!("n{number}"));
    assert_eq!(duplicates, expected.collect::<Vec<_>>());
    assert_eq!(count(&bank, "names").await, 200);
    assert_eq!(count(&bank, "duplicates").await, i64::try_from(duplicates.len()).unwrap());
    assert!(there > 0);
}

#[tokio::test]
async fn hooks_and_swallowed_errors_of_a_list_item_are_undone_with_it() {
    // proves: T-3
    // proves: T-8
    let bank = Bank::open(1).await;
    names(&bank).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = ["a", "b", "b", "c", "c"];
    let outcomes = on(&bank.pool, "import")
        .run(async |tx| {
            let outcomes = tx
                // More items than groups, so that some share a savepoint.
                .scope_each(list.repeat(8), async |tx, name| {
                    let told = Arc::clone(&told);
                    tx.after_commit(async move { told.lock().unwrap().push(name) });
                    let _ = file(tx, name).await;
                    Ok::<_, sqlx::Error>(())
                })
                .await
                .unwrap();
            Ok::<_, sqlx::Error>(outcomes.iter().filter(|outcome| outcome.is_ok()).count())
        })
        .await
        .unwrap();
    assert_eq!(outcomes, 3, "an item that swallowed an error is undone");
    assert_eq!(*told.lock().unwrap(), ["a", "b", "c"]);
    assert_eq!(count(&bank, "names").await, 3);
}

#[tokio::test]
async fn a_statement_that_is_refused_inside_a_scope_ends_the_run_and_not_the_scope() {
    // proves: T-3
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "refused")
        .run(async |tx| {
            move_60(tx).await?;
            let refused = tx.scope(async |tx| sqlx::query("COMMIT").execute(&mut *tx).await).await;
            assert!(matches!(refused, Err(Error::Misuse(Misuse::Statement { .. }))), "{refused:?}");
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Statement { .. }))), "{outcome:?}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn an_undone_scope_frees_the_savepoints_inside_it() {
    let bank = Bank::open(1).await;
    on(&bank.pool, "many")
        .run(async |tx| {
            for _ in 0..32 {
                let undone = tx
                    .scope(async |tx| {
                        for _ in 0..4 {
                            tx.scope(async |_tx| Ok::<_, sqlx::Error>(())).await.unwrap();
                        }
                        Err::<(), _>(sqlx::Error::RowNotFound)
                    })
                    .await;
                assert!(matches!(undone, Err(Error::App(_))), "{undone:?}");
            }
            for _ in 0..64 {
                tx.scope(async |_tx| Ok::<_, sqlx::Error>(())).await.unwrap();
            }
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
}

/// Opens scopes inside of each other; answers how many there were.
fn nest<'a>(tx: &'a mut probity_txn::Tx<'_, super::Database>, limit: u32) -> BoxFuture<'a, u32> {
    Box::pin(async move {
        if limit == 0 {
            return 0;
        }
        let mut deeper = None;
        let _refused = tx
            .scope(async |tx| {
                deeper = Some(nest(tx, limit - 1).await);
                Ok::<_, sqlx::Error>(())
            })
            .await;
        deeper.map_or(0, |deeper| deeper + 1)
    })
}

#[tokio::test]
async fn nested_open_scopes_count_towards_the_limit() {
    let bank = Bank::open(1).await;
    let opened = AtomicU32::new(0);
    let deep = on(&bank.pool, "deep")
        .run(async |tx| {
            opened.store(nest(tx, 70).await, Ordering::Relaxed);
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(deep, Err(Error::Misuse(Misuse::TooManyScopes { limit: 64 }))), "{deep:?}");
    assert_eq!(opened.into_inner(), 64);
}
