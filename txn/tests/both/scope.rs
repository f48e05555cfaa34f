use futures_util::future::BoxFuture;
use probity_txn::{Error, Misuse, Reason, on};
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
            assert!(matches!(kept, Err(Error::RolledBack(Reason::StatementFailed(_)))));
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
    assert!(matches!(outcome, Err(Error::RolledBack(Reason::ScopeAbandoned))), "{outcome:?}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn a_transaction_keeps_at_most_64_scopes_but_undoes_as_many_as_it_likes() {
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
            let one_more = tx.scope(async |_tx| Ok::<_, sqlx::Error>(())).await;
            assert!(matches!(one_more, Err(Error::Misuse(Misuse::TooManyScopes { limit: 64 }))));
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_undone_scope_gives_the_places_of_the_scopes_inside_it_back() {
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
        match tx.scope(async move |tx| Ok::<_, sqlx::Error>(nest(tx, limit - 1).await)).await {
            Ok(deeper) => deeper + 1,
            Err(refused) => {
                assert!(matches!(refused, Error::Misuse(Misuse::TooManyScopes { limit: 64 })), "{refused:?}");
                0
            }
        }
    })
}

#[tokio::test]
async fn scopes_that_are_open_inside_of_each_other_count() {
    let bank = Bank::open(1).await;
    let deep = on(&bank.pool, "deep").run(async |tx| Ok::<_, sqlx::Error>(nest(tx, 70).await)).await;
    assert_eq!(deep.unwrap(), 64);
}
