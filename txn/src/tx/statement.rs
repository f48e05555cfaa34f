//! A statement on its way through the handle: inspected, otherwise unchanged.

use sqlx::error::BoxDynError;
use sqlx::{Arguments as _, Database, Execute, SqlStr};

use crate::backend::Driver;
use crate::error::Misuse;

use control::{Control, read};
use scan::Dialect;
use session::Leftover;

mod control;
mod scan;
mod session;

/// How much of its answer the caller of a statement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// All of it: the statement is over when the caller goes on.
    Everything,
    /// As many rows as it likes. What stands behind the first row of a text with several statements might
    /// then never run, or fail with nobody looking: SQLite runs as far as somebody reads.
    SomeRows,
}

/// The parts of a statement, so that its text can be looked at before it runs.
pub(crate) struct Inspected<DB: Database> {
    sql: SqlStr,
    statement: Option<DB::Statement>,
    arguments: Option<Result<Option<DB::Arguments>, BoxDynError>>,
    persistent: bool,
    /// The role may be another one afterwards, up to the end of the transaction.
    pub(crate) changes_role: bool,
    /// The statement may do things to the session that its text does not show.
    pub(crate) opaque: bool,
}

impl<DB: Database> Inspected<DB> {
    /// A statement of this crate.
    pub(crate) fn from_parts(sql: SqlStr, arguments: DB::Arguments) -> Self {
        Self {
            sql,
            statement: None,
            arguments: Some(Ok(Some(arguments))),
            persistent: true,
            changes_role: false,
            opaque: false,
        }
    }

    /// Keeps the session from remembering it where the next transaction may have another session.
    pub(crate) fn unnamed_if(self, behind_pooler: bool) -> Self {
        Self { persistent: self.persistent && !behind_pooler, ..self }
    }

    /// Takes the statement apart; refuses text that would end or nest the transaction behind the
    /// runner's back, and several statements where not all may run.
    pub(crate) fn new<'q, E>(mut query: E, takes: Takes) -> Result<Self, Misuse>
    where
        E: Execute<'q, DB>,
        DB: Driver,
    {
        let arguments = query.take_arguments();
        if let Ok(Some(arguments)) = &arguments
            && arguments.len() > DB::PARAMETERS_MAX
        {
            // The driver would call it a broken protocol, and that a lost connection.
            return Err(Misuse::Parameters {
                found: arguments.len(),
                limit: DB::PARAMETERS_MAX,
                database: DB::NAME,
            });
        }
        let persistent = query.persistent();
        let statement = query.statement().cloned();
        let sql = query.sql();
        let reading = read(sql.as_str(), Dialect::named(DB::NAME));
        if let Some(control) = reading.control {
            return Err(refusal(control));
        }
        if let Some(left) = reading.leaves {
            return Err(Misuse::Statement { remedy: remedy(left) });
        }
        if reading.several && takes == Takes::SomeRows {
            return Err(Misuse::Statement { remedy: SOME_ROWS });
        }
        let (changes_role, opaque) = (reading.role, reading.opaque);
        Ok(Self { sql, statement, arguments: Some(arguments), persistent, changes_role, opaque })
    }
}

const SOME_ROWS: &str = "more than one statement where rows are read one by one, so some might never run; send one \
    statement at a time, or all of them with raw_sql(..).execute(..)";

fn refusal(control: Control) -> Misuse {
    let remedy = match control {
        Control::Transaction => {
            "the runner begins and ends the transaction; return Ok to commit, Err to roll back"
        }
        Control::Savepoint => "use Tx::scope instead of writing savepoints by hand",
    };
    Misuse::Statement { remedy }
}

/// Names the remedy for a statement that would leave this to the next borrower of the connection.
fn remedy(left: Leftover) -> &'static str {
    match left {
        Leftover::Setting => {
            "the setting would outlive the transaction, and the next borrower of the connection would have it; use \
             SET LOCAL, set_config(.., true) or Txn::set_local, or set it in the options of the connection"
        }
        Leftover::Channel => {
            "listening outlives the transaction; use a connection of its own (sqlx's PgListener)"
        }
        Leftover::AdvisoryLock => {
            "the lock would outlive the transaction; use Tx::advisory or pg_advisory_xact_lock"
        }
        Leftover::Temporary => {
            "a temporary object stays with the connection; use CREATE TEMP TABLE .. ON COMMIT DROP, or WITH"
        }
        Leftover::Prepared => "prepared statements stay with the connection, and sqlx keeps its own there",
        Leftover::Cursor => "a cursor WITH HOLD outlives the transaction; leave WITH HOLD out",
        Leftover::Connection => "this stays with the connection; do it where the connection is made",
    }
}

impl<'q, DB: Database> Execute<'q, DB> for Inspected<DB> {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.statement.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        self.arguments.take().unwrap_or(Ok(None))
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}
