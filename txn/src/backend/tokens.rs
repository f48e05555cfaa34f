//! The statements on the table of tokens that are the same on every database. `table` is its name, quoted.

/// Waits where another transaction holds the same token, until that one ends.
pub(super) fn insert(table: &str) -> String {
    format!("INSERT INTO {table} (token, label) VALUES ($1, $2) ON CONFLICT (token) DO NOTHING")
}

pub(super) fn store(table: &str) -> String {
    format!("UPDATE {table} SET result = $2 WHERE token = $1")
}

/// The last of the next tokens in the order of the primary key, whatever their age: so each step of a
/// purge looks at so many rows and no more, also where none is old enough.
pub(super) fn walk(table: &str) -> String {
    format!(
        "SELECT max(token) FROM (SELECT token FROM {table} WHERE token > $1 ORDER BY token LIMIT 1000) AS walked"
    )
}
