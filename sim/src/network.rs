//! Addresses, names and connects: who listens where, what a look-up finds, what becomes of a connect.
//!
//! Between the runtime the code under test sees and the servers of a run. It holds no bytes; those are in pipes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gdbpool::{Endpoint, Instant};

use crate::executor::{Origin, Shared};
use crate::pipe::{self, PipeEnd, PipeOptions};
use crate::runtime::{Sleep, yield_now};
use crate::trace::Event;

/// What becomes of connects to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectMode {
    /// They succeed when somebody listens, else they are refused.
    #[default]
    Accept,
    /// They succeed, and the server's end closes at once.
    AcceptThenClose,
    /// They never complete, as behind a firewall that drops packets.
    Hang,
    /// They are refused.
    Refused,
    /// They succeed after this long.
    Slow(Duration),
}

/// Accepts connections to one endpoint. Dropping it stops listening: later connects are refused.
pub struct Listener {
    shared: Arc<Shared>,
    endpoint: Endpoint,
}

/// The network's state: part of the run's one lock.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) options: PipeOptions,
    sites: BTreeMap<Endpoint, Site>,
    hosts: BTreeMap<String, Lookup>,
}

#[derive(Default)]
struct Site {
    mode: ConnectMode,
    listening: bool,
    backlog: VecDeque<PipeEnd>,
    accepting: Option<Waker>,
    attempts: Vec<Instant>,
}

/// What a look-up finds.
#[derive(Clone)]
pub(crate) enum Lookup {
    Addresses(Vec<IpAddr>),
    Hang,
    Unknown,
}

/// One attempt to connect, from start to end.
pub(crate) async fn connect(shared: &Arc<Shared>, to: &Endpoint) -> io::Result<PipeEnd> {
    let mode = shared.lock().begin_connect(to);
    yield_now().await;
    match mode {
        ConnectMode::Hang => pending().await,
        ConnectMode::Refused => Err(refused(to)),
        ConnectMode::AcceptThenClose => {
            let options = shared.lock().network.options.clone();
            Ok(pipe::pair(shared, options).0)
        }
        ConnectMode::Slow(span) => {
            let at = shared.now() + span;
            Sleep::new(shared, at, Origin::World).await;
            establish(shared, to)
        }
        ConnectMode::Accept => establish(shared, to),
    }
}

fn establish(shared: &Arc<Shared>, to: &Endpoint) -> io::Result<PipeEnd> {
    let options = shared.lock().network.options.clone();
    let (client, server) = pipe::pair(shared, options);
    let mut state = shared.lock();
    let Some(site) = state.network.sites.get_mut(to).filter(|site| site.listening) else {
        drop(state);
        return Err(refused(to));
    };
    site.backlog.push_back(server);
    let waker = site.accepting.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    Ok(client)
}

fn refused(to: &Endpoint) -> io::Error {
    let kind = match to {
        Endpoint::Unix(_) => io::ErrorKind::NotFound,
        _ => io::ErrorKind::ConnectionRefused,
    };
    io::Error::new(kind, format!("nobody accepts connections at {to}"))
}

impl crate::executor::State {
    fn begin_connect(&mut self, to: &Endpoint) -> ConnectMode {
        let now = self.now;
        let site = self.network.sites.entry(to.clone()).or_default();
        site.attempts.push(now);
        let mode = site.mode;
        let ordinal = site.attempts.len() as u64;
        self.record(Event::Connect, &[ordinal]);
        mode
    }
}

impl Network {
    pub(crate) fn set_mode(&mut self, endpoint: &Endpoint, mode: ConnectMode) {
        self.sites.entry(endpoint.clone()).or_default().mode = mode;
    }

    pub(crate) fn attempts(&self, endpoint: &Endpoint) -> Vec<Instant> {
        self.sites
            .get(endpoint)
            .map(|site| site.attempts.clone())
            .unwrap_or_default()
    }

    pub(crate) fn add_host(&mut self, host: &str, address: IpAddr) {
        match self
            .hosts
            .entry(host.to_owned())
            .or_insert_with(|| Lookup::Addresses(Vec::new()))
        {
            Lookup::Addresses(known) => known.push(address),
            other => *other = Lookup::Addresses(vec![address]),
        }
    }

    pub(crate) fn remove_host(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    pub(crate) fn hang_host(&mut self, host: &str) {
        self.hosts.insert(host.to_owned(), Lookup::Hang);
    }

    pub(crate) fn resolve(&self, host: &str) -> Lookup {
        match self.hosts.get(host) {
            Some(lookup) => lookup.clone(),
            None => host.parse().map_or(Lookup::Unknown, |ip| Lookup::Addresses(vec![ip])),
        }
    }
}

impl Listener {
    pub(crate) fn open(shared: Arc<Shared>, endpoint: Endpoint) -> Self {
        let mut state = shared.lock();
        let site = state.network.sites.entry(endpoint.clone()).or_default();
        let taken = std::mem::replace(&mut site.listening, true);
        drop(state);
        assert!(!taken, "somebody listens at {endpoint} already");
        Self { shared, endpoint }
    }

    /// The server's end of the next connection.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    pub async fn accept(&self) -> PipeEnd {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<PipeEnd> {
        let mut state = self.shared.lock();
        // The network is taken away when the run ends; nobody connects any more then.
        let Some(site) = state.network.sites.get_mut(&self.endpoint) else {
            return Poll::Pending;
        };
        if let Some(end) = site.backlog.pop_front() {
            return Poll::Ready(end);
        }
        let replaced = site.accepting.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(site) = state.network.sites.get_mut(&self.endpoint) else {
            return;
        };
        site.listening = false;
        let leftovers = std::mem::take(&mut site.backlog);
        drop(state);
        drop(leftovers);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.endpoint)
    }
}
