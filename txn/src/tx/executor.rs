//! Implements [`sqlx::Executor`] for `&mut Tx`, with each statement guarded.
//!
//! Invariant: an error of the driver passes through here once, and is recorded before the caller
//! sees it.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use sqlx::{Describe, Either, Execute, Executor, SqlStr};

use crate::backend::own_answer::OwnAnswer;
use crate::backend::{Backend, Step};
use crate::error::{Misuse, RollbackReason};
use crate::failure::Failure;
use crate::session::Session;
use crate::tx::handle::Tx;
use crate::tx::statement::{Inspected, Takes};
use crate::tx::statement_guard::{RunningStatement, StatementGuard};
use crate::tx::tx_state::TxState;

impl<'c, DB: Backend> Executor<'c> for &'c mut Tx<'_, DB> {
    type Database = DB;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::QueryResult, sqlx::Error>>
    where
        'c: 'e,
        E: Execute<'q, DB> + 'q,
    {
        Box::pin(async move {
            let (mut rows, guard) = self.start(query, Takes::Everything)?;
            let mut running = guard.start();
            let mut total = DB::QueryResult::default();
            while let Some(step) = next::<DB>(&mut rows, &mut running).await? {
                if let Either::Left(result) = step {
                    total.extend(Some(result));
                }
            }
            Ok(total)
        })
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<DB::Row>, sqlx::Error>>
    where
        'c: 'e,
        E: Execute<'q, DB> + 'q,
    {
        Box::pin(async move {
            let (mut rows, guard) = self.start(query, Takes::Everything)?;
            let mut running = guard.start();
            let mut all = Vec::new();
            while let Some(step) = next::<DB>(&mut rows, &mut running).await? {
                if let Either::Right(row) = step {
                    all.push(row);
                }
            }
            Ok(all)
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<DB::Row>, sqlx::Error>>
    where
        'c: 'e,
        E: Execute<'q, DB> + 'q,
    {
        Box::pin(async move { self.first_row(query).await })
    }

    fn fetch_one<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::Row, sqlx::Error>>
    where
        'c: 'e,
        E: Execute<'q, DB> + 'q,
    {
        Box::pin(async move { self.first_row(query).await?.ok_or(sqlx::Error::RowNotFound) })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Step<DB>>
    where
        'c: 'e,
        E: Execute<'q, DB> + 'q,
    {
        match self.start(query, Takes::SomeRows) {
            Ok((rows, guard)) => Box::pin(GuardedRows::<DB> { rows, unstarted: Some(guard), running: None }),
            Err(error) => futures_util::stream::once(future::ready(Err(error))).boxed(),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let TxState { session, guard, settings, .. } = &mut *self.state;
            refuse_poisoned(guard)?;
            if settings.policy.behind_pooler {
                let remedy = "behind a pooler nothing can be prepared for later; send the query itself";
                let misuse = Misuse::Statement { remedy };
                guard.poison(RollbackReason::Misuse(misuse));
                return Err(sqlx::Error::InvalidArgument(misuse.to_string()));
            }
            let mut running = guard.start();
            let answer = DB::prepare_with(session.connection(), sql, parameters).await;
            settle::<DB, _>(&mut running, answer)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let TxState { session, guard, .. } = &mut *self.state;
            refuse_poisoned(guard)?;
            let mut running = guard.start();
            let answer = DB::describe(session.connection(), sql).await;
            settle::<DB, _>(&mut running, answer)
        })
    }
}

impl<DB: Backend> Tx<'_, DB> {
    /// Does everything before the first row; none of it runs in a transaction that is poisoned.
    fn start<'e, 'q: 'e, E>(
        &'e mut self,
        query: E,
        takes: Takes,
    ) -> Result<(BoxStream<'e, Step<DB>>, &'e mut StatementGuard), sqlx::Error>
    where
        E: Execute<'q, DB> + 'q,
    {
        let TxState { session, guard, settings, .. } = &mut *self.state;
        let statement = admit(session, guard, query, takes)?.without_name_if(settings.policy.behind_pooler);
        Ok((DB::fetch_many(session.connection(), statement), guard))
    }

    async fn first_row<'q, E>(&mut self, query: E) -> Result<Option<DB::Row>, sqlx::Error>
    where
        E: Execute<'q, DB> + 'q,
    {
        let TxState { session, guard, settings, .. } = &mut *self.state;
        let statement = admit(session, guard, query, Takes::SomeRows)?;
        let statement = statement.without_name_if(settings.policy.behind_pooler);
        let mut running = guard.start();
        let answer = DB::fetch_optional(session.connection(), statement).await;
        settle::<DB, _>(&mut running, answer)
    }
}

/// Lets a statement into the transaction, unless the transaction or the statement forbids it.
fn admit<'q, DB, E>(
    session: &mut Session<DB>,
    guard: &mut StatementGuard,
    query: E,
    takes: Takes,
) -> Result<Inspected<DB>, sqlx::Error>
where
    DB: Backend,
    E: Execute<'q, DB>,
{
    refuse_poisoned(guard)?;
    let statement = Inspected::new(query, takes).map_err(|misuse| {
        guard.poison(RollbackReason::Misuse(misuse));
        sqlx::Error::InvalidArgument(misuse.to_string())
    })?;
    session.role_changed |= statement.changes_role || statement.opaque;
    if statement.opaque {
        // Its effect on the session is unknown, so the connection does not go back to the pool.
        session.close_afterwards();
    }
    Ok(statement)
}

fn refuse_poisoned(guard: &StatementGuard) -> Result<(), sqlx::Error> {
    match guard.poison_reason() {
        Some(reason) => Err(OwnAnswer::refuse_aborted(reason.clone())),
        None => Ok(()),
    }
}

/// Records a whole answer.
fn settle<DB: Backend, T>(
    running: &mut RunningStatement<'_>,
    answer: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    match &answer {
        Ok(_) => running.record_answer(),
        Err(error) => running.record_failure(Failure::of::<DB>(error)),
    }
    answer
}

/// The next part of an answer, recorded.
async fn next<DB: Backend>(
    rows: &mut BoxStream<'_, Step<DB>>,
    running: &mut RunningStatement<'_>,
) -> Result<Option<Either<DB::QueryResult, DB::Row>>, sqlx::Error> {
    match rows.next().await {
        Some(step) => step.inspect_err(|error| running.record_failure(Failure::of::<DB>(error))).map(Some),
        None => {
            running.record_answer();
            Ok(None)
        }
    }
}

/// A stream of rows that records how it ends.
///
/// A reader may stop after the first row: it has seen the statement succeed. Stopping before that
/// leaves the statement unanswered.
struct GuardedRows<'e, DB: Backend> {
    rows: BoxStream<'e, Step<DB>>,
    unstarted: Option<&'e mut StatementGuard>,
    running: Option<RunningStatement<'e>>,
}

impl<DB: Backend> Stream for GuardedRows<'_, DB> {
    type Item = Step<DB>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(guard) = self.unstarted.take() {
            self.running = Some(guard.start());
        }
        let step = std::task::ready!(self.rows.poll_next_unpin(context));
        if let Some(running) = self.running.as_mut() {
            match &step {
                Some(Err(error)) => running.record_failure(Failure::of::<DB>(error)),
                Some(Ok(_)) | None => running.record_answer(),
            }
        }
        if step.is_none() {
            self.running = None;
        }
        Poll::Ready(step)
    }
}
