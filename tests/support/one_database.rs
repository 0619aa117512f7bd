//! A database of its own on a real server, and pool "main" on it: for tests of single calls.
//!
//! Below the tests on real servers; one server per version and test binary. It asserts nothing but that pools close clean.
#![allow(dead_code, reason = "every test binary uses its own part of the support")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gdbpool::{InteractionPool, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Cluster, ClusterOptions, Server, fresh_database};

/// One database, and the pools on it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) cluster: &'static Cluster,
    pub(crate) database: String,
    pub(crate) dsn: String,
    pub(crate) db: InteractionPool,
}

/// Runs `body` on both servers and all runtimes, in a database where `set_up` was run.
pub(crate) fn on_each_server<F>(set_up: &'static str, body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        on_each(|runtime| {
            Box::pin(async move {
                let world = World::new(runtime, server, set_up).await;
                body(world.clone()).await;
                for report in world.db.close(Duration::from_secs(20)).await {
                    assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
                }
            })
        });
    }
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, server: Server, set_up: &str) -> Self {
        static V15: OnceLock<Cluster> = OnceLock::new();
        static V18: OnceLock<Cluster> = OnceLock::new();
        let cluster = match server {
            Server::V15 => &V15,
            Server::V18 => &V18,
        };
        let cluster = cluster.get_or_init(|| Cluster::start(ClusterOptions::new(server)));
        let dsn = fresh_database(cluster);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        cluster.psql_in(&database, set_up);
        let main = PoolConfig::new("main", &dsn).expect("a sound DSN").size(2);
        let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(main);
        Self {
            db: builder.open().await.expect("sound settings"),
            runtime,
            cluster,
            database,
            dsn,
        }
    }

    /// Runs SQL beside the library, and gives the answer as text.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.cluster.psql_in(&self.database, sql)
    }

    pub(crate) async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    /// Waits until a backend of this database works on a statement with this in it; gives the process id.
    pub(crate) async fn running(&self, part: &str) -> i32 {
        let query = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND pid <> pg_backend_pid() \
             AND query LIKE '%{part}%' AND wait_event = 'PgSleep'",
            self.database
        );
        let mut pid = None;
        self.until("the statement runs", || {
            pid = self.psql(&query).parse().ok();
            pid.is_some()
        })
        .await;
        pid.expect("a process id")
    }

    /// Ends a backend, and waits until it is gone.
    pub(crate) fn terminate(&self, pid: i32) {
        self.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
    }
}
