//! The one place that decides which database the services run on.
//!
//! A default build serves an embedded SQLite file; a build with `--features postgres` serves PostgreSQL. The
//! choice is the type alias [`Database`], so service code uses sqlx's native types and a transaction can be
//! handed to `complete_in`, `start_in` and plain queries alike. SQL is written once with `$1` placeholders,
//! which both drivers understand; where the words differ see `sql_now!` and `sql_ago!`.

use std::time::Duration;

use clap::Args;

use crate::settings::redacted;
use crate::{DatabaseChoice, Settings, StartError, metrics};

/// The database of this build.
#[cfg(not(feature = "postgres"))]
pub type Database = sqlx::Sqlite;
/// The database of this build.
#[cfg(feature = "postgres")]
pub type Database = sqlx::Postgres;

/// A pool of connections to the database of this build.
pub type Pool = sqlx::Pool<Database>;

/// True in a build with `--features postgres`.
pub const POSTGRES: bool = cfg!(feature = "postgres");

const CONNECTIONS_MAX: u32 = 16;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the database the settings name; an embedded file and its folder are created.
///
/// # Cancel safety
/// Safe: dropping the future closes what was opened; a created file stays, empty.
///
/// # Errors
/// [`StartError::Unwritable`] when the embedded file cannot be written, [`StartError::Database`] when the
/// server cannot be reached.
pub async fn open(settings: &Settings) -> Result<Pool, StartError> {
    let failed = |source: sqlx::Error| StartError::Database { service: settings.name.to_owned(), source };
    let pool = sqlx::pool::PoolOptions::<Database>::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = backend::connect(pool, settings).await?;
    sqlx::query("SELECT 1").execute(&pool).await.map_err(failed)?;
    tokio::spawn(metrics::show_pool(settings.name, pool.clone()));
    Ok(pool)
}

/// The settings that name the database.
#[derive(Args)]
#[command(next_help_heading = "Database")]
pub(crate) struct DatabaseArguments {
    /// The database, `sqlite:FILE` or `postgres://USER@HOST/NAME` as the build serves [default: a file in DATA_DIR].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// The host of PostgreSQL, instead of a URL.
    #[arg(long, env = "DB_HOST")]
    db_host: Option<String>,
    /// The port of PostgreSQL at that host [default: 5432].
    #[arg(long, env = "DB_PORT")]
    db_port: Option<u16>,
    /// The user of PostgreSQL at that host [default: postgres].
    #[arg(long, env = "DB_USER")]
    db_user: Option<String>,
    /// The user's password.
    #[arg(long, env = "DB_PASSWORD", hide_env_values = true)]
    db_password: Option<String>,
    /// The name of the database at that host [default: probity].
    #[arg(long, env = "DB_NAME")]
    db_name: Option<String>,
}

impl DatabaseArguments {
    /// The first setting of a database at a host that is not named.
    fn without_host(&self) -> Option<&'static str> {
        let given = [
            ("DB_PORT", self.db_port.is_some()),
            ("DB_USER", self.db_user.is_some()),
            ("DB_PASSWORD", self.db_password.is_some()),
            ("DB_NAME", self.db_name.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

/// The command that runs a service on these components.
pub(crate) fn command(service: &str, postgres: bool, redis: bool) -> String {
    let features = match (postgres, redis) {
        (false, false) => "",
        (true, false) => " --features postgres",
        (false, true) => " --features redis",
        (true, true) => " --features postgres,redis",
    };
    format!("cargo run -p {service}{features}")
}

/// Reads the choice and refuses what this build cannot serve; `redis` says whether Redis is wanted, too.
pub(crate) fn parse_choice(
    service: &'static str,
    mut arguments: DatabaseArguments,
    redis: bool,
) -> Result<DatabaseChoice, StartError> {
    if let (None, None, Some(name)) = (&arguments.database_url, &arguments.db_host, arguments.without_host())
    {
        return Err(StartError::setting(
            name,
            "belongs to DB_HOST, which is not set: set it, or unset this one",
        ));
    }
    let (name, url) = match (arguments.database_url.take(), &arguments.db_host) {
        (Some(url), _) => ("DATABASE_URL", url),
        (None, Some(host)) => ("DB_HOST", assemble(host, &arguments)?),
        (None, None) if POSTGRES => {
            return Err(StartError::setting(
                "DATABASE_URL",
                format!(
                    "is not set, and this build serves PostgreSQL: set it to postgres://user@host/database, \
                     or run on the embedded SQLite with: {}",
                    command(service, false, redis)
                ),
            ));
        }
        (None, None) => return Ok(DatabaseChoice::Default),
    };
    match (url.split_once(':').map_or("", |(scheme, _)| scheme), POSTGRES) {
        ("sqlite", false) => refuse_memory(&url).map(|()| DatabaseChoice::Url(url)),
        ("postgres" | "postgresql", true) => Ok(DatabaseChoice::Url(url)),
        ("postgres" | "postgresql", false) => Err(StartError::setting(
            name,
            format!(
                "asks for PostgreSQL, but this build serves SQLite; run: {}",
                command(service, true, redis)
            ),
        )),
        ("sqlite", true) => Err(StartError::setting(
            name,
            format!(
                "asks for SQLite, but this build serves PostgreSQL; run: {}",
                command(service, false, redis)
            ),
        )),
        (_, _) => Err(StartError::setting(
            name,
            format!("must start with sqlite: or postgres://, not `{}`", redacted(&url)),
        )),
    }
}

fn refuse_memory(url: &str) -> Result<(), StartError> {
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(StartError::setting(
            "DATABASE_URL",
            "names a database in memory, which would forget payments at the next restart; name a file",
        ));
    }
    Ok(())
}

/// `DB_HOST` and its companions as one URL. The URL type escapes all but `%`, which it takes for an escape.
fn assemble(host: &str, arguments: &DatabaseArguments) -> Result<String, StartError> {
    if host.contains(':') && !host.starts_with('[') {
        return Err(StartError::setting(
            "DB_HOST",
            "names a port: set DB_PORT; an IPv6 address stands in brackets",
        ));
    }
    let escaped = |text: &str| text.replace('%', "%25");
    let user = arguments.db_user.as_deref().unwrap_or("postgres");
    let password = arguments.db_password.as_deref().map(escaped);
    let bad = |name: &'static str| StartError::setting(name, "cannot be part of a database URL");
    let mut url = reqwest::Url::parse("postgres://localhost").map_err(|_| bad("DB_HOST"))?;
    url.set_host(Some(host)).map_err(|_| bad("DB_HOST"))?;
    url.set_port(Some(arguments.db_port.unwrap_or(5432))).map_err(|()| bad("DB_PORT"))?;
    url.set_username(&escaped(user)).map_err(|()| bad("DB_USER"))?;
    url.set_password(password.as_deref()).map_err(|()| bad("DB_PASSWORD"))?;
    url.set_path(&escaped(arguments.db_name.as_deref().unwrap_or("probity")));
    Ok(url.into())
}

#[cfg(not(feature = "postgres"))]
mod backend {
    use std::path::{Path, PathBuf};
    use std::str::FromStr;
    use std::time::Duration;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

    use super::Database;
    use crate::{DatabaseChoice, Pool, Settings, StartError};

    /// WAL lets readers and the writer work side by side; FULL means that `COMMIT` is on disk when it returns.
    pub(super) async fn connect(
        pool: sqlx::pool::PoolOptions<Database>,
        settings: &Settings,
    ) -> Result<Pool, StartError> {
        let (options, path) = locate(settings)?;
        let unwritable = |reason: String| StartError::Unwritable { path: path.clone(), reason };
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder).map_err(|error| StartError::Unwritable {
                path: folder.to_owned(),
                reason: error.to_string(),
            })?;
        }
        // SQLite falls back to read-only in silence when it may not write; asking first gives the clear message.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|error| unwritable(error.to_string()))?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        pool.connect_with(options).await.map_err(|error| unwritable(error.to_string()))
    }

    fn locate(settings: &Settings) -> Result<(SqliteConnectOptions, PathBuf), StartError> {
        let options = match &settings.database {
            DatabaseChoice::Default => SqliteConnectOptions::new().filename(settings.default_file()),
            DatabaseChoice::Url(url) => SqliteConnectOptions::from_str(url)
                .map_err(|error| StartError::setting("DATABASE_URL", format!("cannot be read: {error}")))?,
        };
        let path = options.get_filename().to_owned();
        Ok((options, path))
    }
}

#[cfg(feature = "postgres")]
mod backend {
    use std::str::FromStr;

    use sqlx::postgres::PgConnectOptions;

    use super::Database;
    use crate::{DatabaseChoice, Pool, Settings, StartError};

    pub(super) async fn connect(
        pool: sqlx::pool::PoolOptions<Database>,
        settings: &Settings,
    ) -> Result<Pool, StartError> {
        let DatabaseChoice::Url(url) = &settings.database else {
            return Err(StartError::setting("DATABASE_URL", "is not set, and this build serves PostgreSQL"));
        };
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| {
                StartError::setting("DATABASE_URL", "cannot be read; use postgres://user@host/database")
            })?
            .application_name(settings.name);
        pool.connect_with(options)
            .await
            .map_err(|source| StartError::Database { service: settings.name.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice<const N: usize>(vars: [(&str, &str); N]) -> Result<DatabaseChoice, StartError> {
        Settings::from_vars("order-service", 0, vars).map(|settings| settings.database)
    }

    #[test]
    fn a_url_this_build_cannot_serve_is_refused_with_the_command_that_can() {
        let (url, command) = if POSTGRES {
            ("sqlite:data/x.sqlite3", "cargo run -p order-service")
        } else {
            ("postgres://u:secret@db/pay", "cargo run -p order-service --features postgres")
        };
        let refused = choice([("DATABASE_URL", url)]).expect_err("refused").to_string();
        assert!(refused.ends_with(command) && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_setting_that_would_be_ignored_is_refused() {
        let refusal = |vars: &[(&str, &str)]| {
            let refused = Settings::from_vars("order-service", 0, vars.iter().copied()).expect_err("refused");
            refused.to_string()
        };
        for name in ["DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"] {
            let refused = refusal(&[(name, "6000")]);
            assert!(refused.starts_with(&format!("{name} belongs to DB_HOST")), "{refused}");
        }
        assert!(refusal(&[("DB_HOST", "db:6000")]).starts_with("DB_HOST names a port"));
        let url = if POSTGRES { "postgres://db/x" } else { "sqlite:x.sqlite3" };
        for name in ["REDIS_PORT", "REDIS_SENTINEL_MASTER"] {
            let refused = refusal(&[("DATABASE_URL", url), (name, "7000")]);
            assert!(refused.starts_with(&format!("{name} belongs to REDIS_URL")), "{refused}");
        }
        assert!(refusal(&[("DATABASE_URL", url), ("RUST_LOG", "info,=")]).starts_with("RUST_LOG "));
    }

    #[test]
    fn a_refusal_names_the_build_that_serves_database_and_redis() {
        if !POSTGRES {
            let vars = [("DATABASE_URL", "postgres://db/x"), ("REDIS_URL", "redis://cache")];
            let refused = choice(vars).expect_err("refused").to_string();
            assert!(refused.ends_with("--features postgres,redis"), "{refused}");
        }
    }

    #[test]
    fn another_scheme_and_a_database_in_memory_are_refused() {
        let refused = choice([("DATABASE_URL", "mysql://u:secret@db/pay")]).expect_err("refused").to_string();
        assert!(refused.contains("sqlite: or postgres://") && !refused.contains("secret"), "{refused}");
        assert!(choice([("DATABASE_URL", "sqlite::memory:")]).is_err());
    }

    #[test]
    fn the_parts_of_a_url_are_escaped() {
        let parts = [("DB_HOST", "db"), ("DB_PASSWORD", "p@ss/word%41")];
        let url = "postgres://postgres:p%40ss%2Fword%2541@db:5432/probity";
        match choice(parts) {
            Ok(choice) => assert_eq!(choice, DatabaseChoice::Url(url.to_owned())),
            Err(refused) => {
                assert!(!POSTGRES && refused.to_string().contains("--features postgres"), "{refused}")
            }
        }
    }
}
