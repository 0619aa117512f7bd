//! `Cluster`: a primary and its standbys in one run, as tests and scenarios hold them.
//!
//! The door: it starts the nodes and their tasks, and hands out handles. What nodes do is in `server`, `session` and
//! `replication`.

mod config;
mod direct;
mod handle;
mod inject;
mod looks;
mod stubs;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use gdbpool::Endpoint;

pub(crate) use self::inject::CONVOY;
use self::stubs::Stubs;
use super::engine::{NodeSettings, Role};
use super::replication::replicate;
use super::server::{Node, accept};
use crate::executor::{Origin, Shared};
use crate::history::History;
use crate::network::Listener;
use crate::random::Stream;
use crate::sim::Sim;
use crate::value::{Type, Value};
use crate::wire::Report;

pub use self::config::{Authentication, ClusterConfig};
pub(crate) use self::config::{Login, Method, SyncRule};
pub use self::direct::DirectError;
pub use self::handle::{BackendView, NodeHandle};
pub(crate) use self::stubs::Stub;
pub(crate) use self::world::{SharedWorld, World, lock, status_kind};

/// The port of every node.
const PORT: u16 = 5432;

/// A simulated PostgreSQL cluster: node `n0` starts as the primary, `n1` and so on as its standbys.
///
/// Nodes are found by name in the run's network; node k listens at `127.0.c.k+1:5432`, where c is the cluster's number in
/// the run. Cloning gives another handle to the same cluster. It lives as long as its [`Sim`].
///
/// ```
/// use gdbpool_sim::{Cluster, ClusterConfig, Sim};
///
/// let sim = Sim::new(1);
/// let cluster = Cluster::new(&sim, ClusterConfig::new().standbys(1));
/// cluster.set_up("CREATE TABLE city (name text PRIMARY KEY); INSERT INTO city VALUES ('Oslo')").unwrap();
/// let rows = cluster.execute("n1", "SELECT name FROM city").unwrap();
/// assert_eq!(rows, [[Some("Oslo".to_owned())]]);
/// assert!(cluster.dsn("n0").starts_with("host=n0 port=5432"));
/// ```
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    config: Arc<ClusterConfig>,
    world: SharedWorld,
}

impl Cluster {
    /// Starts a cluster.
    ///
    /// # Panics
    /// If somebody in the run listens at one of its addresses.
    #[must_use]
    pub fn new(sim: &Sim, config: ClusterConfig) -> Self {
        let shared = Arc::clone(&sim.shared);
        let number = {
            let mut state = shared.lock();
            state.servers += 1;
            state.servers
        };
        let users = config.logins(shared.seed);
        let world = World {
            shared: Arc::clone(&shared),
            nodes: Vec::new(),
            users,
            databases: config.databases.iter().cloned().collect(),
            history: History::new(),
            stubs: Stubs::default(),
            synchronous: config.synchronous.clone(),
            patience: config.patience,
            replicator: None,
            number,
            keys: Stream::new(shared.seed, "secret", number),
            next_pid: i32::try_from(number).unwrap_or(1).saturating_mul(100_000),
        };
        let world = Arc::new(Mutex::new(world));
        let config = Arc::new(config);
        let cluster = Self { shared, config, world };
        for index in 0..=cluster.config.standbys {
            cluster.add_node(index, &format!("n{index}"));
        }
        sim.add_server_faults(Arc::new(cluster.clone()));
        let replicating = replicate(Arc::clone(&cluster.shared), Arc::clone(&cluster.world));
        cluster.shared.spawn(Box::pin(replicating), Origin::World);
        cluster
    }

    fn add_node(&self, index: usize, name: &str) {
        let config = &self.config;
        let (number, wall) = {
            let world = lock(&self.world);
            (world.number, world.wall())
        };
        let low = |value: u64| u8::try_from(value % 256).unwrap_or_default();
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, low(number), low(index as u64 + 1)));
        {
            let mut state = self.shared.lock();
            state.network.add_host(name, ip);
            // Whatever name it is dialled by, faults of the network know it by this one.
            state.network.place(ip, name);
        }
        let endpoint = Endpoint::Tcp(SocketAddr::new(ip, PORT));
        let listener = Listener::open(Arc::clone(&self.shared), endpoint.clone());
        let settings = NodeSettings {
            databases: config.databases.clone(),
            superusers: config.superusers(),
            roles: config.others(),
            seed: self.shared.seed,
            system_identifier: Stream::new(self.shared.seed, "system identifier", number).at(0) >> 1,
            started: wall,
            settings: config.settings.clone(),
        };
        let role = if index == 0 {
            Role::Primary { timeline: 1 }
        } else {
            Role::Standby { timeline: 1 }
        };
        let mut node = Node::new(index, name.to_owned(), endpoint, settings, role, listener);
        if let Some(standby) = &mut node.standby {
            standby.upstream = Some(0);
            (standby.receive_delay, standby.replay_delay) = (config.receive_delay, config.replay_delay);
        }
        let mut world = lock(&self.world);
        node.engine.set_synchronous(world.synchronous.is_some() && index == 0);
        world.nodes.push(node);
        drop(world);
        let accepting = accept(Arc::clone(&self.shared), Arc::clone(&self.world), index);
        self.shared.spawn(Box::pin(accepting), Origin::World);
    }

    /// A new, empty standby joins: it copies everything from the primary, and replays it with the usual lag.
    ///
    /// False if there is a node of that name, or no primary that is up.
    pub fn join(&self, name: &str) -> bool {
        let (index, primary) = {
            let world = lock(&self.world);
            let primary = world.primary().filter(|primary| world.nodes[*primary].is_up());
            match primary {
                Some(primary) if world.node_named(name).is_none() => (world.nodes.len(), primary),
                _ => return false,
            }
        };
        self.add_node(index, name);
        lock(&self.world).follow(index, primary);
        true
    }

    /// The connection string of a node, for user `app` and database `postgres`; without a password.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn dsn(&self, node: &str) -> String {
        self.index(node);
        format!("host={node} port={PORT} user=app dbname=postgres")
    }

    /// The names of all nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        lock(&self.world).nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// A handle to one node.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn node(&self, name: &str) -> NodeHandle {
        NodeHandle::new(self.clone(), self.index(name))
    }

    /// The node that takes writes: of several, the one that was promoted last. `None` if none is up.
    #[must_use]
    pub fn primary(&self) -> Option<NodeHandle> {
        let world = lock(&self.world);
        let index = world.primary().filter(|index| world.nodes[*index].is_up());
        drop(world);
        index.map(|index| NodeHandle::new(self.clone(), index))
    }

    /// Answers every statement that begins so, on every node, instead of the engine.
    ///
    /// White space around the statement and a final semicolon do not matter. The answer is made by `answer`, from the
    /// parameters as text and the node's name. Roles, faults and the transaction's state hold for it as for any statement.
    ///
    /// ```
    /// use gdbpool_sim::{Cluster, ClusterConfig, Sim, Type, Value};
    ///
    /// let sim = Sim::new(1);
    /// let cluster = Cluster::new(&sim, ClusterConfig::new());
    /// cluster.respond("SELECT price(", &[Type::Int4], &[("price", Type::Int8)], |parameters, _node| {
    ///     let article: i64 = parameters[0].as_deref().unwrap_or("0").parse().unwrap_or(0);
    ///     Ok(vec![vec![Value::Int(article * 10)]])
    /// });
    /// ```
    pub fn respond(
        &self,
        start: &str,
        parameters: &[Type],
        columns: &[(&str, Type)],
        answer: impl Fn(&[Option<String>], &str) -> Result<Vec<Vec<Value>>, Report> + Send + Sync + 'static,
    ) {
        lock(&self.world)
            .stubs
            .add(Stub::new(start, parameters, columns, answer));
    }

    /// Commits wait until `count` of these standbys have them, from now on; `count` 0 waits for none.
    pub fn set_synchronous(&self, count: usize, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        lock(&self.world).set_synchronous((count > 0).then_some(SyncRule { count, names }));
    }

    /// What happened on all nodes so far.
    #[must_use]
    pub fn history(&self) -> History {
        lock(&self.world).history.clone()
    }

    pub(crate) fn index(&self, node: &str) -> usize {
        let found = lock(&self.world).node_named(node);
        found.unwrap_or_else(|| panic!("the cluster has no node {node:?}, but {:?}", self.nodes()))
    }

    pub(crate) fn world(&self) -> &SharedWorld {
        &self.world
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = lock(&self.world);
        let nodes: BTreeMap<&str, String> = world
            .nodes
            .iter()
            .map(|node| {
                (
                    node.name.as_str(),
                    format!("{:?}, {:?}, {} sessions", node.role(), node.phase, node.sessions()),
                )
            })
            .collect();
        f.debug_tuple("Cluster").field(&nodes).finish()
    }
}
