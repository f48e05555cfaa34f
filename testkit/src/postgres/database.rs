//! One test's own database on a server.

use std::path::{Path, PathBuf};

use super::psql::run;
use super::role::TestRole;
use crate::random::Rng;

/// A database that no other test uses. It is dropped with the value, with all connections that are still open.
#[derive(Debug)]
#[must_use = "the database is dropped with this value"]
pub struct TestDatabase {
    psql: PathBuf,
    server_url: String,
    name: String,
    url: String,
}

impl TestDatabase {
    pub(super) fn create(psql: &Path, server_url: &str) -> TestDatabase {
        let name = format!("probity_test_{:016x}", Rng::random().next_u64());
        // template0: nobody can be connected to it, so creating never has to wait for anybody.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        if let Err(complaint) = run(psql, server_url, &create) {
            panic!("failed to create a database: {complaint}");
        }
        let url = with_database(server_url, &name);
        TestDatabase { psql: psql.to_owned(), server_url: server_url.to_owned(), name, url }
    }

    /// The URL of this database, for sqlx and every other client.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs SQL by `psql`, so with no pool and no code under test between, and gives the rows: one a line, columns
    /// parted by `|`. For looking at what a killed program left.
    ///
    /// # Panics
    ///
    /// If the server refuses, with what it said.
    ///
    /// # Examples
    ///
    /// ```
    /// let database = testkit::Postgres::shared().database();
    /// assert_eq!(database.query("SELECT 1, 'paid'"), "1|paid");
    /// ```
    #[must_use]
    pub fn query(&self, sql: &str) -> String {
        match run(&self.psql, &self.url, sql) {
            Ok(rows) => rows,
            Err(complaint) => panic!("failed to run {sql:?}: {complaint}"),
        }
    }

    /// A new role that may connect to this database and see the schema `public`, and nothing else, not even create a
    /// table. Grant it what the test is about. Drop it before the database.
    ///
    /// # Panics
    ///
    /// If the server refuses, with what it said.
    ///
    /// # Examples
    ///
    /// ```
    /// let database = testkit::Postgres::shared().database();
    /// database.query("CREATE TABLE payment (id int)");
    /// let role = database.role();
    /// database.query(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON payment TO {}", role.name()));
    /// let url = role.url(); // hand it to sqlx
    /// # let _ = url;
    /// ```
    pub fn role(&self) -> TestRole {
        TestRole::create(&self.psql, &self.url)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A server that the test killed or froze does not answer, and takes its databases with it anyway.
        let _unreachable =
            run(&self.psql, &self.server_url, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// `url` with another database: `postgres://user@host:5432/other?sslmode=disable`.
fn with_database(url: &str, database: &str) -> String {
    let (address, options) =
        url.split_once('?').map_or((url, None), |(address, options)| (address, Some(options)));
    let authority = address.find("://").map_or(0, |scheme| scheme + 3);
    let server = address[authority..].find('/').map_or(address, |slash| &address[..authority + slash]);
    match options {
        Some(options) => format!("{server}/{database}?{options}"),
        None => format!("{server}/{database}"),
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_a_url_changes() {
        assert_eq!(with_database("postgres://u:p@h:5/old", "new"), "postgres://u:p@h:5/new");
        assert_eq!(with_database("postgres://u@h", "new"), "postgres://u@h/new");
        assert_eq!(
            with_database("postgres://u@h/?sslmode=disable", "new"),
            "postgres://u@h/new?sslmode=disable"
        );
    }
}
