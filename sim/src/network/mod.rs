//! Addresses, names, links and connects: who listens where, what a look-up finds, what becomes of a connect.
//!
//! Between the runtime the code under test sees and the servers of a run. It holds no bytes; those are in pipes.

mod apply;
mod connections;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gdbpool::{Endpoint, Instant};

use self::connections::Registry;
use self::links::{Links, delays};
use crate::executor::{Origin, Shared};
use crate::fault::{Answer, ConnectFate, NetworkFault};
use crate::pipe::{self, PipeEnd, PipeOptions, WeakConnection};
use crate::random::Stream;
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
    pub(crate) links: Links,
    pub(crate) connections: Registry,
    /// Faults that wait for a connection to be established.
    pub(crate) to_come: Vec<(usize, NetworkFault)>,
    /// The connections that each fault has left half open.
    pub(crate) half_open: BTreeMap<usize, Vec<WeakConnection>>,
    /// Connects that cannot get through for now.
    pub(crate) waiting: Vec<Waker>,
    sites: BTreeMap<Endpoint, Site>,
    hosts: BTreeMap<String, Lookup>,
    places: BTreeMap<IpAddr, Arc<str>>,
    connects: u64,
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

/// One attempt to connect from a host, from start to end.
pub(crate) async fn connect(shared: &Arc<Shared>, from: &Arc<str>, to: &Endpoint) -> io::Result<PipeEnd> {
    let (hosts, mode, ordinal) = shared.lock().begin_connect(from, to);
    yield_now().await;
    travel(shared, &hosts, ordinal).await;
    let fate = shared.lock().network.links.fate(&hosts[1]);
    if fate.is_some() {
        shared.felt(["network.connect"]);
    }
    match fate.map_or(mode, ConnectMode::from) {
        ConnectMode::Hang => pending().await,
        ConnectMode::Refused => Err(refused(to)),
        ConnectMode::AcceptThenClose => Ok(open(shared, hosts).0),
        ConnectMode::Slow(span) => {
            let at = shared.now() + span;
            Sleep::new(shared, at, Origin::World).await;
            establish(shared, hosts, to)
        }
        ConnectMode::Accept => establish(shared, hosts, to),
    }
}

/// Waits until the way is free, then for as long as it takes, there and back.
async fn travel(shared: &Arc<Shared>, hosts: &[Arc<str>; 2], ordinal: u64) {
    poll_fn(|cx| {
        let mut state = shared.lock();
        let way = state.network.links.way(hosts);
        if way.held {
            state.network.waiting.push(cx.waker().clone());
            let by = way.lanes.iter().flat_map(|lane| lane.by.iter().copied());
            for name in by {
                state.felt(name);
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
    let span = {
        let state = shared.lock();
        let stream = Stream::new(shared.seed, "connect", ordinal);
        let way = state.network.links.way(hosts);
        let each = delays(&way).enumerate();
        each.map(|(place, delay)| pipe::draw(*delay, stream.at(place as u64)))
            .fold(Duration::ZERO, Duration::saturating_add)
    };
    if !span.is_zero() {
        let at = shared.now() + span;
        Sleep::new(shared, at, Origin::World).await;
    }
}

/// Two connected ends that faults can find.
fn open(shared: &Arc<Shared>, hosts: [Arc<str>; 2]) -> (PipeEnd, PipeEnd) {
    let options = shared.lock().network.options.clone();
    let ends = pipe::pair(shared, options, hosts.clone());
    let control = ends.0.control();
    let (ordinal, connection) = (control.ordinal(), control.connection());
    let mut state = shared.lock();
    let now = state.now;
    state.network.connections.add(ordinal, &hosts[1], &connection);
    let conditions = state.network.links.conditions(&hosts);
    let watched = state.injector.watches_messages();
    drop(state);
    connection.set_conditions(conditions, watched, now);
    shared.established(ordinal, &connection);
    ends
}

fn establish(shared: &Arc<Shared>, hosts: [Arc<str>; 2], to: &Endpoint) -> io::Result<PipeEnd> {
    if !shared.lock().network.sites.get(to).is_some_and(|site| site.listening) {
        return Err(refused(to));
    }
    let (client, server) = open(shared, hosts);
    let mut state = shared.lock();
    let Some(site) = state.network.sites.get_mut(to) else {
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
    /// The hosts of a connect, its fate as far as the endpoint has one, and its number.
    fn begin_connect(&mut self, from: &Arc<str>, to: &Endpoint) -> ([Arc<str>; 2], ConnectMode, u64) {
        let now = self.now;
        let hosts = [Arc::clone(from), self.network.host_of(to)];
        self.network.connects += 1;
        let connects = self.network.connects;
        let site = self.network.sites.entry(to.clone()).or_default();
        site.attempts.push(now);
        let mode = site.mode;
        let ordinal = site.attempts.len() as u64;
        self.record(Event::Connect, &[ordinal]);
        (hosts, mode, connects)
    }
}

impl From<ConnectFate> for ConnectMode {
    fn from(fate: ConnectFate) -> Self {
        match fate {
            ConnectFate::AcceptThenClose => Self::AcceptThenClose,
            ConnectFate::Hang => Self::Hang,
            ConnectFate::Refused => Self::Refused,
            ConnectFate::Slow(span) => Self::Slow(span.span()),
        }
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

    /// Says at which host an address is.
    pub(crate) fn place(&mut self, address: IpAddr, host: &str) {
        self.places.insert(address, host.into());
    }

    /// The host of an endpoint: its name if it has one, else the address without its port.
    fn host_of(&self, endpoint: &Endpoint) -> Arc<str> {
        match endpoint {
            Endpoint::Tcp(address) => match self.places.get(&address.ip()) {
                Some(host) => Arc::clone(host),
                None => address.ip().to_string().into(),
            },
            other => other.to_string().into(),
        }
    }

    /// The addresses of a host: those placed there, or else those its name has.
    fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let placed = self.places.iter().filter(|(_, at)| &***at == host);
        let placed: Vec<IpAddr> = placed.map(|(address, _)| *address).collect();
        match self.hosts.get(host) {
            _ if !placed.is_empty() => placed,
            Some(Lookup::Addresses(found)) => found.clone(),
            _ => host.parse().into_iter().collect(),
        }
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

    /// Whether a fault answers look-ups of `host`.
    pub(crate) fn answers(&self, host: &str) -> bool {
        self.links.answer(host).is_some()
    }

    pub(crate) fn remove_host(&mut self, host: &str) {
        self.hosts.remove(host);
    }

    pub(crate) fn hang_host(&mut self, host: &str) {
        self.hosts.insert(host.to_owned(), Lookup::Hang);
    }

    pub(crate) fn resolve(&self, host: &str) -> Lookup {
        match self.links.answer(host) {
            Some(Answer::Hang) => return Lookup::Hang,
            Some(Answer::Hosts(hosts)) => {
                return Lookup::Addresses(hosts.iter().flat_map(|host| self.addresses(host)).collect());
            }
            Some(Answer::Unknown) => return Lookup::Unknown,
            None => {}
        }
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
