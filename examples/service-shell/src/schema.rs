//! Applies a service's tables: one transaction, locked, one version row per service.
//!
//! Several services may share one PostgreSQL database, and several processes may start at once: the lock is
//! taken before the version is read, so each step is applied exactly once.

use crate::{POSTGRES, Pool, StartError};

/// The tables of one service, one entry per schema version, for both databases.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The key of the version row.
    pub service: &'static str,
    /// Statements for SQLite; the first entry is version 1. Entries are only ever appended.
    pub sqlite: &'static [&'static str],
    /// The same for PostgreSQL.
    pub postgres: &'static [&'static str],
}

impl Schema {
    /// Brings the database to the newest version this build knows.
    ///
    /// # Cancel safety
    /// Safe: everything happens in one transaction, which a dropped future rolls back.
    ///
    /// # Errors
    /// [`StartError::SchemaTooNew`] when a newer build was here; [`StartError::Database`] otherwise.
    pub async fn apply(&self, pool: &Pool) -> Result<(), StartError> {
        match self.apply_steps(pool).await {
            Ok(found) if found > self.newest() => Err(StartError::SchemaTooNew {
                service: self.service.to_owned(),
                found,
                known: self.newest(),
            }),
            Ok(_) => Ok(()),
            Err(source) => Err(StartError::Database { service: self.service.to_owned(), source }),
        }
    }

    fn steps(&self) -> &'static [&'static str] {
        if POSTGRES { self.postgres } else { self.sqlite }
    }

    fn newest(&self) -> i64 {
        i64::try_from(self.steps().len()).unwrap_or(i64::MAX)
    }

    /// Returns the version that was found before anything was applied.
    async fn apply_steps(&self, pool: &Pool) -> Result<i64, sqlx::Error> {
        let mut tx = pool.begin_with(if POSTGRES { "BEGIN" } else { "BEGIN IMMEDIATE" }).await?;
        if POSTGRES {
            // The number is arbitrary; it only has to be the same in every service.
            sqlx::query("SELECT pg_advisory_xact_lock(7041776)").execute(&mut *tx).await?;
        }
        // A role without the right to create tables may use those that exist.
        let known: bool = sqlx::query_scalar(if POSTGRES {
            "SELECT to_regclass('service_schema') IS NOT NULL"
        } else {
            "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'service_schema')"
        })
        .fetch_one(&mut *tx)
        .await?;
        if !known {
            sqlx::query("CREATE TABLE service_schema (service TEXT PRIMARY KEY, version BIGINT NOT NULL)")
                .execute(&mut *tx)
                .await?;
        }
        let found: i64 = sqlx::query_scalar("SELECT version FROM service_schema WHERE service = $1")
            .bind(self.service)
            .fetch_optional(&mut *tx)
            .await?
            .unwrap_or(0);
        for step in self.steps().iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
            sqlx::raw_sql(*step).execute(&mut *tx).await?;
        }
        sqlx::query(
            "INSERT INTO service_schema (service, version) VALUES ($1, $2)
             ON CONFLICT (service) DO UPDATE SET version = excluded.version
              WHERE service_schema.version < excluded.version",
        )
        .bind(self.service)
        .bind(self.newest())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(found)
    }
}
