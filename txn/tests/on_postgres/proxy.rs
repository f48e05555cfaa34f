//! A wire between the client and the server that loses what a test wants it to lose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Where the connection breaks at the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server never sees it.
    BeforeTheServer,
    /// The server does it, and the answer is lost.
    BeforeTheAnswer,
}

/// What to do at the next COMMIT.
struct Plan {
    cut: Cut,
    /// Given to the test while the connection still stands; it breaks when the test drops it.
    pause: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

#[derive(Clone, Default)]
struct Plans(Arc<Mutex<Option<Plan>>>);

impl Plans {
    fn take(&self) -> Option<Plan> {
        self.0.lock().unwrap().take()
    }
}

pub(super) struct Proxy {
    plans: Plans,
    address: SocketAddr,
}

/// Our COMMIT, and the server's answer to it, as they travel.
const COMMIT: &[u8] = b"; COMMIT\0";
const ANSWER: &[u8] = b"COMMIT\0Z";

impl Proxy {
    /// A wire to the server at `address`, which may come and go.
    pub(super) async fn to(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let plans = Plans::default();
        let shared = plans.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plans = shared.clone();
                let server = server.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, plans).await;
                    }
                });
            }
        });
        Self { plans, address }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks the connection that sends the next COMMIT.
    pub(super) fn cut_next(&self, cut: Cut) {
        drop(self.pause_next(cut));
    }

    /// As [`Proxy::cut_next`], but tells the test first and waits for it.
    pub(super) fn pause_next(&self, cut: Cut) -> mpsc::UnboundedReceiver<oneshot::Sender<()>> {
        let (pause, paused) = mpsc::unbounded_channel();
        *self.plans.0.lock().unwrap() = Some(Plan { cut, pause });
        paused
    }
}

async fn carry(client: TcpStream, server: TcpStream, plans: Plans) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (lose_answer, answer_lost) = oneshot::channel();
    let up = up(from_client, to_server, plans, lose_answer);
    let down = down(from_server, to_client, answer_lost);
    // Either end closes both.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

async fn up(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    plans: Plans,
    lose_answer: oneshot::Sender<Plan>,
) {
    let mut lose_answer = Some(lose_answer);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        if contains(&buffer[..count], COMMIT)
            && let Some(plan) = plans.take()
        {
            match plan.cut {
                Cut::BeforeTheServer => return tell(plan).await,
                Cut::BeforeTheAnswer => {
                    let _ = lose_answer.take().unwrap().send(plan);
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
    mut answer_lost: oneshot::Receiver<Plan>,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        if contains(&buffer[..count], ANSWER)
            && let Ok(plan) = answer_lost.try_recv()
        {
            return tell(plan).await;
        }
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
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
