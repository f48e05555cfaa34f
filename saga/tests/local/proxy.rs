//! A wire to the server that loses the next COMMIT, or the answer to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The place where the connection breaks at the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never sees it.
    BeforeTheServer,
    /// The server does it, and the answer is lost.
    BeforeTheAnswer,
}

pub(crate) struct Proxy {
    next: Arc<Mutex<Option<(u32, Cut)>>>,
    address: SocketAddr,
}

/// A COMMIT of sqlx, and the server's answer to it, as they travel.
const COMMIT: &[u8] = b"COMMIT\0";
const ANSWER: &[u8] = b"COMMIT\0Z";

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let next: Arc<Mutex<Option<(u32, Cut)>>> = Arc::default();
        let shared = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, next) = (server.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        carry(client, server, &next).await;
                    }
                });
            }
        });
        Self { next, address }
    }

    /// The URL of a database behind the wire.
    pub(crate) fn instead_of(&self, url: &str) -> String {
        url.replace(&host(url), &self.address.to_string())
    }

    /// Breaks the connection that sends a COMMIT, after so many others.
    pub(crate) fn cut_after(&self, others: u32, cut: Cut) {
        *self.next.lock().unwrap() = Some((others, cut));
    }

    /// Tells whether the cut is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }
}

/// `host:port` of a URL.
pub(crate) fn host(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

/// Until either end closes, or the cut.
async fn carry(client: TcpStream, server: TcpStream, next: &Mutex<Option<(u32, Cut)>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose_answer = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                if contains(&up[..count], COMMIT) {
                    match planned(next) {
                        Some(Cut::BeforeTheServer) => return,
                        Some(Cut::BeforeTheAnswer) => lose_answer = true,
                        None => {}
                    }
                }
                if to_server.write_all(&up[..count]).await.is_err() { return }
            }
            read = from_server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if lose_answer && contains(&down[..count], ANSWER) { return }
                if to_client.write_all(&down[..count]).await.is_err() { return }
            }
        }
    }
}

/// Decides the fate of the COMMIT that is passing.
fn planned(next: &Mutex<Option<(u32, Cut)>>) -> Option<Cut> {
    let mut next = next.lock().unwrap();
    match next.as_mut() {
        Some((others @ 1.., _)) => {
            *others -= 1;
            None
        }
        _ => next.take().map(|(_, cut)| cut),
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
