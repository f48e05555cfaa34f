//! A statement on its way through the handle: inspected, otherwise unchanged.

use sqlx::error::BoxDynError;
use sqlx::{Arguments as _, Database, Execute, SqlStr};

use crate::backend::Driver;
use crate::backend::dialect::Effects;
use crate::error::Misuse;

use control::{Control, read};

mod control;
#[cfg(all(any(test, fuzzing), feature = "postgres", feature = "sqlite"))]
pub(crate) mod fuzzing;
mod scan;

/// The part of its answer that the caller of a statement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// The caller takes all of it: the statement is over when the caller goes on.
    Everything,
    /// The caller takes as many rows as it likes. Of a text with several statements those after the first row might
    /// then never run, or fail unseen: SQLite runs a text only as far as its rows are read.
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
    pub(crate) fn without_name_if(self, behind_pooler: bool) -> Self {
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
            // The driver would report a protocol error, which looks like a lost connection.
            return Err(Misuse::Parameters {
                found: arguments.len(),
                limit: DB::PARAMETERS_MAX,
                database: DB::NAME,
            });
        }
        let persistent = query.persistent();
        let statement = query.statement().cloned();
        let sql = query.sql();
        let reading = read::<DB::Dialect>(sql.as_str());
        if let Some(control) = reading.control {
            return Err(refusal(control));
        }
        let Effects { leaves, role: changes_role, opaque } = reading.effects;
        if let Some(remedy) = leaves {
            return Err(Misuse::Statement { remedy });
        }
        if reading.several && takes == Takes::SomeRows {
            return Err(Misuse::Statement { remedy: SOME_ROWS });
        }
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

/// Reads the effects of a text, for the tests of each dialect.
#[cfg(all(test, any(feature = "postgres", feature = "sqlite")))]
pub(crate) fn read_effects<D: crate::backend::dialect::Dialect>(sql: &str) -> Effects {
    read::<D>(sql).effects
}
