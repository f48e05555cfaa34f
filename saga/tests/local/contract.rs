//! Both SQL stores keep the clauses about local steps, and the clauses catch every broken store.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use probity_saga::testing::broken::{BrokenLocalStore, LocalFault};
use probity_saga::testing::contract::{self, LocalRows, Violation};
use probity_saga::{PostgresStore, SagaStore, SqliteStore};
use sqlx::{PgConnection, PgPool, SqliteConnection, SqlitePool};

use super::stores;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

macro_rules! rows {
    ($name:ident, $pool:ty, $connection:ty) => {
        pub(crate) struct $name(pub(crate) $pool);

        #[async_trait::async_trait]
        impl LocalRows for $name {
            async fn insert(&self, connection: &mut (dyn Any + Send), key: &str) -> Result<()> {
                let connection = connection.downcast_mut::<$connection>().ok_or("another database")?;
                let insert = sqlx::query("INSERT INTO effects (saga, step) VALUES ($1, 'Put')").bind(key);
                insert.execute(connection).await?;
                Ok(())
            }

            async fn count(&self, key: &str) -> Result<u64> {
                let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects WHERE saga = $1");
                Ok(count.bind(key).fetch_one(&self.0).await?.try_into()?)
            }
        }
    };
}

rows!(SqliteRows, SqlitePool, SqliteConnection);
rows!(PostgresRows, PgPool, PgConnection);

// proves: S-6, S-9
mod sqlite {
    use super::*;

    async fn store() -> (SqliteStore, SqliteRows, impl Sized) {
        let (pool, store, folder) = stores::sqlite().await;
        (store, SqliteRows(pool), folder)
    }
    probity_saga::local_store_contract!(store);
}

// proves: S-6, S-9
mod postgres {
    use super::*;

    async fn store() -> (PostgresStore, PostgresRows, impl Sized) {
        let (pool, store, database) = stores::postgres().await;
        (store, PostgresRows(pool), database)
    }
    probity_saga::local_store_contract!(store);
}

async fn clause(
    name: &str,
    store: &dyn SagaStore,
    rows: &dyn LocalRows,
) -> std::result::Result<(), Violation> {
    match name {
        "a_local_zombie_commits_neither" => contract::a_local_zombie_commits_neither(store, rows).await,
        "a_local_record_written_before_has_no_second_effect" => {
            contract::a_local_record_written_before_has_no_second_effect(store, rows).await
        }
        "a_local_effect_and_its_record_commit_together" => {
            contract::a_local_effect_and_its_record_commit_together(store, rows).await
        }
        other => panic!("no clause named {other}"),
    }
}

#[tokio::test]
async fn each_broken_store_is_caught_by_the_clause_that_names_its_fault() {
    for (fault, name) in LocalFault::ALL {
        let (pool, store, _folder) = stores::sqlite().await;
        let broken = BrokenLocalStore::new(Arc::new(store), fault);
        let caught = clause(name, &broken, &SqliteRows(pool)).await;
        assert!(caught.is_err(), "{fault:?} passed {name}");
    }
}
