//! Listening, serving, stopping.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::StartError;

/// The time that open connections have to finish after the signal.
const GRACE: Duration = Duration::from_secs(30);

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
/// # Cancel safety
/// Dropping the future closes the listener and abandons open connections, as a crash would.
///
/// # Errors
/// The error that the listener reports.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, mut stopped) = watch::channel(false);
    let graceful = async move {
        shutdown.await;
        stopping.send_replace(true);
    };
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(graceful);
    let out_of_grace = async move {
        // An error means that the server ended by itself; then there is nothing to limit.
        if stopped.wait_for(|stopping| *stopping).await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(GRACE).await;
    };
    tokio::select! {
        ended = async { server.await } => ended,
        () = out_of_grace => {
            tracing::warn!("connections were still open after the grace period");
            Ok(())
        }
    }
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
