//! The embedded migrations, and which of them a database already has.
//!
//! Invariant: a program uses the tables of its own version or of the next one, so that old and new programs run beside
//! each other while a release is rolled out.

use crate::{ErrorKind, StoreError};

/// Reads the version of the tables.
pub(super) const READ_VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM idempotency_schema";

/// The steps that are missing from tables of version `found`, which is 0 if there are none. `steps` are all of them.
pub(super) fn missing(
    found: i64,
    steps: &'static [&'static str],
) -> Result<&'static [&'static str], StoreError> {
    let done = usize::try_from(found).unwrap_or_default();
    if done > steps.len() + 1 {
        let message = format!(
            "its schema has version {found}, this release knows {}; upgrade probity-idempotency",
            steps.len()
        );
        return Err(StoreError::not_applied(ErrorKind::Rejected, message));
    }
    Ok(steps.get(done..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_steps_are_taken_and_only_the_next_release_is_trusted() {
        let steps = |found| missing(found, &["one", "two"]).ok();
        assert_eq!(steps(0), Some(&["one", "two"][..]));
        assert_eq!(steps(1), Some(&["two"][..]));
        assert_eq!((steps(2), steps(3)), (Some(&[][..]), Some(&[][..])));
        assert_eq!(steps(4), None);
    }
}
