//! The embedded migrations, and which of them a database already has.
//!
//! Invariant: a program uses the tables of its own version or of the next one, so that old and new programs run beside
//! each other while a release is rolled out.

use super::names::Names;
use crate::error::StoreError;

/// Reads the version of the tables.
pub(crate) fn read_version(names: &Names) -> String {
    format!("SELECT COALESCE(MAX(version), 0) FROM {}", names.table("schema"))
}

/// The refusal of tables that another program has yet to make.
pub(crate) fn absence(found: i64, steps: &'static [&'static str], files: &str) -> StoreError {
    let message = format!(
        "its tables have version {found} (0: there are none) and this release needs {}: run the files of `{files}` that \
         are newer, in order, as the owner of the database, or what `builder(..).ddl()` returns if there are none",
        steps.len()
    );
    StoreError::cannot_open(message)
}

/// The refusal of a database that has lost its records.
pub(crate) fn loss(names: &Names) -> StoreError {
    let message = format!(
        "the table {} is gone although {} knows it: restore it, because an empty one would run everything again; or drop \
         both to begin anew",
        names.table("records"),
        names.table("schema")
    );
    StoreError::cannot_open(message)
}

/// The steps that are missing from tables of version `found`, which is 0 if there are none. `steps` are all of them.
pub(crate) fn missing_steps(
    found: i64,
    steps: &'static [&'static str],
) -> Result<&'static [&'static str], StoreError> {
    let done = usize::try_from(found).unwrap_or_default();
    if done > steps.len() + 1 {
        let message = format!(
            "its schema has version {found}, this release knows {}; upgrade probity-idempotency",
            steps.len()
        );
        return Err(StoreError::cannot_open(message));
    }
    Ok(steps.get(done..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_migrations_run_and_only_the_next_schema_version_is_accepted() {
        let steps = |found| missing_steps(found, &["one", "two"]).ok();
        assert_eq!(steps(0), Some(&["one", "two"][..]));
        assert_eq!(steps(1), Some(&["two"][..]));
        assert_eq!((steps(2), steps(3)), (Some(&[][..]), Some(&[][..])));
        assert_eq!(steps(4), None);
    }
}
