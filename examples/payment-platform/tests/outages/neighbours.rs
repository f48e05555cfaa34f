//! The five services as processes, their databases, and how they go away.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use service_shell::{HttpTimeouts, Pool, Settings, database, http_client};
use testkit::{Program, Rng};
use tokio::time::sleep;

pub(crate) const SERVICE_TOKEN: &str = "service-of-the-outage-tests";
/// The token of `ann`, one of the operators of services that are not configured.
pub(crate) const OPERATOR_TOKEN: &str = "loopback-only-ann";

/// The services, and the variables by which the others find them.
const SERVICES: [(&str, &str); 5] = [
    ("merchant-service", "MERCHANT_SERVICE_URL"),
    ("payment-gateway", "PAYMENT_GATEWAY_URL"),
    ("order-service", "ORDER_SERVICE_URL"),
    ("channel-adapter", "CHANNEL_ADAPTER_URL"),
    ("withdrawal-service", "WITHDRAWAL_SERVICE_URL"),
];

/// The ways in which a service goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Away {
    /// `kill -9`: connections are refused until it is started again.
    Killed,
    /// `SIGSTOP`: connections are accepted by the system and not answered.
    Frozen,
    /// Its database does not answer.
    Database,
}

const WAYS: [Away; 3] = [Away::Killed, Away::Frozen, Away::Database];

/// A service, and the place of its data.
struct Neighbour {
    name: &'static str,
    port: u16,
    environment: Vec<(String, String)>,
    program: Program,
    data: Data,
}

/// The platform.
pub(crate) struct Neighbours {
    all: Vec<Neighbour>,
    happened: BTreeMap<(Away, &'static str), u32>,
    _folder: testkit::TempDir,
}

impl Neighbours {
    /// Starts all services. Each wait of the services is as much shorter as the outages are.
    pub(crate) fn start(second: Duration) -> Neighbours {
        let folder = testkit::temp_dir();
        let ports = SERVICES.map(|_| testkit::free_port());
        let seconds = |count: u32, least: u64| {
            second.saturating_mul(count).max(Duration::from_millis(least)).as_millis().to_string()
        };
        // Below these least times a busy machine would only show that it is busy.
        let mut shared = vec![
            ("SERVICE_TOKEN", SERVICE_TOKEN.to_owned()),
            ("DATA_DIR", folder.path().display().to_string()),
            ("RUST_LOG", "error".to_owned()),
            ("STEP_RETRY_MS", seconds(2, 10)),
            ("ORDER_TIMEOUT_MS", seconds(30, 1_000)),
            ("CHANNEL_TIMEOUT_MS", seconds(60, 1_000)),
            ("BANK_TIMEOUT_MS", seconds(120, 1_000)),
            ("REQUEST_WAIT_MS", seconds(10, 500)),
            ("PAYMENT_EXPIRY_MS", seconds(1800, 30_000)),
            ("SAGA_LEASE_MS", seconds(30, 3_000)),
            ("IDEMPOTENCY_LEASE_MS", seconds(30, 3_000)),
            ("CHANNEL_SLOW_MS", seconds(2, 100)),
            ("CHANNEL_HANG_MS", seconds(180, 3_000)),
        ];
        for ((_, variable), port) in SERVICES.iter().zip(ports) {
            shared.push((variable, format!("http://127.0.0.1:{port}")));
        }
        let start = |((name, _), port): (&(&'static str, &str), u16)| {
            let data = Data::new(&folder, name);
            let own = [("PORT", port.to_string()), ("DATABASE_URL", data.url())];
            let environment = shared.iter().cloned().chain(own);
            let environment: Vec<_> = environment.map(|(key, value)| (key.to_owned(), value)).collect();
            let program = spawn(name, port, &environment);
            Neighbour { name, port, environment, program, data }
        };
        let all = SERVICES.iter().zip(ports).map(start).collect();
        Neighbours { all, happened: BTreeMap::new(), _folder: folder }
    }

    fn named(&self, name: &str) -> &Neighbour {
        self.all.iter().find(|neighbour| neighbour.name == name).unwrap()
    }

    /// `http://127.0.0.1:port` of a service.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.named(name).port)
    }

    /// The database of a service, read beside it.
    pub(crate) async fn database(&self, name: &str) -> Pool {
        open(&self.named(name).data.url()).await
    }

    /// One or two neighbours go away, a little after each other, for 1 s to 3 min together, and come back.
    pub(crate) async fn outage(&mut self, rng: &mut Rng, second: Duration) {
        let second = u64::try_from(second.as_millis()).unwrap();
        let moment = |rng: &mut Rng, seconds: u64| Duration::from_millis(rng.between(0, seconds * second));
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        rng.shuffle(&mut order);
        order.truncate(if rng.between(0, 2) == 0 { 2 } else { 1 });
        let mut away = Vec::new();
        for at in order {
            sleep(moment(rng, 20)).await;
            let way = *rng.pick::<Away>(&WAYS);
            *self.happened.entry((way, self.all[at].name)).or_default() += 1;
            away.push((at, self.all[at].leave(way).await));
        }
        // Most outages are short: a power of two of seconds, and some more.
        let longest = (1 << rng.between(0, 8)).min(180);
        sleep(Duration::from_millis(second * rng.between(1, longest))).await;
        for (at, left) in away {
            self.all[at].come_back(left).await;
        }
        sleep(moment(rng, 20)).await;
    }

    /// Counts the outages of each service, for a person to read.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for ((way, name), times) in &self.happened {
            let separator = if text.is_empty() { "" } else { ", " };
            write!(text, "{separator}{name} {way:?} {times}").unwrap();
        }
        text
    }
}

/// The thing that has to be taken back when a service returns.
enum Left {
    Killed,
    Frozen,
    Database(Gone),
}

impl Neighbour {
    async fn leave(&mut self, way: Away) -> Left {
        match way {
            Away::Killed => {
                self.program.kill9();
                Left::Killed
            }
            Away::Frozen => {
                self.program.pause();
                Left::Frozen
            }
            Away::Database => Left::Database(self.data.leave().await),
        }
    }

    async fn come_back(&mut self, left: Left) {
        match left {
            Left::Killed => {
                self.program = spawn(self.name, self.port, &self.environment);
                self.until_it_lives().await;
            }
            Left::Frozen => self.program.resume(),
            Left::Database(gone) => self.data.come_back(gone).await,
        }
        self.assert_running();
    }

    /// Listens first, and opens its database after that: one that loses it then ends, for a supervisor to start it again.
    /// There is none here, so nothing else goes wrong until it is through.
    async fn until_it_lives(&mut self) {
        let client = http_client(HttpTimeouts::default()).unwrap();
        let live = format!("http://127.0.0.1:{}/health/live", self.port);
        while client.get(&live).send().await.is_err() {
            self.assert_running();
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn assert_running(&mut self) {
        assert!(self.program.is_running(), "{} ended by itself:\n{}", self.name, self.program.output());
    }
}

fn spawn(name: &str, port: u16, environment: &[(String, String)]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payment-platform"));
    command.args(["service", name]).envs(environment.iter().map(|(key, value)| (key, value)));
    let mut program = Program::spawn(command);
    program.wait_for_port(port);
    program
}

async fn open(url: &str) -> Pool {
    database::open(&Settings::from_vars("test", 0, [("DATABASE_URL", url)]).unwrap()).await.unwrap()
}

/// An embedded file. It is away while the test holds its write lock.
#[cfg(not(feature = "postgres"))]
struct Data {
    url: String,
}

#[cfg(not(feature = "postgres"))]
type Gone = sqlx::SqliteConnection;

#[cfg(not(feature = "postgres"))]
impl Data {
    fn new(folder: &testkit::TempDir, name: &str) -> Data {
        Data { url: format!("sqlite:{}", folder.path().join(format!("{name}.sqlite3")).display()) }
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    async fn leave(&mut self) -> Gone {
        use sqlx::Connection as _;
        let mut lock = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
        sqlx::query("PRAGMA busy_timeout = 60000").execute(&mut lock).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
        lock
    }

    async fn come_back(&mut self, mut lock: Gone) {
        use sqlx::Connection as _;
        sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
        lock.close().await.unwrap();
    }
}

/// A server of its own. It is away killed, or frozen.
#[cfg(feature = "postgres")]
struct Data {
    server: testkit::Postgres,
    killed: bool,
}

#[cfg(feature = "postgres")]
type Gone = bool;

#[cfg(feature = "postgres")]
impl Data {
    fn new(_: &testkit::TempDir, _: &str) -> Data {
        Data { server: testkit::Postgres::start(), killed: false }
    }

    fn url(&self) -> String {
        self.server.url().to_owned()
    }

    /// By turns.
    async fn leave(&mut self) -> Gone {
        self.killed = !self.killed;
        if self.killed {
            self.server.kill9()
        } else {
            self.server.pause()
        }
        self.killed
    }

    async fn come_back(&mut self, killed: Gone) {
        if killed { self.server.restart() } else { self.server.resume() }
    }
}
