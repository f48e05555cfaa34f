//! Everything the environment may say, read once, with defaults that need nothing.
//!
//! Invariant: a setting that cannot work is refused here, before anything is opened, with the remedy in the
//! message. Secrets never reach `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::database::parse_choice;
use crate::{Operators, ServiceToken, StartError};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// `MERCHANT_SERVICE_URL`, port 40002 of this machine unless told.
    pub merchant: String,
    /// `PAYMENT_GATEWAY_URL`, port 40003.
    pub gateway: String,
    /// `ORDER_SERVICE_URL`, port 40004.
    pub order: String,
    /// `CHANNEL_ADAPTER_URL`, port 40005.
    pub channel: String,
    /// `WITHDRAWAL_SERVICE_URL`, port 40014.
    pub withdrawal: String,
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
    variables: BTreeMap<String, String>,
}

impl Settings {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// [`StartError::Setting`] names the variable that cannot work and what to do.
    pub fn from_env(name: &'static str, default_port: u16) -> Result<Settings, StartError> {
        let readable =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Settings::from_vars(name, default_port, readable)
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
        let variables: BTreeMap<String, String> = variables
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        refuse_redis(&variables)?;
        let address = address(&variables, default_port)?;
        Ok(Settings {
            name,
            address,
            database: parse_choice(name, &variables)?,
            data_dir: variables.get("DATA_DIR").map_or_else(|| PathBuf::from("data"), PathBuf::from),
            service_token: bearer("SERVICE_TOKEN", &variables, address.ip())?,
            operators: Operators::from_setting(variables.get("OPERATORS").map(String::as_str), address.ip())?,
            peers: peers(&variables)?,
            variables,
        })
    }

    /// A variable that only one service knows, such as `BANK_TIMEOUT_MS`. Empty counts as absent.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A secret that two parties share. On a loopback address it may be absent: then both have the same text, which is no
    /// secret.
    ///
    /// # Errors
    /// [`StartError::Setting`] when it is too short, not printable, or absent on any other address.
    pub fn secret(&self, name: &'static str) -> Result<ServiceToken, StartError> {
        bearer(name, &self.variables, self.address.ip())
    }

    /// A variable that is a number from `least` on; `default` if it is absent.
    ///
    /// # Errors
    /// [`StartError::Setting`] when it is anything else.
    pub fn number(&self, name: &'static str, least: u64, default: u64) -> Result<u64, StartError> {
        let Some(text) = self.variable(name) else { return Ok(default) };
        text.parse().ok().filter(|number| *number >= least).ok_or_else(|| StartError::Setting {
            name,
            problem: format!("must be a number from {least} on, not `{text}`"),
        })
    }

    /// A variable that is a number of milliseconds from 1 on; `default` of them if it is absent.
    ///
    /// # Errors
    /// [`StartError::Setting`] when it is anything else.
    ///
    /// # Examples
    /// ```
    /// # let url = if service_shell::POSTGRES { "postgres://localhost/orders" } else { "sqlite:orders.sqlite3" };
    /// let variables = [("STEP_RETRY_MS", "soon"), ("DATABASE_URL", url)];
    /// let settings = service_shell::Settings::from_vars("order-service", 40004, variables)?;
    /// assert_eq!(settings.milliseconds("SAGA_LEASE_MS", 30_000)?.as_secs(), 30);
    /// let refused = settings.milliseconds("STEP_RETRY_MS", 2_000).expect_err("it is a word").to_string();
    /// assert!(refused.starts_with("STEP_RETRY_MS must be a number from 1 on, not `soon`"), "{refused}");
    /// # Ok::<(), service_shell::StartError>(())
    /// ```
    pub fn milliseconds(&self, name: &'static str, default: u64) -> Result<Duration, StartError> {
        self.number(name, 1, default).map(Duration::from_millis)
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

/// A URL without its user and password.
pub(crate) fn redacted(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => url.to_owned(),
    }
}

fn refuse_redis(variables: &BTreeMap<String, String>) -> Result<(), StartError> {
    for name in ["REDIS_URL", "REDIS_HOST"] {
        if variables.contains_key(name) {
            return Err(StartError::setting(
                name,
                "is set, but this build keeps idempotency in the SQL database, where a restart loses nothing; \
                 unset it",
            ));
        }
    }
    Ok(())
}

fn address(variables: &BTreeMap<String, String>, default_port: u16) -> Result<SocketAddr, StartError> {
    let host = match variables.get("HOST") {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text.parse().map_err(|_| {
            StartError::setting("HOST", format!("must be an IP address such as 127.0.0.1, not `{text}`"))
        })?,
    };
    let port = match variables.get("PORT") {
        None => default_port,
        Some(text) => text.parse().map_err(|_| {
            StartError::setting("PORT", format!("must be a number from 0 to 65535, not `{text}`"))
        })?,
    };
    Ok(SocketAddr::new(host, port))
}

fn bearer(
    name: &'static str,
    variables: &BTreeMap<String, String>,
    host: IpAddr,
) -> Result<ServiceToken, StartError> {
    match variables.get(name) {
        Some(token) if token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(ServiceToken::new(token))
        }
        Some(_) => Err(StartError::setting(name, "must have at least 16 characters, printable ASCII only")),
        None if host.is_loopback() => Ok(ServiceToken::for_this_machine(name)),
        None => Err(StartError::setting(
            name,
            "must be set when HOST is not a loopback address: the default is known to everybody",
        )),
    }
}

fn peers(variables: &BTreeMap<String, String>) -> Result<Peers, StartError> {
    let url = |name: &'static str, port: u16| match variables.get(name) {
        None => Ok(format!("http://127.0.0.1:{port}")),
        Some(text) => match reqwest::Url::parse(text) {
            Ok(url) if url.scheme() == "http" && url.has_host() => Ok(text.trim_end_matches('/').to_owned()),
            _ => Err(StartError::setting(
                name,
                format!("must be an http:// URL such as http://127.0.0.1:{port}, not `{}`", redacted(text)),
            )),
        },
    };
    Ok(Peers {
        merchant: url("MERCHANT_SERVICE_URL", 40002)?,
        gateway: url("PAYMENT_GATEWAY_URL", 40003)?,
        order: url("ORDER_SERVICE_URL", 40004)?,
        channel: url("CHANNEL_ADAPTER_URL", 40005)?,
        withdrawal: url("WITHDRAWAL_SERVICE_URL", 40014)?,
    })
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
    fn redis_is_refused_with_the_reason() {
        assert!(
            refusal([("REDIS_URL", "redis://localhost")]).contains("keeps idempotency in the SQL database")
        );
        assert!(refusal([("REDIS_HOST", "localhost")]).contains("REDIS_HOST"));
    }

    #[test]
    fn a_bad_port_host_token_or_peer_is_named() {
        assert!(refusal([("PORT", "99999")]).starts_with("PORT must be a number"));
        assert!(refusal([("HOST", "somewhere")]).starts_with("HOST must be an IP address"));
        assert!(refusal([("SERVICE_TOKEN", "short")]).contains("at least 16"));
        assert!(refusal([("HOST", "0.0.0.0")]).starts_with("SERVICE_TOKEN must be set"));
        assert!(refusal([("ORDER_SERVICE_URL", "nowhere")]).starts_with("ORDER_SERVICE_URL must be"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let vars = [("SERVICE_TOKEN", "a-long-secret-token"), ("OPERATORS", "ann:see:another-secret")];
        let shown = match settings(vars) {
            Ok(settings) => format!("{settings:?}"),
            Err(refused) => refused.to_string(),
        };
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_redacted_url_keeps_only_the_place() {
        assert_eq!(redacted("postgres://u:p%40ss@db:5432/pay"), "postgres://…@db:5432/pay");
        assert_eq!(redacted("sqlite:data/x.sqlite3"), "sqlite:data/x.sqlite3");
    }
}
