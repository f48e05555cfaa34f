//! A connection of the store's own.
//!
//! Invariant: one that still owes an answer is closed, not returned. The pool would wait for that answer, without limit
//! if the other end is gone without a word, and be smaller by one until then. So is one whose server takes no writes: the
//! next claim would meet it too.

use sqlx::pool::PoolConnection;

use super::dialect::Dialect;
use crate::error::StoreError;

pub(crate) struct Own<DB: Dialect> {
    pub(crate) connection: PoolConnection<DB>,
    pub(crate) asked: bool,
    /// Another session may get the next message, unless a transaction is open.
    pub(crate) behind_pooler: bool,
}

impl<DB: Dialect> Own<DB> {
    /// The connection, for statements. Call [`note_answer`](Self::note_answer) when they have been answered, also by an
    /// error.
    pub(crate) fn ask(&mut self) -> &mut DB::Connection {
        self.asked = true;
        &mut self.connection
    }

    /// Begins asking: behind a pooler it opens the transaction that keeps one session for all messages of a statement.
    pub(crate) async fn begin(&mut self) -> Result<&mut DB::Connection, StoreError> {
        if self.behind_pooler {
            let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
            DB::command(self.ask(), begin).await.map_err(StoreError::nothing_written)?;
        }
        Ok(self.ask())
    }

    /// Ends what [`claim`](Self::claim) began. Behind a pooler an answer only counts if it was committed.
    pub(crate) async fn end<T>(&mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let answer = match answer {
            answer if !self.behind_pooler => answer,
            Ok(answer) => {
                // Of a connection that the pooler made for it, a COMMIT is told what proves nothing about the transaction.
                let committed = DB::command(self.ask(), "COMMIT").await;
                committed.map(|()| answer).map_err(StoreError::doubted)
            }
            Err(error) => {
                // If this fails too the connection is closed, and the server rolls back.
                if DB::command(self.ask(), "ROLLBACK").await.is_err() {
                    return Err(error);
                }
                Err(error)
            }
        };
        if !answer.as_ref().is_err_and(DB::spends_the_session) {
            self.note_answer();
        }
        answer
    }

    pub(crate) const fn note_answer(&mut self) {
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
