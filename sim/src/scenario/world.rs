//! The world of a scenario: its cluster, the names its pools are dialled by, and how everything is healed.
//!
//! Beside the runner. `rw` always resolves to the present primary, as an operator's name service does; `n1` and so on are
//! the nodes.

use std::time::Duration;

use gdbpool::{Error, InteractionPool, PoolConfig};

use super::end::SessionEnd;
use super::statements::SCHEMA;
use super::{Scenario, Topology};
use crate::fault::{Delay, Fault, FaultKind, Link, Micros, NetworkFault, Trigger};
use crate::history::{EventKind, History};
use crate::pipe::PipeOptions;
use crate::postgres::{Cluster, ClusterConfig};
use crate::sim::Sim;

/// The name of whoever is the primary.
const PRIMARY: &str = "rw";

/// A cluster with the names that lead to it.
pub(super) struct World<'a> {
    sim: &'a Sim,
    pub(super) cluster: Cluster,
    /// The node that the primary's name leads to.
    named: String,
}

impl<'a> World<'a> {
    pub(super) fn new(sim: &'a Sim, scenario: &Scenario) -> Self {
        let topology = &scenario.topology;
        let mut config = ClusterConfig::new()
            .standbys(usize::from(topology.standbys))
            .lag(Duration::from_micros(500), topology.replay_delay.span());
        if topology.synchronous && topology.standbys > 0 {
            // Whoever is the primary, another one can answer for its commits.
            config = config.synchronous(1, &["n0", "n1", "n2", "n3"]);
        }
        sim.set_pipe_options(PipeOptions {
            capacity: usize::try_from(topology.socket_buffer).unwrap_or(usize::MAX).max(16),
            ..PipeOptions::default()
        });
        let cluster = Cluster::new(sim, config);
        cluster
            .set_up(&SCHEMA.join("; "))
            .expect("the tables of every scenario");
        let mut world = Self {
            sim,
            cluster,
            named: String::new(),
        };
        world.name("n0");
        // The links' own latency is one more fault without a class, which ends with the others.
        let latency = Fault {
            trigger: Trigger::At(Micros(0)),
            what: FaultKind::Network(NetworkFault::Latency {
                link: Link::All,
                delay: topology.latency,
            }),
            span: None,
        };
        let latency = (topology.latency != Delay::default()).then_some(latency);
        sim.set_faults(latency.into_iter().chain(scenario.faults.iter().cloned()));
        world
    }

    /// Lets the primary's name lead to this node.
    fn name(&mut self, node: &str) {
        self.sim.remove_host(PRIMARY);
        self.sim.add_host(PRIMARY, self.cluster.address(node));
        node.clone_into(&mut self.named);
    }

    /// What an operator does after a promotion.
    pub(super) fn follow_primary(&mut self) {
        if let Some(primary) = self.cluster.primary()
            && primary.name() != self.named
        {
            self.name(&primary.name());
        }
    }

    /// Stops all faults, starts what is down, and lets old primaries follow the new one.
    pub(super) fn heal(&mut self) {
        self.sim.stop_faults();
        for node in self.cluster.nodes() {
            self.cluster.node(&node).restart(Duration::ZERO);
        }
        let primary = self.cluster.primary().map(|primary| primary.name());
        for node in self.cluster.nodes() {
            if Some(&node) != primary.as_ref() {
                self.cluster.node(&node).rejoin();
            }
        }
        self.follow_primary();
    }

    pub(super) fn timeline(&self) -> u32 {
        self.cluster.node(&self.named).timeline()
    }

    /// The marks in the primary's table.
    pub(super) fn ledger(&self) -> Option<Vec<u64>> {
        let rows = self
            .cluster
            .execute(&self.named, "SELECT op FROM ledger ORDER BY op")
            .ok()?;
        rows.iter().map(|row| row.first()?.as_ref()?.parse().ok()).collect()
    }

    /// Sessions of pools that the servers still have.
    pub(super) fn sessions(&self) -> Vec<SessionEnd> {
        let nodes = (0u32..).zip(self.cluster.nodes());
        nodes
            .flat_map(|(node, name)| {
                let sessions = self.cluster.node(&name).sessions();
                sessions.into_iter().map(move |session| SessionEnd {
                    pid: session.pid,
                    node,
                    application: session.application_name,
                })
            })
            .collect()
    }

    /// The servers' history, taken away.
    pub(super) fn take_history(&self) -> History {
        self.cluster.take_history()
    }
}

/// How many statements a history has.
pub(super) fn statements(history: &History) -> u64 {
    let began = |kind: &EventKind| matches!(kind, EventKind::StatementBegan { .. });
    history.events().iter().filter(|event| began(&event.kind)).count() as u64
}

/// The pools of a scenario, with bounds that let nothing take longer than some seconds.
pub(super) async fn open(sim: &Sim, topology: &Topology) -> Result<InteractionPool, Error> {
    let mut builder = InteractionPool::builder(sim.runtime());
    for (number, name) in topology.pools().iter().enumerate() {
        // A name that follows the primary may be behind: who dials by it says what he wants.
        let server = if number == 0 {
            format!("host={PRIMARY} target_session_attrs=read-write")
        } else {
            format!("host=n{number}")
        };
        let pool = PoolConfig::new(name, &format!("{server} user=app dbname=postgres"))?
            .size(u32::from(topology.size_of(name).max(1)))
            .application_name(name)
            .checkout_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(3))
            .connect_backoff(Duration::from_millis(20), Duration::from_secs(1))
            .interaction_timeout(Some(Duration::from_secs(10)))
            .answer_timeout(Some(crate::oracle::ANSWER))
            .ping_timeout(Duration::from_secs(1))
            .settle_timeout(Duration::from_secs(2))
            .pin_timeout(crate::oracle::PIN)
            .listen_heartbeat(Duration::from_secs(1))
            .statement_cache(8, 1 << 16);
        builder = builder.pool(if number == 0 {
            pool.default_write()
        } else {
            pool.default_read()
        });
    }
    builder.open().await
}
