//! Promise: a function is one transaction, committed on `Ok` and on nothing else; a pinned transaction stays on its
//! connection until it is committed, rolled back, lost or expired; and whoever is late is told so.

#[path = "transactions/functions.rs"]
mod functions;
#[path = "transactions/hard.rs"]
mod hard;
#[path = "transactions/inside.rs"]
mod inside;
#[path = "transactions/pinned.rs"]
mod pinned;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{Error, InteractionPool, Outcome, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Pair, Server, fresh_database, shared_cluster};

/// A database of its own with an empty table `t (n int PRIMARY KEY)`; pool "main" of two sessions on the primary, pool
/// "replica", the default for reads, on the standby.
#[derive(Clone)]
struct World {
    runtime: Arc<dyn Runtime>,
    pair: &'static Pair,
    database: String,
    db: InteractionPool,
}

/// Runs `body` on both servers and all runtimes; afterwards both sessions of "main" are there, and clean.
fn on_each_server<F>(body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                let world = World::new(runtime, pair).await;
                body(world.clone()).await;
                world.is_left_clean().await;
                for report in world.db.close(Duration::from_secs(20)).await {
                    assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
                }
            })
        });
    }
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, pair: &'static Pair) -> Self {
        let dsn = fresh_database(&pair.primary);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        pair.primary.psql_in(&database, "CREATE TABLE t (n int PRIMARY KEY)");
        pair.standby.catch_up(&pair.primary);
        let config = |name, dsn: &str| PoolConfig::new(name, dsn).expect("a sound DSN").size(2);
        let replica = config("replica", &pair.standby.dsn_to(&database)).default_read();
        let builder = InteractionPool::builder(Arc::clone(&runtime));
        let db = builder.pool(config("main", &dsn)).pool(replica).open().await;
        Self {
            runtime,
            pair,
            database,
            db: db.expect("sound settings"),
        }
    }

    /// Runs SQL beside the library, and gives the answer as text.
    fn psql(&self, sql: &str) -> String {
        self.pair.primary.psql_in(&self.database, sql)
    }

    /// The rows of `t`.
    fn rows(&self) -> String {
        self.psql("SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t")
    }

    fn terminate(&self, pid: i32) {
        self.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    /// Nobody holds a session, and no transaction is open.
    async fn is_left_clean(&self) {
        let back = || {
            let status = &self.db.status()[0];
            status.leased == 0 && status.settling == 0 && status.idle == status.size
        };
        self.until("every session is back", back).await;
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'";
        self.until("no transaction is open", || self.psql(open) == "0").await;
    }
}

/// What an error says, in short.
fn said(error: &Error) -> (Option<&str>, Outcome) {
    (error.sqlstate().map(|state| state.code()), error.outcome())
}
