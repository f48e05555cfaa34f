//! A proxy in front of a server, so that a test decides when the server can be reached.
//!
//! Invariant: after [`Proxy::cut`] has returned, nothing passes and every new connection is refused, as by a machine
//! that is up and a server that is not.

pub(crate) mod postgres;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::port::listen_on_a_free_port;

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
    held: Arc<Held>,
}

/// A listener that accepts.
#[derive(Debug)]
struct Open {
    accepting: JoinHandle<()>,
    links: Arc<Mutex<Links>>,
}

/// Every connection; `None` once they are cut.
type Links = Option<Vec<Link>>;

/// Both ends of a connection, or the client's alone if it is held.
#[derive(Debug)]
struct Link {
    ends: Vec<TcpStream>,
    /// True when nothing passes any more.
    silent: Arc<AtomicBool>,
}

/// The connections that are accepted and never answered.
#[derive(Debug, Default)]
struct Held {
    from_now_on: AtomicBool,
    count: AtomicUsize,
}

impl Proxy {
    /// Listens on a free loopback port and passes connections to `server`. No outgoing connection takes that port while the
    /// proxy is cut.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn before(server: SocketAddr) -> Proxy {
        let (listener, port) = listen_on_a_free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let held = Arc::default();
        let open = Mutex::new(Some(Open::start(listener, server, Arc::clone(&held))));
        Proxy { address, server, open, held }
    }

    /// The address on which the proxy listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and refuses new ones until [`restore`](Self::restore).
    pub fn cut(&self) {
        let open = locked(&self.open).take();
        if let Some(open) = open {
            open.stop(self.address);
        }
    }

    /// Passes connections again, on the same address.
    ///
    /// # Panics
    /// When another process has taken the port.
    pub fn restore(&self) {
        let start = || Open::start(bind(self.address), self.server, Arc::clone(&self.held));
        locked(&self.open).get_or_insert_with(start);
    }

    /// Lets nothing pass any more on the connections that stand. They stay open, and new ones pass.
    pub fn silence(&self) {
        let open = locked(&self.open);
        let links = open.as_ref().map(|open| locked(&open.links));
        for link in links.iter().filter_map(|links| links.as_ref()).flatten() {
            link.silent.store(true, Ordering::SeqCst);
        }
    }

    /// Accepts new connections from now on, and never answers them.
    pub fn hold_new(&self) {
        self.held.from_now_on.store(true, Ordering::SeqCst);
    }

    /// Returns the number of connections that were accepted and not answered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.count.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Open {
    fn start(listener: TcpListener, server: SocketAddr, held: Arc<Held>) -> Open {
        let links = Arc::new(Mutex::new(Some(Vec::new())));
        let accepting = std::thread::spawn({
            let links = Arc::clone(&links);
            move || accept(&listener, server, &links, &held)
        });
        Open { accepting, links }
    }

    fn stop(self, address: SocketAddr) {
        for end in locked(&self.links).take().into_iter().flatten().flat_map(|link| link.ends) {
            // One that has ended by itself is what we want.
            drop(end.shutdown(Shutdown::Both));
        }
        // Wakes the listener, which sees that it is cut and ends.
        drop(TcpStream::connect(address));
        drop(self.accepting.join());
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, links: &Mutex<Links>, held: &Held) {
    for client in listener.incoming() {
        if locked(links).is_none() {
            return;
        }
        // A connection that fails, and a server that is away, end the client's connection; nothing else does.
        let Ok(client) = client else { continue };
        if held.from_now_on.load(Ordering::SeqCst) {
            held.count.fetch_add(1, Ordering::SeqCst);
            keep(links, Link { ends: vec![client], silent: Arc::default() });
        } else if let Ok(server) = TcpStream::connect(server) {
            drop(link(&client, &server, links));
        }
    }
}

/// Keeps a connection for [`Proxy::cut`]; false if it was cut since it was accepted.
fn keep(links: &Mutex<Links>, link: Link) -> bool {
    locked(links).as_mut().map(|links| links.push(link)).is_some()
}

/// Passes bytes both ways in threads of their own, which end with the connection.
fn link(client: &TcpStream, server: &TcpStream, links: &Mutex<Links>) -> io::Result<()> {
    let ways = [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    let (ends, silent) = (vec![client.try_clone()?, server.try_clone()?], Arc::default());
    if keep(links, Link { ends, silent: Arc::clone(&silent) }) {
        for (from, to) in ways {
            let silent = Arc::clone(&silent);
            std::thread::spawn(move || pass(from, to, &silent));
        }
    }
    Ok(())
}

/// Passes bytes one way until the connection ends. A silent one goes on reading, so that the sender notices nothing.
fn pass(mut from: TcpStream, mut to: TcpStream, silent: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    if !silent.load(Ordering::SeqCst) {
        drop(to.shutdown(Shutdown::Write));
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends back what it gets.
    fn echo() -> SocketAddr {
        let (listener, port) = listen_on_a_free_port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut &stream));
            }
        });
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
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
        assert!(proxy.address().port() < 32_000, "{}: an outgoing connection may take it", proxy.address());
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

    /// Fails if an answer comes. No answer within this time is taken for silence.
    fn hears_nothing(stream: &mut TcpStream) {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silence = say(stream, 1).expect_err("an answer");
        assert!(matches!(silence.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{silence}");
    }

    #[test]
    fn a_silent_connection_stays_open_and_a_new_one_passes() {
        let proxy = Proxy::before(echo());
        let mut old = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(say(&mut old, 7).unwrap(), 7);
        proxy.silence();
        hears_nothing(&mut old);
        let mut new = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(say(&mut new, 8).unwrap(), 8);
    }

    #[test]
    fn a_new_connection_is_held_and_an_old_one_passes() {
        let proxy = Proxy::before(echo());
        let mut old = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(say(&mut old, 7).unwrap(), 7);
        proxy.hold_new();
        let mut new = TcpStream::connect(proxy.address()).unwrap();
        hears_nothing(&mut new);
        assert_eq!((proxy.held(), say(&mut old, 8).unwrap()), (1, 8));
    }
}
