//! A proxy in front of a server, so that a test decides when the server can be reached.
//!
//! Invariant: after [`Proxy::cut`] has returned, nothing passes and every new connection is refused, as by a machine
//! that is up and a server that is not.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A TCP proxy on a port of its own. It passes everything until it is cut; dropping it cuts it.
///
/// ```no_run
/// let proxy = testkit::Proxy::before("127.0.0.1:5432".parse().unwrap());
/// // … point the program under test at `proxy.address()`
/// proxy.cut(); // connections end at once, new ones are refused
/// proxy.restore(); // the same address works again
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    server: SocketAddr,
    open: Mutex<Option<Open>>,
}

/// A listener that accepts.
#[derive(Debug)]
struct Open {
    accepting: JoinHandle<()>,
    links: Arc<Mutex<Links>>,
}

/// Both ends of every connection; `None` once it is cut.
type Links = Option<Vec<TcpStream>>;

impl Proxy {
    /// Listens on a free loopback port and passes connections to `server`.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn before(server: SocketAddr) -> Proxy {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address =
            listener.local_addr().unwrap_or_else(|error| panic!("a listener has no address: {error}"));
        Proxy { address, server, open: Mutex::new(Some(Open::start(listener, server))) }
    }

    /// The address at which the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and refuses new ones until [`restore`](Self::restore).
    pub fn cut(&self) {
        let open = held(&self.open).take();
        if let Some(open) = open {
            open.stop(self.address);
        }
    }

    /// Passes connections again, on the same address.
    ///
    /// # Panics
    /// When somebody else has taken the port.
    pub fn restore(&self) {
        held(&self.open).get_or_insert_with(|| Open::start(bind(self.address), self.server));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Open {
    fn start(listener: TcpListener, server: SocketAddr) -> Open {
        let links = Arc::new(Mutex::new(Some(Vec::new())));
        let accepting = std::thread::spawn({
            let links = Arc::clone(&links);
            move || accept(&listener, server, &links)
        });
        Open { accepting, links }
    }

    fn stop(self, address: SocketAddr) {
        for link in held(&self.links).take().into_iter().flatten() {
            // One that has ended by itself is what we want.
            drop(link.shutdown(Shutdown::Both));
        }
        // Wakes the listener, which sees that it is cut and ends.
        drop(TcpStream::connect(address));
        drop(self.accepting.join());
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, links: &Mutex<Links>) {
    for client in listener.incoming() {
        if held(links).is_none() {
            return;
        }
        // A connection that fails, and a server that is away, end the client's connection; nothing else does.
        if let Ok(client) = client
            && let Ok(server) = TcpStream::connect(server)
        {
            drop(link(&client, &server, links));
        }
    }
}

/// Passes bytes both ways in threads of their own, which end with the connection.
fn link(client: &TcpStream, server: &TcpStream, links: &Mutex<Links>) -> io::Result<()> {
    let ways = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    let ends = [client.try_clone()?, server.try_clone()?];
    match held(links).as_mut() {
        Some(links) => links.extend(ends),
        // Cut since it was accepted.
        None => return Ok(()),
    }
    for (mut from, mut to) in ways {
        std::thread::spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
    }
    Ok(())
}

fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut &stream));
            }
        });
        address
    }

    fn say(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn what_is_cut_ends_and_is_refused_until_it_is_restored() {
        let proxy = Proxy::before(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(say(&mut stream, 7).unwrap(), 7);
        proxy.cut();
        assert!(say(&mut stream, 8).is_err(), "the connection ended");
        let refused = TcpStream::connect(proxy.address()).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.restore();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(say(&mut stream, 9).unwrap(), 9);
    }
}
