//! Everything the environment may say, read once, with defaults that need nothing.
//!
//! A setting has one name in three forms: the variable `DATA_DIR`, the flag `--data-dir`, and a line of `--help`. `clap`
//! reads and describes them; a flag wins over its variable, and an empty variable counts as absent.
//!
//! Invariant: a setting that cannot work is refused here, before anything is opened, with the remedy in the
//! message. Secrets never reach `Debug`.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, Command};

use crate::database::{DatabaseArguments, parse_choice};
use crate::environment;
use crate::purging::PurgingArguments;
use crate::records::{Redis, RedisArguments};
use crate::{Operators, ServiceToken, StartError, TelemetrySettings};

/// Which database was asked for. The build decides which of them it can serve.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseChoice {
    /// The setting is absent: an embedded file `<DATA_DIR>/<service>.sqlite3`, or a refusal in a PostgreSQL build.
    Default,
    /// A URL this build can serve.
    Url(String),
}

impl fmt::Debug for DatabaseChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseChoice::Default => f.write_str("Default"),
            DatabaseChoice::Url(url) => write!(f, "Url({})", redacted(url)),
        }
    }
}

/// The addresses of the other services.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Other services")]
pub struct Peers {
    /// The address of merchant-service.
    #[arg(id = "merchant_service_url", long = "merchant-service-url", value_name = "URL", env = "MERCHANT_SERVICE_URL", default_value = "http://127.0.0.1:40002", value_parser = peer)]
    pub merchant: String,
    /// The address of payment-gateway.
    #[arg(id = "payment_gateway_url", long = "payment-gateway-url", value_name = "URL", env = "PAYMENT_GATEWAY_URL", default_value = "http://127.0.0.1:40003", value_parser = peer)]
    pub gateway: String,
    /// The address of order-service.
    #[arg(id = "order_service_url", long = "order-service-url", value_name = "URL", env = "ORDER_SERVICE_URL", default_value = "http://127.0.0.1:40004", value_parser = peer)]
    pub order: String,
    /// The address of channel-adapter.
    #[arg(id = "channel_adapter_url", long = "channel-adapter-url", value_name = "URL", env = "CHANNEL_ADAPTER_URL", default_value = "http://127.0.0.1:40005", value_parser = peer)]
    pub channel: String,
    /// The address of withdrawal-service.
    #[arg(id = "withdrawal_service_url", long = "withdrawal-service-url", value_name = "URL", env = "WITHDRAWAL_SERVICE_URL", default_value = "http://127.0.0.1:40014", value_parser = peer)]
    pub withdrawal: String,
}

/// The settings that every service reads.
#[derive(Args)]
struct Common {
    /// The address to listen on.
    #[arg(long, env = "HOST", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    #[arg(long, env = "PORT")]
    port: u16,
    /// The folder of the embedded database.
    #[arg(long, env = "DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    /// The bearer secret that the services of one platform share [default on loopback only: a known one].
    #[arg(long, env = "SERVICE_TOKEN", value_parser = token)]
    service_token: Option<ServiceToken>,
    /// The people who run the platform, `name:see+act+approve:SHA256 of the token`, separated by commas [default on
    /// loopback only: ann, bob and cyd with known tokens].
    #[arg(long, env = "OPERATORS")]
    operators: Option<String>,
    #[command(flatten)]
    telemetry: TelemetrySettings,
    #[command(flatten)]
    redis: RedisArguments,
    #[command(flatten)]
    database: DatabaseArguments,
    #[command(flatten)]
    peers: Peers,
    #[command(flatten)]
    purging: PurgingArguments,
}

/// The settings of one service.
#[derive(Clone)]
pub struct Settings {
    /// The service's name, as in its `-p` argument.
    pub name: &'static str,
    /// `HOST` (127.0.0.1 unless told) and `PORT`. Port 0 takes a free one.
    pub address: SocketAddr,
    /// `DATABASE_URL`, or `DB_HOST DB_PORT DB_USER DB_PASSWORD DB_NAME`.
    pub database: DatabaseChoice,
    /// `DATA_DIR`, the folder of embedded database files; `data` unless told.
    pub data_dir: PathBuf,
    /// `SERVICE_TOKEN`, shared by all services of one platform.
    pub service_token: ServiceToken,
    /// `OPERATORS`, the persons who run the platform, with the hashes of their tokens.
    pub operators: Operators,
    /// URLs of the other services.
    pub peers: Peers,
    /// `RUST_LOG`, `LOG_FORMAT` and `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub telemetry: TelemetrySettings,
    pub(crate) redis: Option<Redis>,
    pub(crate) purging: PurgingArguments,
    variables: BTreeMap<String, String>,
}

/// The reason for which the command line of a service gives no settings.
#[derive(Debug)]
pub(crate) enum NoSettings {
    /// `--help`, or a flag that does not exist: `clap` has the words and the exit code.
    Said(clap::Error),
    Refused(StartError),
}

impl Settings {
    /// Reads the environment of this process, and its file `.env`.
    ///
    /// # Errors
    /// [`StartError::Setting`] names the variable that cannot work and what to do.
    pub fn from_env(name: &'static str, default_port: u16) -> Result<Settings, StartError> {
        Settings::from_vars(name, default_port, environment::read()?)
    }

    /// Reads flags and environment; `Own` describes the settings of this service alone, for `--help`.
    pub(crate) fn from_command_line<Own: Args>(
        name: &'static str,
        default_port: u16,
        line: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Settings, NoSettings> {
        let described = Own::augment_args(common(name, default_port).next_help_heading(name));
        let described = described
            .about(format!("Runs {name} until Ctrl-C."))
            .mut_args(|argument| argument.hide_env_values(true));
        let names = variable_names(&described);
        let matches = match unbound(described.clone()).try_get_matches_from(line) {
            Ok(matches) => matches,
            // Asked again with the names of the variables, which only the help needs.
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                let asked = described.clone().try_get_matches_from([name, "--help"]);
                return Err(NoSettings::Said(asked.err().unwrap_or(error)));
            }
            Err(error) if error.kind() == ErrorKind::ValueValidation => {
                return Err(NoSettings::Refused(refused(&error, &names)));
            }
            Err(error) => return Err(NoSettings::Said(error)),
        };
        let flags = names.into_iter().filter_map(|[id, _, variable]| {
            let given = matches.value_source(&id) == Some(ValueSource::CommandLine);
            let text = matches.get_raw(&id).filter(|_| given)?.next()?.to_str()?.to_owned();
            Some((variable, text))
        });
        let flags: Vec<_> = flags.collect();
        Settings::from_vars(name, default_port, variables.into_iter().chain(flags))
            .map_err(NoSettings::Refused)
    }

    /// The same from given variables: tests and `payment-platform` run several services in one process.
    ///
    /// # Errors
    /// The errors of [`Settings::from_env`].
    ///
    /// # Examples
    /// ```
    /// # let url = if service_shell::POSTGRES { "postgres://localhost/orders" } else { "sqlite:orders.sqlite3" };
    /// let variables = [("PORT", "0"), ("DATABASE_URL", url)];
    /// let settings = service_shell::Settings::from_vars("order-service", 40004, variables)?;
    /// assert_eq!(settings.address.port(), 0);
    /// # Ok::<(), service_shell::StartError>(())
    /// ```
    pub fn from_vars<K: Into<String>, V: Into<String>>(
        name: &'static str,
        default_port: u16,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Settings, StartError> {
        let variables = given(variables.into_iter().map(|(k, v)| (k.into(), v.into())));
        let Common {
            host,
            port,
            data_dir,
            service_token,
            operators,
            database,
            redis,
            peers,
            purging,
            telemetry,
        } = parsed(common(name, default_port), &variables)?;
        let service_token = shared("SERVICE_TOKEN", service_token, host)?;
        let operators = Operators::from_setting(operators.as_deref(), host)?;
        if operators.knows(service_token.text()) {
            return Err(StartError::setting(
                "OPERATORS",
                "gives a person the SERVICE_TOKEN: a service is no person",
            ));
        }
        Ok(Settings {
            name,
            address: SocketAddr::new(host, port),
            database: parse_choice(name, database, redis.is_set())?,
            data_dir,
            service_token,
            operators,
            peers,
            telemetry,
            redis: redis.parse(name)?,
            purging,
            variables,
        })
    }

    /// The settings that only one service reads.
    ///
    /// # Errors
    /// [`StartError::Setting`] names the variable that cannot work.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// #[derive(clap::Args)]
    /// struct Own {
    ///     /// The wait before the first retry of a step.
    ///     #[arg(long, env = "STEP_RETRY_MS", default_value = "2000", value_parser = service_shell::milliseconds)]
    ///     step_retry: Duration,
    /// }
    ///
    /// # let url = if service_shell::POSTGRES { "postgres://localhost/orders" } else { "sqlite:orders.sqlite3" };
    /// let variables = [("STEP_RETRY_MS", "500"), ("DATABASE_URL", url)];
    /// let settings = service_shell::Settings::from_vars("order-service", 40004, variables)?;
    /// assert_eq!(settings.own::<Own>()?.step_retry, Duration::from_millis(500));
    /// # Ok::<(), service_shell::StartError>(())
    /// ```
    pub fn own<Own: Args>(&self) -> Result<Own, StartError> {
        parsed(Own::augment_args(Command::new(self.name)), &self.variables)
    }

    /// A secret that two parties share. On a loopback address it may be absent: then both have the same text, which is no
    /// secret.
    ///
    /// # Errors
    /// [`StartError::Setting`] when it is absent on any other address.
    pub fn secret(
        &self,
        name: &'static str,
        given: Option<ServiceToken>,
    ) -> Result<ServiceToken, StartError> {
        shared(name, given, self.address.ip())
    }

    /// The embedded database file of this service, whether or not it is the one in use.
    #[must_use]
    pub fn default_file(&self) -> PathBuf {
        self.data_dir.join(format!("{}.sqlite3", self.name))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("database", &self.database)
            .field("data_dir", &self.data_dir)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// Reads a setting that is a number of milliseconds from 1 on.
///
/// # Errors
/// The words for the person who set it.
pub fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .map(Duration::from_millis)
        .ok_or_else(|| format!("must be a number of milliseconds from 1 on, not `{text}`"))
}

/// Reads a setting that is a number of sagas to drive at the same time.
///
/// # Errors
/// The words for the person who set it.
pub fn in_flight(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| format!("must be a number from 1 to 1000000, not `{text}`"))
}

/// The variables that are not empty: an empty one counts as absent.
pub(crate) fn given(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    variables.filter(|(_, value)| !value.is_empty()).collect()
}

/// A URL without its user, its password and its parameters.
pub(crate) fn redacted(url: &str) -> String {
    let url = url.split('?').next().unwrap_or(url);
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (Some(_), None) => url.to_owned(),
        // A file, or something whose user and password cannot be told from the rest.
        (None, _) => match url.split_once(':') {
            Some((scheme @ "sqlite", rest)) => format!("{scheme}:{rest}"),
            _ => "…".to_owned(),
        },
    }
}

fn common(name: &'static str, default_port: u16) -> Command {
    Common::augment_args(Command::new(name))
        .mut_arg("port", |argument| argument.required(false).default_value(default_port.to_string()))
}

/// Each argument's id and flag, and the variable of the same name.
fn variable_names(command: &Command) -> Vec<[String; 3]> {
    let named = command.get_arguments().filter_map(|argument| {
        let (flag, variable) = (argument.get_long()?, argument.get_env()?.to_str()?);
        Some([argument.get_id().to_string(), format!("--{flag}"), variable.to_owned()])
    });
    named.collect()
}

/// A command that does not look at this process's environment.
fn unbound(command: Command) -> Command {
    command.mut_args(|argument| argument.env(None::<&str>))
}

/// Reads `A` out of the variables that it describes.
pub(crate) fn parsed<A: Args>(
    command: Command,
    variables: &BTreeMap<String, String>,
) -> Result<A, StartError> {
    let names = variable_names(&command);
    let line = command.get_arguments().filter_map(|argument| {
        let value = variables.get(argument.get_env()?.to_str()?)?;
        Some(format!("--{}={value}", argument.get_long()?))
    });
    let line: Vec<_> = line.collect();
    let matches = unbound(command).no_binary_name(true).try_get_matches_from(line);
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| refused(&error, &names))
}

/// The error of `clap` in the words of the variable; its own text would show the value, which may be a secret.
fn refused(error: &clap::Error, names: &[[String; 3]]) -> StartError {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.split([' ', '=']).next().unwrap_or_default(),
        _ => "",
    };
    let name =
        names.iter().find(|[_, known, _]| known == flag).map_or(flag, |[.., variable]| variable).to_owned();
    let why = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => format!("must be one of: {}", words.join(", ")),
        _ => error.source().map_or_else(|| error.kind().to_string(), ToString::to_string),
    };
    StartError::Setting { name, problem: why }
}

fn shared(name: &'static str, given: Option<ServiceToken>, host: IpAddr) -> Result<ServiceToken, StartError> {
    match given {
        Some(token) => Ok(token),
        None if host.is_loopback() => Ok(ServiceToken::for_this_machine(name)),
        None => Err(StartError::setting(
            name,
            "must be set when HOST is not a loopback address: the default is known to everybody",
        )),
    }
}

/// Reads a setting that is a shared secret.
///
/// # Errors
/// The words for the person who set it, without the secret.
pub fn token(text: &str) -> Result<ServiceToken, &'static str> {
    let fits = text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| ServiceToken::new(text)).ok_or("must have at least 16 characters, printable ASCII only")
}

fn peer(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(format!("must be an http:// URL such as http://127.0.0.1:40004, not `{}`", redacted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<const N: usize>(vars: [(&str, &str); N]) -> Result<Settings, StartError> {
        // A PostgreSQL build has no database to fall back to, and would say so first.
        let url = crate::POSTGRES.then_some(("DATABASE_URL", "postgres://localhost/orders"));
        Settings::from_vars("order-service", 40004, url.into_iter().chain(vars))
    }

    fn refusal<const N: usize>(vars: [(&str, &str); N]) -> String {
        settings(vars).expect_err("should be refused").to_string()
    }

    #[test]
    #[cfg(not(feature = "postgres"))]
    fn an_empty_environment_is_enough() {
        let settings = settings([]).unwrap();
        assert_eq!(settings.address.to_string(), "127.0.0.1:40004");
        assert_eq!(settings.database, DatabaseChoice::Default);
        assert_eq!(settings.default_file(), PathBuf::from("data/order-service.sqlite3"));
        assert_eq!(settings.peers.channel, "http://127.0.0.1:40005");
    }

    #[test]
    fn redis_is_served_by_a_build_that_can_and_refused_with_its_command_by_others() {
        for (name, value) in [("REDIS_URL", "redis://localhost"), ("REDIS_HOST", "localhost")] {
            let refused = settings([(name, value)]).err().map(|refused| refused.to_string());
            assert_eq!(refused.is_none(), crate::REDIS, "{refused:?}");
            let command = "cargo run -p order-service --features redis";
            assert!(refused.is_none_or(|refused| refused.starts_with(name) && refused.ends_with(command)));
        }
        let nowhere = refusal([("REDIS_URL", "http://user:secret@localhost")]);
        assert!(nowhere.starts_with("REDIS_URL") && !nowhere.contains("secret"), "{nowhere}");
    }

    #[test]
    fn a_bad_port_host_token_or_peer_is_named() {
        assert!(refusal([("PORT", "99999")]).starts_with("PORT 99999 is not in 0..=65535"));
        assert!(refusal([("HOST", "somewhere")]).starts_with("HOST invalid IP address"));
        assert!(refusal([("SERVICE_TOKEN", "short")]).contains("at least 16"));
        assert!(refusal([("HOST", "0.0.0.0")]).starts_with("SERVICE_TOKEN must be set"));
        assert!(refusal([("ORDER_SERVICE_URL", "nowhere")]).starts_with("ORDER_SERVICE_URL must be"));
        assert_eq!(refusal([("LOG_FORMAT", "xml")]), "LOG_FORMAT must be one of: text, json");
        assert!(refusal([("OTEL_EXPORTER_OTLP_ENDPOINT", "https://x")]).contains("must be an http:// URL"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let operators = Operators::entry("ann", crate::Role::ALL, "a-secret-of-ann");
        let url = if crate::POSTGRES { "postgres://u:secret@db/x" } else { "sqlite:x.sqlite3" };
        let vars =
            [("SERVICE_TOKEN", "a-long-secret-token"), ("OPERATORS", &operators), ("DATABASE_URL", url)];
        let shown = format!("{:?}", settings(vars).unwrap());
        assert!(!shown.contains("secret") && !shown.contains(&operators), "{shown}");
        let refused = refusal([("OPERATORS", "ann:see:another-secret")]);
        assert!(refused.starts_with("OPERATORS") && !refused.contains("secret"), "{refused}");
    }

    #[test]
    fn a_service_token_is_no_person() {
        let operators = Operators::entry("svc", crate::Role::ALL, "0123456789abcdef");
        let refused = refusal([("SERVICE_TOKEN", "0123456789abcdef"), ("OPERATORS", &operators)]);
        assert!(refused.starts_with("OPERATORS gives a person the SERVICE_TOKEN"), "{refused}");
    }

    #[test]
    fn a_redacted_url_keeps_only_the_place() {
        assert_eq!(redacted("postgres://u:p%40ss@db:5432/pay"), "postgres://…@db:5432/pay");
        assert_eq!(redacted("postgres://db/pay?password=hunter2"), "postgres://db/pay");
        assert_eq!(redacted("sqlite:data/x.sqlite3"), "sqlite:data/x.sqlite3");
        assert_eq!(redacted("postgre:u:secret@db/x"), "…");
        assert_eq!(redacted("u:secret@db/x"), "…");
    }

    fn line<const N: usize>(flags: [&str; N], vars: &[(&str, &str)]) -> Result<Settings, NoSettings> {
        let url = if crate::POSTGRES { "postgres://localhost/x" } else { "sqlite:x.sqlite3" };
        let line = std::iter::once("order-service").chain(flags).map(OsString::from);
        let vars = [&[("DATABASE_URL", url)], vars].concat();
        let vars = vars.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        Settings::from_command_line::<()>("order-service", 40004, line, vars)
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_is_absent() {
        let settings = line(["--port", "7"], &[("PORT", "8"), ("HOST", "")]).unwrap();
        assert_eq!(settings.address.to_string(), "127.0.0.1:7");
    }

    #[test]
    fn help_names_every_variable_with_its_default_and_starts_nothing() {
        let Err(NoSettings::Said(help)) = line(["--help"], &[("SERVICE_TOKEN", "x")]) else {
            panic!("it started")
        };
        let help = help.to_string();
        for text in
            ["--port <PORT>", "[env: PORT]", "[default: 40004]", "[env: DB_PASSWORD]", "ORDER_SERVICE_URL"]
        {
            assert!(help.contains(text), "{text} is not in:\n{help}");
        }
        assert!(matches!(line(["--prot", "7"], &[]), Err(NoSettings::Said(_))), "a flag that does not exist");
    }
}
