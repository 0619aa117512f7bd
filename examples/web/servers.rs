//! Where the shop keeps its items: `DATABASE_URL`, or a throwaway server.
//!
//! Before the application. A throwaway server is stopped and removed when [`Server`] is dropped.

use crate::cluster::{Cluster, ClusterOptions, Server as Version};

/// The server of this run.
pub(crate) struct Server {
    pub(crate) dsn: String,
    _throwaway: Option<Cluster>,
}

impl Server {
    pub(crate) fn find() -> Self {
        match std::env::var("DATABASE_URL") {
            Ok(dsn) if !dsn.is_empty() => Self { dsn, _throwaway: None },
            _ => {
                println!("DATABASE_URL is not set: starting a throwaway server");
                let cluster = Cluster::start(ClusterOptions::new(Version::V15));
                Self {
                    dsn: cluster.dsn(),
                    _throwaway: Some(cluster),
                }
            }
        }
    }
}
