//! Both SQL stores keep the clauses about local steps, and the clauses catch every broken store.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use probity_saga::testing::broken::{BrokenLocalStore, LocalFault};
use probity_saga::testing::contract::{self, LocalRows};
use probity_saga::{PostgresStore, SqliteStore};
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

mod sqlite {
    use super::*;

    async fn store() -> (SqliteStore, SqliteRows, impl Sized) {
        let (pool, store, folder) = stores::sqlite().await;
        (store, SqliteRows(pool), folder)
    }
    // proves: S-6, S-9
    probity_saga::local_store_contract!(store);
}

mod postgres {
    use super::*;

    async fn store() -> (PostgresStore, PostgresRows, impl Sized) {
        let (pool, store, database) = stores::postgres().await;
        (store, PostgresRows(pool), database)
    }
    // proves: S-6, S-9
    probity_saga::local_store_contract!(store);
}

#[tokio::test]
async fn each_broken_store_is_caught_by_the_clause_that_names_its_fault() {
    for (fault, name) in LocalFault::ALL {
        let (pool, store, _folder) = stores::sqlite().await;
        let broken = BrokenLocalStore::new(Arc::new(store), fault);
        assert!(contract::LOCAL_CLAUSES.contains(&name), "no clause is named {name}");
        let caught = contract::local_clause(name, &broken, &SqliteRows(pool)).await;
        assert!(caught.is_err(), "{fault:?} passed {name}");
    }
}

#[test]
fn each_clause_about_local_steps_catches_a_broken_store() {
    for clause in contract::LOCAL_CLAUSES {
        assert!(LocalFault::ALL.iter().any(|(_, by)| by == clause), "no fault is caught by {clause}");
    }
}
