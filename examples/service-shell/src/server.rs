//! Listening, serving, stopping.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::StartError;

/// The time that open connections have to finish after the signal.
const GRACE: Duration = Duration::from_secs(30);
/// The time in which the head of a request has to come, also the next one of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The open connections of a process; the usual 1,024 files of a process leave as many for its databases and peers.
const CONNECTIONS_MAX: usize = 512;

/// Opens the listener before anything else is started: a port in use must be the first thing said.
///
/// # Cancel safety
/// Safe.
///
/// # Errors
/// [`StartError::PortInUse`] names the port; [`StartError::Listen`] otherwise.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { address },
        _ => StartError::Listen { address, source },
    })
}

/// Serves until `shutdown` is ready, then lets requests in flight finish, for at most 30 s.
///
/// At most 512 connections are open. The next one takes the place of the oldest that has sent no request, or makes the
/// oldest other one leave after its answer; so connections that only wait keep no caller out.
///
/// # Cancel safety
/// Dropping the future closes the listener and leaves open connections to the runtime.
///
/// # Errors
/// None today; a listener that cannot accept is asked again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let mut open = VecDeque::<Connection>::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.as_mut() => break,
        };
        match accepted {
            Ok((stream, peer)) if make_room(&mut open) => {
                open.push_back(Connection::spawn(stream, peer, router.clone()));
            }
            Ok(_) => tracing::warn!("a connection was refused: {CONNECTIONS_MAX} others work"),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let left = async {
        for connection in open {
            connection.leave.notify_one();
            let _ = connection.task.await;
        }
    };
    if timeout(GRACE, left).await.is_err() {
        tracing::warn!("connections were still open after the grace period");
    }
    Ok(())
}

/// One open connection.
struct Connection {
    task: JoinHandle<()>,
    /// True once the head of a request has come.
    asked: Arc<AtomicBool>,
    /// Asks it to close after the answer it works on.
    leave: Arc<Notify>,
}

impl Connection {
    fn spawn(stream: TcpStream, peer: SocketAddr, router: Router) -> Connection {
        let (asked, leave) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (heard, left) = (Arc::clone(&asked), Arc::clone(&leave));
        let service = tower::service_fn(move |request: Request<Incoming>| {
            heard.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let asking = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                () = left.notified() => {}
            }
            if asking.load(Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
        Connection { task, asked, leave }
    }
}

/// Returns true if one more connection may be open.
fn make_room(open: &mut VecDeque<Connection>) -> bool {
    open.retain(|connection| !connection.task.is_finished());
    if open.len() < CONNECTIONS_MAX {
        return true;
    }
    let silent = open.iter().position(|connection| !connection.asked.load(Ordering::Relaxed));
    if let Some(silent) = silent.and_then(|at| open.remove(at)) {
        silent.leave.notify_one();
        return true;
    }
    open.rotate_left(1);
    if let Some(oldest) = open.back() {
        oldest.leave.notify_one();
    }
    false
}

/// Ready at Ctrl-C or, on Unix, SIGTERM and SIGHUP: a closed terminal is a goodbye like any other.
///
/// # Cancel safety
/// Safe.
pub async fn shutdown_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match (signal(SignalKind::terminate()), signal(SignalKind::hangup())) {
            (Ok(mut terminate), Ok(mut hangup)) => tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            },
            _ => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
