//! A simulated PostgreSQL: the engine of one node, the sessions and the server around it, and the cluster they form.
//!
//! Above the wire and the network, below scenarios and tests. The engine is a plain machine; everything that waits is
//! in the sessions and in replication.

mod cluster;
mod engine;
mod replication;
mod server;
mod session;

pub use self::cluster::{Authentication, BackendView, Cluster, ClusterConfig, DirectError, NodeHandle};
