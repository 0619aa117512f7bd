//! One primary with one streaming standby for a whole test binary, and a database of its own for each test.
//!
//! Started at first use. Statics are never dropped: the clusters' watchdogs clean up when the test process ends.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cluster::{Cluster, ClusterOptions, Server};

/// The cluster that the tests of this binary share. Tests must not stop, restart or promote its nodes.
pub(crate) fn shared_cluster(server: Server) -> &'static Pair {
    static V15: OnceLock<Pair> = OnceLock::new();
    static V18: OnceLock<Pair> = OnceLock::new();
    let pair = match server {
        Server::V15 => &V15,
        Server::V18 => &V18,
    };
    pair.get_or_init(|| Pair::start(server))
}

/// Creates a database with a name nobody else uses on `cluster` and returns a DSN for it.
///
/// On the primary of a pair, the standby has it as soon as it has replayed so far: [`Cluster::catch_up`].
pub(crate) fn fresh_database(cluster: &Cluster) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("t{}_{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    cluster.psql(&format!("CREATE DATABASE {name} OWNER app"));
    cluster.dsn_to(&name)
}

/// A primary and its standby.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) primary: Cluster,
    pub(crate) standby: Cluster,
}

impl Pair {
    /// Starts a primary with default options, and a standby that streams from it.
    pub(crate) fn start(server: Server) -> Self {
        let primary = Cluster::start(ClusterOptions::new(server));
        let standby = primary.standby();
        Self { primary, standby }
    }
}
