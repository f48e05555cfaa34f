//! A proxy in front of a PostgreSQL server that loses what a test wants it to lose: a COMMIT, or the answer to it.
//!
//! It reads the protocol no further than it must: a COMMIT of ours and the server's answer to it arrive in one piece each.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

/// The place at which a connection breaks at a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the COMMIT.
    BeforeTheServer,
    /// The server commits, and the answer is lost.
    BeforeTheAnswer,
    /// The connection does not break: a statement that the client never hears of aborts the transaction first.
    AbortedBefore,
}

/// A proxy that is used in an asynchronous test; it ends with the runtime that made it.
///
/// ```no_run
/// # async fn pay(_: &str) {}
/// # async fn example() {
/// let database = testkit::Postgres::shared().database();
/// let proxy = testkit::PostgresProxy::before(database.url()).await;
/// proxy.cut_next(testkit::Cut::BeforeTheAnswer);
/// pay(&proxy.url(database.url())).await; // the server commits, and the client is never told
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresProxy {
    wire: Wire,
    server: Arc<Mutex<String>>,
    address: SocketAddr,
}

/// The state that all connections share: a plan for each of the next COMMITs, the number of the next connections that end
/// before they begin, the count of round trips, and the number of the next ROLLBACKs that are spoiled.
#[derive(Clone, Debug)]
struct Wire {
    commit: &'static [u8],
    plans: Arc<Mutex<VecDeque<Plan>>>,
    round_trips: Arc<AtomicU64>,
    refusals: Arc<AtomicU64>,
    garbles: Arc<AtomicU64>,
}

/// The treatment of one COMMIT.
#[derive(Debug)]
enum Plan {
    Pass,
    Cut {
        cut: Cut,
        /// Given to the test while the connection still stands; it breaks when the test drops it, and until then the
        /// client hears nothing, whatever the server says or does.
        pause: Pause,
    },
}

/// The server's answer to a COMMIT, as it travels.
const ANSWER: &[u8] = b"COMMIT\0Z";
const ROLLBACK: &[u8] = b"ROLLBACK\0";
/// A statement that fails, and the end of the server's answer to it.
const FAILING: &[u8] = b"Q\0\0\0\x0fSELECT 1/0\0";
const FAILED: &[u8] = b"Z\0\0\0\x05E";

impl PostgresProxy {
    /// Listens on a free port in front of the server of a URL.
    ///
    /// # Panics
    /// When no port can be bound, or the URL names no host.
    pub async fn before(url: &str) -> PostgresProxy {
        PostgresProxy::before_commits_like(url, "COMMIT").await
    }

    /// Listens on a free port, and takes only statements that end with `commit` for a COMMIT.
    ///
    /// # Panics
    /// When no port can be bound, or the URL names no host.
    pub async fn before_commits_like(url: &str, commit: &str) -> PostgresProxy {
        let (listener, address) = match TcpListener::bind(("127.0.0.1", 0)).await {
            Ok(listener) => match listener.local_addr() {
                Ok(address) => (listener, address),
                Err(error) => panic!("a listener has no address: {error}"),
            },
            Err(error) => panic!("no port can be bound: {error}"),
        };
        let commit = format!("{commit}\0").into_bytes().leak();
        let (plans, [round_trips, refusals, garbles]) = (Arc::default(), [(); 3].map(|()| Arc::default()));
        let wire = Wire { commit, plans, round_trips, refusals, garbles };
        let server = Arc::new(Mutex::new(host(url).to_owned()));
        tokio::spawn(accept(listener, wire.clone(), Arc::clone(&server)));
        PostgresProxy { wire, server, address }
    }

    /// Returns a URL of the same database through the proxy.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replacen(host(url), &self.address.to_string(), 1)
    }

    /// Leads new connections to the server of another URL from now on.
    ///
    /// # Panics
    /// When the URL names no host.
    pub fn redirect(&self, url: &str) {
        host(url).clone_into(&mut locked(&self.server));
    }

    /// Returns the number of times that a client waited for the server so far: messages that followed upon an answer.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.wire.round_trips.load(Ordering::SeqCst)
    }

    /// Closes so many of the next connections at once.
    pub fn refuse_next(&self, connections: u64) {
        self.wire.refusals.store(connections, Ordering::SeqCst);
    }

    /// Turns so many of the next ROLLBACKs into texts that the server refuses.
    pub fn garble_next_rollbacks(&self, rollbacks: u64) {
        self.wire.garbles.store(rollbacks, Ordering::SeqCst);
    }

    /// Lets so many COMMITs pass before what is planned next.
    pub fn pass_next(&self, commits: u32) {
        locked(&self.wire.plans).extend((0..commits).map(|_| Plan::Pass));
    }

    /// Breaks the connection that sends the next COMMIT.
    pub fn cut_next(&self, cut: Cut) {
        drop(self.pause_next([cut]));
    }

    /// Breaks the connections of as many COMMITs, but tells the test before each of them and waits until the test drops
    /// what it was told.
    pub fn pause_next(
        &self,
        cuts: impl IntoIterator<Item = Cut>,
    ) -> mpsc::UnboundedReceiver<oneshot::Sender<()>> {
        let (pause, paused) = mpsc::unbounded_channel();
        let plans = cuts.into_iter().map(|cut| Plan::Cut { cut, pause: pause.clone() });
        locked(&self.wire.plans).extend(plans);
        paused
    }

    /// Returns true while something planned is still to come.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        !locked(&self.wire.plans).is_empty()
    }
}

impl Wire {
    /// Takes the plan for a COMMIT that is passing, unless it passes.
    fn take_cut(&self) -> Option<(Cut, Pause)> {
        match locked(&self.plans).pop_front()? {
            Plan::Pass => None,
            Plan::Cut { cut, pause } => Some((cut, pause)),
        }
    }

    fn garbles(&self) -> bool {
        take_one(&self.garbles)
    }

    fn refuses(&self) -> bool {
        take_one(&self.refusals)
    }
}

/// Counts down; false at zero.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// The part `host:port` of a URL.
fn host(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else { panic!("{url} is no URL") };
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, wire: Wire, server: Arc<Mutex<String>>) {
    while let Ok((client, _)) = listener.accept().await {
        let wire = wire.clone();
        if wire.refuses() {
            continue;
        }
        let server = locked(&server).clone();
        tokio::spawn(async move {
            if let Ok(server) = TcpStream::connect(server).await {
                carry(client, server, wire).await;
            }
        });
    }
}

/// An answer that the client must not see.
#[derive(Default)]
struct Hidden {
    expected: AtomicBool,
    arrived: Notify,
    /// The test holds a COMMIT that the server has not seen: from now on the client hears nothing.
    silent: AtomicBool,
}

/// Tells the test of a COMMIT.
type Pause = mpsc::UnboundedSender<oneshot::Sender<()>>;

/// Carries bytes both ways until either end closes.
async fn carry(client: TcpStream, server: TcpStream, wire: Wire) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (lose_answer, answer_lost) = oneshot::channel();
    // The greeting counts as an answer, so that the first message of the client counts.
    let answered = AtomicBool::new(true);
    let hidden = Hidden::default();
    let up = up(from_client, to_server, &wire, &answered, &hidden, lose_answer);
    let down = down(from_server, to_client, &answered, &hidden, answer_lost);
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    wire: &Wire,
    answered: &AtomicBool,
    hidden: &Hidden,
    lose_answer: oneshot::Sender<Pause>,
) {
    let mut lose_answer = Some(lose_answer);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        if answered.swap(false, Ordering::SeqCst) {
            wire.round_trips.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(at) = position(&buffer[..count], ROLLBACK)
            && wire.garbles()
        {
            buffer[at] = b'X';
        }
        if contains(&buffer[..count], wire.commit)
            && let Some((cut, pause)) = wire.take_cut()
        {
            match cut {
                Cut::BeforeTheServer => {
                    hidden.silent.store(true, Ordering::SeqCst);
                    return tell(pause).await;
                }
                Cut::BeforeTheAnswer => {
                    if let Some(lose_answer) = lose_answer.take() {
                        drop(lose_answer.send(pause));
                    }
                }
                Cut::AbortedBefore => {
                    hidden.expected.store(true, Ordering::SeqCst);
                    if server.write_all(FAILING).await.is_err() {
                        return;
                    }
                    hidden.arrived.notified().await;
                }
            }
        }
        if server.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn down(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    answered: &AtomicBool,
    hidden: &Hidden,
    mut answer_lost: oneshot::Receiver<Pause>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let answer = server.read(&mut buffer).await;
        if hidden.silent.load(Ordering::SeqCst) {
            // A server that stops says so, and hangs up: the client would go on before the test lets it.
            return std::future::pending().await;
        }
        let Ok(count @ 1..) = answer else { return };
        if hidden.expected.load(Ordering::SeqCst) {
            if contains(&buffer[..count], FAILED) {
                hidden.expected.store(false, Ordering::SeqCst);
                hidden.arrived.notify_one();
            }
            continue;
        }
        if contains(&buffer[..count], ANSWER)
            && let Ok(pause) = answer_lost.try_recv()
        {
            return tell(pause).await;
        }
        answered.store(true, Ordering::SeqCst);
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Tells the test, and waits until it goes on.
async fn tell(pause: Pause) {
    let (go_on, told) = oneshot::channel();
    if pause.send(go_on).is_ok() {
        let _ended = told.await;
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    position(bytes, wanted).is_some()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_replaced_and_nothing_else() {
        assert_eq!(host("postgres://me:secret@127.0.0.1:5432/orders?a=b"), "127.0.0.1:5432");
        assert_eq!(host("postgres://db:5432"), "db:5432");
    }
}
