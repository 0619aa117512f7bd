//! A TCP proxy in front of a server that misbehaves on request: stalls, cuts, refuses, delays, counts cancel requests.
//!
//! Knows of PostgreSQL only that a client speaks first and how a CancelRequest begins. Made of threads, so that it keeps
//! time with real servers and needs no executor.
#![expect(
    clippy::disallowed_methods,
    reason = "a proxy for real servers lives in real time, on threads"
)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::cluster::free_port;

/// Listens on a port of 127.0.0.1 and forwards to one address. Dropping it closes everything.
#[derive(Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of `upstream`, forwarding.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        let listener = loop {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())) {
                break listener;
            }
        };
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            accepted: AtomicU64::new(0),
            address,
            cancels: AtomicU64::new(0),
            changed: Condvar::new(),
            state: Mutex::new(State {
                listening: true,
                ..State::default()
            }),
            upstream,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept_all(listener));
        Self { shared }
    }

    /// A proxy in front of `port` of 127.0.0.1.
    pub(crate) fn to_port(port: u16) -> Self {
        Self::start((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.shared.address.port()
    }

    /// From now on nothing is forwarded either way; connections stay open and new ones are taken: a black hole.
    pub(crate) fn pause(&self) {
        self.shared.change(|state| state.paused = true);
    }

    /// Forwards again, first what was held back.
    pub(crate) fn resume(&self) {
        self.shared.change(|state| state.paused = false);
    }

    /// Closes all connections there are, both sides at once, with what was held back; new ones work.
    pub(crate) fn cut(&self) {
        self.shared.change(State::cut);
    }

    /// While true, connecting is refused by the machine, as if no server ran; existing connections stay.
    ///
    /// Returns when it is so.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.shared.change(|state| state.refusing = refusing);
        if refusing {
            self.shared.wake_acceptor();
        }
        let mut state = self.shared.lock();
        while state.listening == refusing {
            state = self.shared.wait(state);
        }
    }

    /// New connections are taken, but reach the server only after `delay`.
    pub(crate) fn delay_new_connections(&self, delay: Duration) {
        self.shared.change(|state| state.connection_delay = delay);
    }

    /// New connections that carry a cancel request reach the server only after `delay` (on top of the other).
    pub(crate) fn delay_cancels(&self, delay: Duration) {
        self.shared.change(|state| state.cancel_delay = delay);
    }

    /// Connections taken since the start, cancel requests among them.
    pub(crate) fn connections_accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn connections_open(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// Cancel requests seen since the start, counted before they are delayed.
    pub(crate) fn cancels_seen(&self) -> u64 {
        self.shared.cancels.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.closed = true;
            state.cut();
        });
        self.shared.wake_acceptor();
    }
}

/// What the proxy's threads have in common.
#[derive(Debug)]
struct Shared {
    accepted: AtomicU64,
    address: SocketAddr,
    cancels: AtomicU64,
    changed: Condvar,
    state: Mutex<State>,
    upstream: SocketAddr,
}

#[derive(Debug, Default)]
struct State {
    cancel_delay: Duration,
    closed: bool,
    connection_delay: Duration,
    /// How often everything was cut: a link that remembers another number is to end.
    cuts: u64,
    links: Vec<Link>,
    links_made: u64,
    listening: bool,
    paused: bool,
    refusing: bool,
}

impl State {
    fn cut(&mut self) {
        self.cuts += 1;
        for link in self.links.drain(..) {
            link.close();
        }
    }
}

/// One client's connection, and the one to the server once that is made.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    id: u64,
    server: Option<TcpStream>,
}

impl Link {
    fn close(&self) {
        for stream in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// The acceptor's life: listens unless it refuses.
    fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            if state.refusing {
                // Closing the listener is what makes the kernel refuse.
                listener = None;
                state.listening = false;
                self.changed.notify_all();
                drop(self.wait(state));
                continue;
            }
            let Some(bound) = listener.take().or_else(|| TcpListener::bind(self.address).ok()) else {
                drop(self.wait_at_most(state, Duration::from_millis(10)));
                continue;
            };
            state.listening = true;
            self.changed.notify_all();
            drop(state);
            if let Ok((client, _)) = bound.accept() {
                self.take(client);
            }
            listener = Some(bound);
        }
    }

    /// One accepted connection gets a thread; the acceptor's own wake-ups do not.
    fn take(self: &Arc<Self>, client: TcpStream) {
        let mut state = self.lock();
        if state.closed || state.refusing {
            return;
        }
        let Ok(kept) = client.try_clone() else { return };
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let (id, born) = (state.links_made, state.cuts);
        state.links_made += 1;
        state.links.push(Link {
            client: kept,
            id,
            server: None,
        });
        drop(state);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            // An error here is a connection that ended, which is all there is to it.
            let _ = shared.serve(client, id, born);
            shared.forget(id);
        });
    }

    fn serve(self: &Arc<Self>, mut client: TcpStream, id: u64, born: u64) -> io::Result<()> {
        let mut opening = [0; 8];
        client.read_exact(&mut opening)?;
        self.hold(born, |state| state.connection_delay)?;
        if opening == CANCEL_REQUEST {
            self.cancels.fetch_add(1, Ordering::SeqCst);
            self.hold(born, |state| state.cancel_delay)?;
        }
        let mut server = TcpStream::connect(self.upstream)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.attach(id, server.try_clone()?)?;
        server.write_all(&opening)?;

        let (from_server, to_client) = (server.try_clone()?, client.try_clone()?);
        let shared = Arc::clone(self);
        let answers = thread::spawn(move || shared.pump(from_server, to_client, born));
        self.pump(client, server, born);
        let _ = answers.join();
        Ok(())
    }

    /// Forwards one way until that way ends, and passes the end on.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, born: u64) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // An end of stream is held back by a pause like everything else.
            let length = from.read(&mut buffer).unwrap_or(0);
            if self.hold(born, |_| Duration::ZERO).is_err() || length == 0 || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }

    /// Waits as long as the proxy is paused, and at least the span that `delay` names; an error when the link is cut.
    fn hold(&self, born: u64, delay: impl Fn(&State) -> Duration) -> io::Result<()> {
        let mut state = self.lock();
        let until = Instant::now() + delay(&state);
        loop {
            if state.cuts != born {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            state = match (state.paused, left.is_zero()) {
                (true, _) => self.wait(state),
                (false, false) => self.wait_at_most(state, left),
                (false, true) => return Ok(()),
            };
        }
    }

    fn attach(&self, id: u64, server: TcpStream) -> io::Result<()> {
        let mut state = self.lock();
        let link = state
            .links
            .iter_mut()
            .find(|link| link.id == id)
            .ok_or(io::ErrorKind::ConnectionAborted)?;
        link.server = Some(server);
        Ok(())
    }

    fn forget(&self, id: u64) {
        let mut state = self.lock();
        if let Some(at) = state.links.iter().position(|link| link.id == id) {
            state.links.swap_remove(at).close();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// A connection of our own ends a blocking accept; it is not counted, because there is a change to act on.
    fn wake_acceptor(&self) {
        let _ = TcpStream::connect(self.address);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_at_most<'a>(&self, state: MutexGuard<'a, State>, span: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, span)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// How a CancelRequest begins: length 16, code 80877102.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
