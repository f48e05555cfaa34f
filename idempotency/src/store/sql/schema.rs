//! The embedded migrations, and which of them a database already has.

use crate::{ErrorKind, StoreError};

/// The schema version this crate writes.
pub(crate) const VERSION: i64 = 1;

/// Where the version is kept.
pub(crate) const VERSION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS idempotency_schema (version BIGINT NOT NULL PRIMARY KEY)";
pub(crate) const READ_VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM idempotency_schema";
pub(crate) const WRITE_VERSION: &str = "INSERT INTO idempotency_schema (version) VALUES ($1)";

/// Refuses a database that a newer release has upgraded.
pub(crate) fn check(found: i64) -> Result<(), StoreError> {
    if found <= VERSION {
        return Ok(());
    }
    let message =
        format!("its schema has version {found}, this release knows {VERSION}; upgrade probity-idempotency");
    Err(StoreError::not_applied(ErrorKind::Rejected, message))
}
