//! A wire between the client and the server that loses what a test wants it to lose.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

/// The place where the connection breaks at the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server never sees it.
    BeforeTheServer,
    /// The server does it, and the answer is lost.
    BeforeTheAnswer,
    /// It does not break: a statement that the client never hears of aborts the transaction first.
    AbortedBefore,
}

/// The plan for the next COMMIT.
struct Plan {
    cut: Cut,
    /// Given to the test while the connection still stands; it breaks when the test drops it, and until then the
    /// client hears nothing, whatever the server says or does.
    pause: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

/// The state that all connections share: one plan for each of the next COMMITs, how many of the next connections end before they
/// begin, the count of round trips, and how many of the next ROLLBACKs are broken.
#[derive(Clone, Default)]
struct Wire {
    plans: Arc<Mutex<VecDeque<Plan>>>,
    round_trips: Arc<AtomicU64>,
    refusals: Arc<AtomicU64>,
    garbles: Arc<AtomicU64>,
}

impl Wire {
    fn take_plan(&self) -> Option<Plan> {
        self.plans.lock().unwrap().pop_front()
    }

    fn garbles(&self) -> bool {
        self.garbles.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    fn refuses(&self) -> bool {
        self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

pub(super) struct Proxy {
    wire: Wire,
    server: Arc<Mutex<String>>,
    address: SocketAddr,
}

/// Our COMMIT, and the server's answer to it, as they travel.
const COMMIT: &[u8] = b"; COMMIT\0";
const ANSWER: &[u8] = b"COMMIT\0Z";
const ROLLBACK: &[u8] = b"ROLLBACK\0";
/// A statement that fails, and the end of the server's answer to it.
const FAILING: &[u8] = b"Q\0\0\0\x0fSELECT 1/0\0";
const FAILED: &[u8] = b"Z\0\0\0\x05E";

impl Proxy {
    /// A wire to the server at `address`, which may come and go.
    pub(super) async fn to(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let wire = Wire::default();
        let shared = wire.clone();
        let server = Arc::new(Mutex::new(server));
        let leads_to = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wire = shared.clone();
                if wire.refuses() {
                    continue;
                }
                let server = leads_to.lock().unwrap().clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, wire).await;
                    }
                });
            }
        });
        Self { wire, server, address }
    }

    /// From now on new connections lead to another server.
    pub(super) fn redirect(&self, server: String) {
        *self.server.lock().unwrap() = server;
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Counts the waits for the server so far: messages that followed upon an answer.
    pub(super) fn round_trips(&self) -> u64 {
        self.wire.round_trips.load(Ordering::SeqCst)
    }

    /// Closes so many of the next connections at once.
    pub(super) fn refuse_next(&self, connections: u64) {
        self.wire.refusals.store(connections, Ordering::SeqCst);
    }

    /// Makes the next ROLLBACKs texts that the server refuses.
    pub(super) fn garble_next_rollbacks(&self, rollbacks: u64) {
        self.wire.garbles.store(rollbacks, Ordering::SeqCst);
    }

    /// Breaks the connection that sends the next COMMIT.
    pub(super) fn cut_next(&self, cut: Cut) {
        drop(self.pause_next([cut]));
    }

    /// Cuts the next COMMITs as [`Proxy::cut_next`] does, but tells the test first and waits for it.
    pub(super) fn pause_next(
        &self,
        cuts: impl IntoIterator<Item = Cut>,
    ) -> mpsc::UnboundedReceiver<oneshot::Sender<()>> {
        let (pause, paused) = mpsc::unbounded_channel();
        let plans = cuts.into_iter().map(|cut| Plan { cut, pause: pause.clone() });
        self.wire.plans.lock().unwrap().extend(plans);
        paused
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

async fn carry(client: TcpStream, server: TcpStream, wire: Wire) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (lose_answer, answer_lost) = oneshot::channel();
    // The greeting counts as an answer, so that the first message of the client counts.
    let answered = AtomicBool::new(true);
    let hidden = Hidden::default();
    let up = up(from_client, to_server, &wire, &answered, &hidden, lose_answer);
    let down = down(from_server, to_client, &answered, &hidden, answer_lost);
    // Either end closes both.
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
    lose_answer: oneshot::Sender<Plan>,
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
        if contains(&buffer[..count], COMMIT)
            && let Some(plan) = wire.take_plan()
        {
            match plan.cut {
                Cut::BeforeTheServer => {
                    hidden.silent.store(true, Ordering::SeqCst);
                    return tell(plan).await;
                }
                Cut::BeforeTheAnswer => {
                    let _ = lose_answer.take().unwrap().send(plan);
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
    mut answer_lost: oneshot::Receiver<Plan>,
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
            && let Ok(plan) = answer_lost.try_recv()
        {
            return tell(plan).await;
        }
        answered.store(true, Ordering::SeqCst);
        if client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn tell(plan: Plan) {
    let (go_on, told) = oneshot::channel();
    if plan.pause.send(go_on).is_ok() {
        let _ = told.await;
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    position(bytes, wanted).is_some()
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
