//! What runners of scenarios look at in a cluster, cheaply.
//!
//! Beside the handles: it changes nothing but the history's place, when that is taken away at the end of a run.

use std::net::IpAddr;

use gdbpool::Endpoint;

use super::{Cluster, lock};
use crate::history::History;

impl Cluster {
    /// The address of a node, for names that lead to it.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn address(&self, node: &str) -> IpAddr {
        let index = self.index(node);
        match &lock(self.world()).nodes[index].endpoint {
            Endpoint::Tcp(address) => address.ip(),
            other => unreachable!("a node of a cluster listens at an address, not at {other}"),
        }
    }

    /// How many statements were refused so far, with SQLSTATE 0A000, because the simulator does not know them; see
    /// [`Cluster::respond`].
    #[must_use]
    pub fn unsupported(&self) -> u64 {
        let world = lock(self.world());
        world.nodes.iter().map(|node| node.engine.unsupported()).sum()
    }

    /// How many events the history has.
    #[must_use]
    pub fn history_len(&self) -> u64 {
        lock(self.world()).history.len()
    }

    /// The history without a copy of it; the cluster goes on with an empty one.
    #[must_use]
    pub fn take_history(&self) -> History {
        std::mem::take(&mut lock(self.world()).history)
    }
}
