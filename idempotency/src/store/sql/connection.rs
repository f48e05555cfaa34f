//! A connection of the store's own.
//!
//! Invariant: one that still owes an answer is closed, not returned. The pool would wait for that answer, without limit
//! if the other end is gone without a word, and meanwhile be smaller by one.

use sqlx::pool::PoolConnection;

use super::Dialect;

pub(super) struct Own<DB: Dialect> {
    pub(super) connection: PoolConnection<DB>,
    pub(super) asked: bool,
}

impl<DB: Dialect> Own<DB> {
    /// The connection, for statements. Say [`answered`](Self::answered) when they are, whatever the answers.
    pub(super) fn ask(&mut self) -> &mut DB::Connection {
        self.asked = true;
        &mut self.connection
    }

    pub(super) const fn answered(&mut self) {
        self.asked = false;
    }
}

impl<DB: Dialect> Drop for Own<DB> {
    fn drop(&mut self) {
        if self.asked && DB::REMOTE {
            self.connection.close_on_drop();
        }
    }
}
