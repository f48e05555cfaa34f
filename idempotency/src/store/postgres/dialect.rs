//! The statements of PostgreSQL.

use super::classify::{classify, spends_the_session};
use super::migrate;
use super::rows::{bind, decode};
use super::sql::{CHANGE, CLAIM};
use super::store::PostgresStore;
use crate::core::machine::Entry;
use crate::error::StoreError;
use crate::store::sql::dialect::{Value, impl_dialect};
use crate::store::sql::names::{Names, Set};
use crate::store::sql::statements::{PATIENT_POSTGRES, POSTGRES, postgres_now};

impl_dialect!(
    sqlx::Postgres,
    PostgresStore,
    true,
    set,
    migrate::ddl,
    migrate::prepare,
    PostgresStore::around
);

fn set(names: &Names) -> Set {
    let named = |template| names.statement(template, postgres_now!());
    Set {
        callers: POSTGRES.map(named),
        own: PATIENT_POSTGRES.map(named),
        shared: [named(CLAIM), named(CHANGE)],
        behind_pooler: names.behind_pooler,
        database: <sqlx::Postgres as sqlx::Database>::NAME,
    }
}
