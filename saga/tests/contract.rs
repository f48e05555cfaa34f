//! Every store keeps the contract, and the contract catches every broken store.
#![cfg(feature = "testing")]

// proves: S-1, S-6, S-10, S-11
mod memory {
    async fn store() -> (probity_saga::MemoryStore, ()) {
        (probity_saga::MemoryStore::new(), ())
    }
    probity_saga::store_contract!(store);
}

// proves: S-1, S-6, S-10, S-11
#[cfg(feature = "sqlite")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod sqlite {
    use std::time::Duration;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

    async fn store() -> (probity_saga::SqliteStore, impl Sized) {
        let folder = testkit::temp_dir();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("saga.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        (probity_saga::SqliteStore::new(pool).await.unwrap(), folder)
    }
    probity_saga::store_contract!(store);
}

// proves: S-1, S-6, S-10, S-11
#[cfg(feature = "postgres")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod postgres {
    async fn store() -> (probity_saga::PostgresStore, impl Sized) {
        let database = testkit::Postgres::shared().database();
        let pool = sqlx::PgPool::connect(database.url()).await.unwrap();
        (probity_saga::PostgresStore::new(pool).await.unwrap(), database)
    }
    probity_saga::store_contract!(store);
}

mod broken {
    use probity_saga::SagaStore;
    use probity_saga::testing::broken::{BrokenStore, Fault};
    use probity_saga::testing::contract::{self, Violation};

    async fn clause(name: &str, store: &dyn SagaStore) -> Result<(), Violation> {
        macro_rules! named {
            ($($clause:ident)+) => {
                match name {
                    $(stringify!($clause) => contract::$clause(store).await,)+
                    other => panic!("no clause named {other}"),
                }
            };
        }
        named!(
            a_record_of_another_epoch_is_refused
            a_repeated_record_is_answered_and_not_applied_again
            each_record_of_a_batch_gets_its_own_verdict
            a_result_is_stored_as_it_was_written
            a_live_workers_sagas_are_not_claimed
            a_definition_nobody_named_is_not_claimed
            a_saga_released_until_later_is_not_claimed_before
            a_saga_that_makes_no_progress_is_parked_by_the_claim
            what_may_have_killed_its_workers_is_handed_out_by_the_few
            a_claim_takes_no_more_than_its_limit
            a_beat_tells_whether_the_lease_lapsed
            a_stale_decision_is_refused
            a_decision_for_the_undriven_spares_a_driven_saga
            a_retired_worker_owns_nothing
        )
    }

    #[tokio::test]
    async fn each_broken_store_is_caught_by_the_clause_that_names_its_fault() {
        for (fault, name) in Fault::ALL {
            let caught = clause(name, &BrokenStore::new(fault)).await;
            assert!(caught.is_err(), "{fault:?} passed {name}");
        }
    }
}
