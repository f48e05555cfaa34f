//! The body of the fuzz target `saga_row`.

use std::cell::Cell;

use super::{Columns, instance, step};
use crate::status::{Status, StepStatus};

/// A row whose columns are the lines of a text, in the order in which they are read. An empty line is NULL.
struct Lines<'a> {
    lines: Vec<&'a str>,
    next: Cell<usize>,
}

impl Lines<'_> {
    fn next(&self) -> Option<&str> {
        let at = self.next.get();
        self.next.set(at + 1);
        self.lines.get(at).copied().filter(|line| !line.is_empty())
    }
}

impl Columns for Lines<'_> {
    fn text(&self, column: &'static str) -> Result<String, sqlx::Error> {
        self.maybe_text(column)?.ok_or(sqlx::Error::RowNotFound)
    }
    fn maybe_text(&self, _: &'static str) -> Result<Option<String>, sqlx::Error> {
        Ok(self.next().map(str::to_owned))
    }
    fn number(&self, column: &'static str) -> Result<i64, sqlx::Error> {
        self.maybe_number(column)?.ok_or(sqlx::Error::RowNotFound)
    }
    fn maybe_number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
        let parsed = self.next().map(str::parse).transpose();
        parsed.map_err(|error: std::num::ParseIntError| sqlx::Error::ColumnDecode {
            index: column.into(),
            source: Box::new(error),
        })
    }
}

/// Reads `data` as the row of a saga, and as that of a step. A row that cannot be read whole says so, and names what it
/// stores with the names that are written.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn saga_row(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let row = || Lines { lines: text.split('\n').collect(), next: Cell::new(0) };
    if let Ok(instance) = instance(&row()) {
        // The fifth column that is read is the status.
        let stored = text.split('\n').nth(4).unwrap_or_default();
        assert!(instance.unreadable.is_some() || instance.status.as_str() == stored, "{text:?}");
        assert!(Status::ALL.iter().any(|status| status.as_str() == stored) || instance.unreadable.is_some());
    }
    if let Ok(step) = step(&row()) {
        let stored = text.split('\n').nth(2).unwrap_or_default();
        assert_eq!(step.status.to_string(), stored);
        assert!(StepStatus::ALL.contains(&step.status));
    }
}
