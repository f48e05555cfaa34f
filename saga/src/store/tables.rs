//! The names of a store's tables, by their schema and their prefix, and the statements with those names.
//!
//! Statements are written with the usual names, `saga_heads` and so on. A store renders each of them once for the names
//! it uses, so that no statement depends on the search path of a session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use crate::error::StoreError;

/// The prefix of the names of all tables, views and indexes, unless the user chooses another one.
pub(super) const USUAL_PREFIX: &str = "saga_";

/// Tables and views, without the prefix. A statement may name their schema.
const RELATIONS: [&str; 8] =
    ["heads", "step_rows", "steps", "instances", "workers", "definitions", "audit", "schema"];

/// Indexes, without the prefix. They are in the schema of their table, and SQL does not let us name it.
const INDEXES: [&str; 3] = ["heads_active", "heads_waiting_for_people", "audit_by_saga"];

/// The longest prefix: PostgreSQL cuts names after 63 bytes, and ours follow the prefix.
const LONGEST_PREFIX: usize = 30;

/// Names of tables, and statements that use them.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// With quotes around it.
    schema: Option<String>,
    prefix: String,
    rendered: Arc<Mutex<Rendered>>,
}

/// By the address and length of the statement: quicker to compare than its text, and a second copy is only rendered
/// again.
type Rendered = HashMap<(usize, usize), Arc<str>>;

impl Tables {
    /// Checks the names. A schema may have any name; a prefix becomes part of names, and must need no quotes there.
    pub(super) fn new(schema: Option<&str>, prefix: &str) -> Result<Self, StoreError> {
        let refused = |why: String| Err(StoreError::not_applied("use the names of the saga tables", why));
        if !is_plain(prefix) {
            return refused(format!(
                "the table prefix {prefix:?} is not a plain name: use 1 to {LONGEST_PREFIX} lower-case letters, digits \
                 and '_', beginning with a letter"
            ));
        }
        if let Some(name) = schema.filter(|name| name.is_empty() || name.len() > 63 || name.contains('\0')) {
            return refused(format!("the schema {name:?} is not a name: use 1 to 63 bytes, without a zero"));
        }
        Ok(Self { schema: schema.map(quoted), prefix: prefix.to_owned(), rendered: Arc::default() })
    }

    /// The name of a relation, given as `saga_heads`, as a statement writes it.
    pub(super) fn name(&self, usual: &str) -> String {
        self.render(usual)
    }

    /// A statement for these tables.
    pub(super) fn sql(&self, statement: &'static str) -> SqlStr {
        if self.schema.is_none() && self.prefix == USUAL_PREFIX {
            return statement.into_sql_str();
        }
        AssertSqlSafe(self.text(statement)).into_sql_str()
    }

    /// The text of [`Tables::sql`].
    pub(super) fn text(&self, statement: &'static str) -> Arc<str> {
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let address = (statement.as_ptr().addr(), statement.len());
        Arc::clone(rendered.entry(address).or_insert_with(|| self.render(statement).into()))
    }

    fn render(&self, statement: &str) -> String {
        let mut text = String::with_capacity(statement.len() + 64);
        let mut rest = statement;
        while let Some(start) = rest.find(is_of_a_name) {
            let (before, from) = rest.split_at(start);
            let (word, after) = from.split_at(from.find(|c| !is_of_a_name(c)).unwrap_or(from.len()));
            text.push_str(before);
            match word.strip_prefix(USUAL_PREFIX) {
                Some(name) if RELATIONS.contains(&name) => {
                    if let Some(schema) = &self.schema {
                        text.push_str(schema);
                        text.push('.');
                    }
                    text.push_str(&self.prefix);
                    text.push_str(name);
                }
                Some(name) if INDEXES.contains(&name) => {
                    text.push_str(&self.prefix);
                    text.push_str(name);
                }
                _ => text.push_str(word),
            }
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_plain(name: &str) -> bool {
    name.len() <= LONGEST_PREFIX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_are_qualified_and_those_of_columns_and_settings_stay() {
        let tables = Tables::new(Some("payments"), "flow_").expect("plain names");
        let rendered = tables.sql(
            "SELECT saga_id, saga_heads.id FROM saga_heads h, saga_step_rows WHERE saga_type = 'probity_saga.local_step'",
        );
        assert_eq!(
            rendered.as_str(),
            "SELECT saga_id, \"payments\".flow_heads.id FROM \"payments\".flow_heads h, \"payments\".flow_step_rows \
             WHERE saga_type = 'probity_saga.local_step'"
        );
        assert_eq!(
            tables.sql("CREATE INDEX saga_heads_active ON saga_heads (id)").as_str(),
            "CREATE INDEX flow_heads_active ON \"payments\".flow_heads (id)"
        );
    }

    #[test]
    fn default_names_leave_a_statement_unchanged() {
        let tables = Tables::new(None, USUAL_PREFIX).expect("plain names");
        assert_eq!(tables.sql("SELECT id FROM saga_heads").as_str(), "SELECT id FROM saga_heads");
    }

    #[test]
    fn a_schema_is_quoted() {
        let tables = Tables::new(Some("My \"own\""), USUAL_PREFIX).expect("a name");
        assert_eq!(tables.name("saga_heads"), r#""My ""own""".saga_heads"#);
    }

    #[test]
    fn names_that_cannot_be_used_are_refused_with_the_remedy() {
        for name in ["", "Payments", "1st", "a-b", "a b", "x\"; DROP TABLE y", "a.b", &"a".repeat(31)] {
            let refused = Tables::new(None, name).map_err(|error| error.to_string());
            assert!(refused.is_err_and(|error| error.contains("lower-case letters")), "{name}");
        }
        for name in ["", "a\0b", &"a".repeat(64)] {
            assert!(Tables::new(Some(name), USUAL_PREFIX).is_err(), "{name:?}");
        }
    }
}
