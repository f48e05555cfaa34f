//! The versions of the tables that a worker can use, for both databases.
//!
//! Invariant: a worker uses the tables of its own version or of the next one, so that old and new workers run beside
//! each other while a release is rolled out.

use crate::error::StoreError;
use crate::store::tables::Tables;

/// The version of the tables that were found; 0 if there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(pub(super) i64);

impl Version {
    /// The tables of the first release. Versions 1 and 2 were never released.
    pub(super) const FIRST: i64 = 3;

    /// The steps that are missing, with the version that each leads to.
    pub(super) fn steps_to_newest(
        self,
        steps: &[&'static str],
    ) -> Result<Vec<(i64, &'static str)>, StoreError> {
        let refused = |why: String| Err(StoreError::not_applied("use the saga tables", why));
        let all: Vec<(i64, &'static str)> = (Self::FIRST..).zip(steps.iter().copied()).collect();
        let newest = all.last().map_or(Self::FIRST, |(version, _)| *version);
        match self.0 {
            0 => Ok(all),
            1 | 2 => refused(
                "they were made by a version before the first release; drop saga_schema, saga_instances, saga_heads, \
                 saga_steps, saga_workers, saga_definitions and saga_audit, and start again"
                    .into(),
            ),
            found if found > newest + 1 => refused(format!(
                "they have version {found}, and this program knows {newest}: deploy a newer one"
            )),
            found => Ok(all.into_iter().filter(|(version, _)| *version > found).collect()),
        }
    }

    /// Joins all steps for a database that has none of them, with the names of `tables`.
    pub(super) fn whole(steps: &[&'static str], tables: &Tables) -> Result<String, StoreError> {
        let all = Self(0).steps_to_newest(steps)?.into_iter();
        Ok(all.map(|(_, file)| tables.text(file).to_string()).collect::<Vec<_>>().join("\n"))
    }

    /// Lists the versions whose file does not record them.
    #[cfg(test)]
    pub(super) fn without_a_record(steps: &[&'static str]) -> Vec<i64> {
        let records = |version: i64| format!("INSERT INTO saga_schema (version) VALUES ({version});");
        let all = Self(0).steps_to_newest(steps).expect("all of them").into_iter();
        all.filter(|(version, file)| !file.contains(&records(*version))).map(|(version, _)| version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[&str] = &["three", "four"];

    #[test]
    fn only_missing_migrations_run() {
        let steps = |found| Version(found).steps_to_newest(STEPS).map_err(|error| error.to_string());
        assert_eq!(steps(0), Ok(vec![(3, "three"), (4, "four")]));
        assert_eq!(steps(3), Ok(vec![(4, "four")]));
        assert_eq!(steps(4), Ok(vec![]));
    }

    #[test]
    fn the_tables_of_the_next_release_are_used_and_those_of_a_later_one_are_not() {
        assert!(Version(5).steps_to_newest(STEPS).is_ok_and(|steps| steps.is_empty()));
        let refused = Version(6).steps_to_newest(STEPS).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|error| error.contains("deploy a newer one")));
    }

    #[test]
    fn tables_that_were_never_released_are_refused_with_the_remedy() {
        for never_released in [1, 2] {
            let refused = Version(never_released).steps_to_newest(STEPS).map_err(|error| error.to_string());
            assert!(refused.is_err_and(|error| error.contains("drop saga_schema")), "{never_released}");
        }
    }
}
