//! The levels of isolation.

/// The part of other transactions that a transaction sees. Databases that lack a level refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Each statement sees what was committed when it began: the default on PostgreSQL, also where the
    /// server's own default is another, and right together with row locks.
    ReadCommitted,
    /// All statements see one snapshot. Row locks do not make sums safe here; see the pitfalls.
    RepeatableRead,
    /// The transactions behave as if they ran one after the other. SQLite has this level only.
    Serializable,
}
