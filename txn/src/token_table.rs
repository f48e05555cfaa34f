//! The table of tokens: its name, its making, and whether it can be used.

use sqlx::{AssertSqlSafe, Pool};

use crate::backend::Backend;
use crate::error::Misuse;
use crate::session::execute;

pub(crate) mod found;
pub(crate) mod purge;

/// The longest schema or prefix. PostgreSQL cuts longer names off; the rest of the table's name has to fit as well.
const NAME_MAX: usize = 40;

/// The name of the table in the published SQL.
const PUBLISHED: &str = "probity_txn_tokens";

/// The table in which runs [with a token](crate::Txn::once) keep their results: `probity_txn_tokens`, unless it is
/// told another schema or prefix.
///
/// Two services with one database have a table each if their tokens may be alike.
///
/// On PostgreSQL a table without a schema is looked for along the search path of the session, once per pool: a
/// session whose path leads to another table later is not used. Name the schema where paths differ on purpose, or
/// where a pooler stands between.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// use probity_txn::{TokenTable, on};
///
/// let table = TokenTable::new().table_prefix("payouts_"); // payouts_txn_tokens
/// table.create(&pool).await?; // or `verify`, where migrations have created it
///
/// let paid = on(&pool, "payout").once("P-1").in_table(&table).run(async |_tx| Ok::<_, sqlx::Error>(7)).await?;
/// assert_eq!(paid, 7);
/// # Ok(()) }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTable {
    schema: Option<String>,
    prefix: Option<String>,
}

/// The reason why the table of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenTableError {
    /// The schema or the prefix cannot be part of a name.
    #[error("{0}")]
    Name(#[source] Misuse),
    /// There is no such table.
    #[error(
        "there is no table of tokens {table}: call TokenTable::create, or run TokenTable::sql as a role that may \
         create tables: {source}"
    )]
    Missing {
        /// Its name.
        table: String,
        /// The answer of the database.
        source: sqlx::Error,
    },
    /// The role of the pool lacks a right.
    #[error(
        "the role may not use the table of tokens {table}: grant it SELECT, INSERT, UPDATE and DELETE, and USAGE of \
         the schema (sql/postgres/grants.sql): {source}"
    )]
    Forbidden {
        /// Its name.
        table: String,
        /// The answer of the database.
        source: sqlx::Error,
    },
    /// A column or the unique key of the table is not there.
    #[error(
        "the table of tokens {table} is not that of version 1: compare it with TokenTable::sql: {source}"
    )]
    Differs {
        /// Its name.
        table: String,
        /// The answer of the database.
        source: sqlx::Error,
    },
    /// The sessions of the pool mean another table by this name than those before them, or none.
    #[error(
        "the sessions of the pool know another table of tokens as {table} than before, or none: something changed \
         their search path; find it, or name the schema with TokenTable::schema"
    )]
    Moved {
        /// Its name.
        table: String,
    },
    /// The database could not be asked.
    #[error("the table of tokens could not be looked at: {0}")]
    Database(#[from] sqlx::Error),
}

/// Serves functions whose errors are sqlx's.
impl From<TokenTableError> for sqlx::Error {
    fn from(error: TokenTableError) -> Self {
        match error {
            error @ (TokenTableError::Name(_) | TokenTableError::Moved { .. }) => {
                Self::InvalidArgument(error.to_string())
            }
            TokenTableError::Missing { source, .. }
            | TokenTableError::Forbidden { source, .. }
            | TokenTableError::Differs { source, .. }
            | TokenTableError::Database(source) => source,
        }
    }
}

impl TokenTable {
    /// The table `probity_txn_tokens`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the schema; on SQLite, the attached database. Letters, digits and `_`, at most 40; it is quoted, so
    /// upper case counts.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Chooses the prefix of the table's name, `probity_` by default. Letters, digits and `_`, at most 40.
    #[must_use]
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The statement that creates the table, for your own migrations: that of `sql/<database>/v1.sql`, with this
    /// table's name.
    ///
    /// # Errors
    ///
    /// [`TokenTableError::Name`].
    pub fn sql<DB: Backend>(&self) -> Result<String, TokenTableError> {
        let name = self.name::<DB>().map_err(TokenTableError::Name)?;
        Ok(DB::TOKENS.replace(PUBLISHED, &name))
    }

    /// Creates the table if it is missing. It looks first, so a role that may not create tables can call it where the
    /// table is there. All processes may call it when they start, also at the same time.
    ///
    /// # Cancel safety
    ///
    /// Safe: creating it is one statement, which may be repeated.
    ///
    /// # Errors
    ///
    /// The errors of [`verify`](TokenTable::verify), except [`TokenTableError::Missing`].
    pub async fn create<DB: Backend>(&self, pool: &Pool<DB>) -> Result<(), TokenTableError> {
        match self.verify(pool).await {
            Err(TokenTableError::Missing { .. }) => {}
            answer => return answer,
        }
        let sql = self.sql::<DB>()?;
        let mut connection = pool.acquire().await?;
        match execute::<DB>(&mut connection, AssertSqlSafe(sql.clone())).await {
            // The error comes once the other one is committed, so that the second look finds its table.
            Err(sqlx::Error::Database(error)) if DB::is_concurrent_create(&*error) => {
                Ok(execute::<DB>(&mut connection, AssertSqlSafe(sql)).await?)
            }
            answer => Ok(answer?),
        }
    }

    /// Looks whether the table is there and has the columns and the key of this version, and whether the role of the
    /// pool may use it. It writes nothing.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only reads.
    ///
    /// # Errors
    ///
    /// [`TokenTableError::Missing`], [`TokenTableError::Forbidden`] or [`TokenTableError::Differs`], each with its
    /// remedy; [`TokenTableError::Name`]; [`TokenTableError::Database`] for everything else.
    pub async fn verify<DB: Backend>(&self, pool: &Pool<DB>) -> Result<(), TokenTableError> {
        let table = self.name::<DB>().map_err(TokenTableError::Name)?;
        let mut connection = pool.acquire().await?;
        let answer = execute::<DB>(&mut connection, AssertSqlSafe(rehearsal(&table))).await;
        answer.map_err(|source| match &source {
            sqlx::Error::Database(error) if DB::lacks_table(&**error) => {
                TokenTableError::Missing { table, source }
            }
            sqlx::Error::Database(error) if DB::forbids(&**error) => {
                TokenTableError::Forbidden { table, source }
            }
            sqlx::Error::Database(error) if DB::names_nothing(&**error) || DB::lacks_key(&**error) => {
                TokenTableError::Differs { table, source }
            }
            _ => TokenTableError::Database(source),
        })
    }

    /// The name of the table, quoted, with its schema as far as it is known before a session is asked.
    pub(crate) fn name<DB: Backend>(&self) -> Result<String, Misuse> {
        let prefix = self.prefix.as_deref().unwrap_or("probity_");
        let schema = self.schema.as_deref();
        let legal = |name: &str| {
            name.len() <= NAME_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !legal(prefix) || schema.is_some_and(|schema| schema.is_empty() || !legal(schema)) {
            return Err(Misuse::TokenTableName);
        }
        Ok(match schema.or(DB::SCHEMA) {
            Some(schema) => format!("\"{schema}\".\"{prefix}txn_tokens\""),
            None => format!("\"{prefix}txn_tokens\""),
        })
    }

    /// Tells whether the session decides where the table is.
    pub(crate) fn is_found_by_session<DB: Backend>(&self) -> bool {
        self.schema.is_none() && DB::SCHEMA.is_none()
    }
}

/// Creates the table `probity_txn_tokens`, as [`TokenTable::create`] does; [`Txn::once`](crate::Txn::once) needs it.
///
/// # Cancel safety
///
/// Safe: creating it is one statement, which may be repeated.
///
/// # Errors
///
/// The errors of [`TokenTable::create`].
pub async fn create_token_table<DB: Backend>(pool: &Pool<DB>) -> Result<(), TokenTableError> {
    TokenTable::new().create(pool).await
}

/// Writes the statements of runs and purges so that they are planned and not executed: planning looks at names,
/// columns, the unique key and the rights of the role.
fn rehearsal(table: &str) -> String {
    format!(
        "EXPLAIN SELECT token, label, result, created_at FROM {table} WHERE token = '';
         EXPLAIN INSERT INTO {table} (token, label) VALUES ('', '') ON CONFLICT (token) DO NOTHING;
         EXPLAIN UPDATE {table} SET result = '' WHERE token = '';
         EXPLAIN DELETE FROM {table} WHERE token = ''"
    )
}
