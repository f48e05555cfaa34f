//! The names of a store's tables, and the store's statements with those names.
//!
//! Invariant: a store names its tables once. A later search path of a session, for example in the caller's transaction,
//! has no effect.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::statements::Templates;
use crate::error::StoreError;

/// The prefix of table names unless a store chooses another.
pub(crate) const USUAL_PREFIX: &str = "idempotency_";
/// PostgreSQL cuts names after 63 bytes, and the longest of ours adds 30 to the prefix.
const PREFIX_LENGTH_MAX: usize = 32;

/// The choices that a store's statements depend on, beside its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The schema of the tables; the search path decides if none is named.
    pub(crate) schema: Option<String>,
    pub(crate) prefix: String,
    /// A pooler may give the next statement to another session.
    pub(crate) behind_pooler: bool,
    /// An expression for the database's clock, instead of its own.
    pub(crate) clock: Option<String>,
}

impl Default for Names {
    fn default() -> Self {
        Self { schema: None, prefix: USUAL_PREFIX.into(), behind_pooler: false, clock: None }
    }
}

impl Names {
    /// Refuses names that no table can have.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let refused = |why: String| Err(StoreError::cannot_open(why));
        let mut letters = self.prefix.bytes();
        let starts_well = letters.next().is_some_and(|first| first == b'_' || first.is_ascii_lowercase());
        let goes_on_well = letters.all(|byte| matches!(byte, b'_' | b'a'..=b'z' | b'0'..=b'9'));
        if !starts_well || !goes_on_well || self.prefix.len() > PREFIX_LENGTH_MAX {
            return refused(format!(
                "the table prefix {:?} must have 1 to {PREFIX_LENGTH_MAX} characters out of a-z, 0-9 and _, and begin with no digit",
                self.prefix
            ));
        }
        match &self.schema {
            Some(schema) if schema.is_empty() || schema.len() > 63 || schema.contains('\0') => {
                refused(format!("no schema can have the name {schema:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The quoted name of one of the tables.
    pub(crate) fn table(&self, table: &str) -> String {
        let table = quote(&format!("{}{table}", self.prefix));
        match &self.schema {
            Some(schema) => format!("{}.{table}", quote(schema)),
            None => table,
        }
    }

    /// One step of the published SQL, with this prefix.
    pub(crate) fn step(&self, sql: &'static str) -> String {
        sql.replace(USUAL_PREFIX, &self.prefix)
    }

    /// A statement of ours for these names. `now` is the database's clock in it.
    pub(crate) fn statement(&self, template: &str, now: &str) -> Sql {
        // Substituted names are not replaced again: a schema or a prefix may contain a default name.
        let between = template.split("idempotency_records");
        let between: Vec<_> =
            between.map(|part| part.replace("idempotency_fences", &self.table("fences"))).collect();
        let mut text = between.join(&self.table("records"));
        if let Some(clock) = &self.clock {
            text = text.replace(now, clock);
        }
        Sql { text: Box::leak(text.into_boxed_str()), persistent: !self.behind_pooler }
    }
}

/// A quoted name, which may contain any character.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The text of a statement, and whether a session may keep it prepared by name.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    pub(crate) text: &'static str,
    pub(crate) persistent: bool,
}

/// Lets a statement through that was made of our own text and checked names.
pub(crate) fn safe(text: String) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

/// The statements of one store.
#[derive(Debug)]
pub struct Set {
    /// For the caller's transactions.
    pub(crate) callers: Templates<Sql>,
    /// For connections of the store's own.
    pub(crate) own: Templates<Sql>,
    /// Many claims, and many writes by holders, where calls share statements.
    #[cfg(feature = "postgres")]
    pub(crate) shared: [Sql; 2],
    pub(crate) behind_pooler: bool,
    pub(crate) database: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_contain_a_default_name_are_substituted_once() {
        let (schema, prefix) = (Some("idempotency_fences".into()), "idempotency_records_".into());
        let names = Names { schema, prefix, ..Names::default() };
        let sql = names.statement("DELETE FROM idempotency_records, idempotency_fences", "now").text;
        assert_eq!(
            sql,
            "DELETE FROM \"idempotency_fences\".\"idempotency_records_records\", \
             \"idempotency_fences\".\"idempotency_records_fences\""
        );
    }

    #[test]
    fn names_are_quoted_and_odd_ones_refused() {
        let names = Names { schema: Some("or\"der".into()), ..Names::default() };
        assert!(names.check().is_ok());
        assert_eq!(names.table("records"), "\"or\"\"der\".\"idempotency_records\"");
        for prefix in ["", "1a", "A_", "a-b", "a\"", &"a".repeat(33)] {
            let names = Names { prefix: prefix.into(), ..Names::default() };
            let refused = names.check().expect_err("refused");
            assert!(format!("{refused:?}").contains("must have 1 to 32"), "{refused:?}");
        }
        assert!(Names { schema: Some(String::new()), ..Names::default() }.check().is_err());
    }
}
