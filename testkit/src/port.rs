//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::random::Rng;

/// Finds a loopback port on which no process listens right now.
///
/// It comes from below the range that systems use for outgoing connections, so that a server can be killed and started
/// again on its port without some connection taking it in between. Two processes may still be given the same port: who
/// starts a server must look whether it came up, and ask again if not.
///
/// Prefer port 0 and asking the program for its port, where the program is ours.
///
/// # Panics
///
/// If none of a thousand ports is free.
///
/// # Examples
///
/// ```
/// let port = testkit::free_port();
/// std::net::TcpListener::bind(("127.0.0.1", port))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn free_port() -> u16 {
    listen_on_a_free_port().1
}

/// Listens on such a port, and returns it.
pub(crate) fn listen_on_a_free_port() -> (TcpListener, u16) {
    let mut rng = Rng::random();
    for _ in 0..1000 {
        let port = rng.between(15_000, 31_999);
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return (listener, port);
        }
    }
    panic!("failed to find a free loopback port between 15000 and 31999; look who has them: ss -tlnp");
}
