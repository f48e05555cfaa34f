//! A role with almost no rights, as careful teams give to a service.

use std::path::{Path, PathBuf};

use super::psql::run;
use crate::random::Rng;

/// A role of one test's own on one database. It is dropped with the value, with what it was granted there.
#[derive(Debug)]
#[must_use = "the role is dropped with this value"]
pub struct TestRole {
    psql: PathBuf,
    database_url: String,
    name: String,
    url: String,
}

impl TestRole {
    pub(super) fn create(psql: &Path, database_url: &str) -> TestRole {
        let name = format!("probity_role_{:016x}", Rng::random().next_u64());
        // Up to PostgreSQL 14 everybody may create tables in `public`.
        let create =
            format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        if let Err(complaint) = run(psql, database_url, &create) {
            panic!("failed to create a role: {complaint}");
        }
        let url = with_account(database_url, &name);
        TestRole { psql: psql.to_owned(), database_url: database_url.to_owned(), name, url }
    }

    /// Its name, for GRANT.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the database for this role.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestRole {
    fn drop(&mut self) {
        let drop = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        let _unreachable = run(&self.psql, &self.database_url, &drop);
    }
}

/// `url` for another account, whose password is its name.
fn with_account(url: &str, name: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let end = rest.find('/').unwrap_or(rest.len());
    let server = rest[..end].rfind('@').map_or(rest, |at| &rest[at + 1..]);
    format!("{scheme}://{name}:{name}@{server}")
}

#[cfg(test)]
mod tests {
    use super::with_account;

    #[test]
    fn only_the_account_of_a_url_changes() {
        assert_eq!(with_account("postgres://u:p@h:5/db?x=a@b", "r"), "postgres://r:r@h:5/db?x=a@b");
        assert_eq!(with_account("postgres://h/db", "r"), "postgres://r:r@h/db");
    }
}
