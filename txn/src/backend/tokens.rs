//! The statements on the table of tokens that are the same on every database.

/// Waits where another transaction holds the same token, until that one ends.
pub(super) const INSERT: &str =
    "INSERT INTO probity_txn_tokens (token, label) VALUES ($1, $2) ON CONFLICT (token) DO NOTHING";
/// A statement of its own, so that it sees the winner for whom the insert waited.
pub(super) const SELECT: &str = "SELECT label, result FROM probity_txn_tokens WHERE token = $1";
pub(super) const STORE: &str = "UPDATE probity_txn_tokens SET result = $2 WHERE token = $1";
/// The last of the next tokens in the order of the primary key, whatever their age: so each step of a
/// purge looks at so many rows and no more, also where none is old enough.
pub(super) const WALK: &str = "SELECT max(token) FROM
    (SELECT token FROM probity_txn_tokens WHERE token > $1 ORDER BY token LIMIT 1000) AS walked";
