//! Promise: one SQL text is one statement that commits by itself, in every form it can be ordered and answered; its error
//! says what became of it, a write is never sent twice, a `.read()` cannot change rows, and plans are kept within bounds.

#[path = "single_statements/forms.rs"]
mod forms;
#[path = "single_statements/outcomes.rs"]
mod outcomes;
#[path = "single_statements/plans.rs"]
mod plans;
#[path = "single_statements/read_only.rs"]
mod read_only;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;
#[path = "single_statements/virtual_time.rs"]
mod virtual_time;

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{Error, InteractionPool, Outcome, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Pair, Server, fresh_database, shared_cluster};

/// A database of its own with an empty table `t (n int PRIMARY KEY, word text)` and a sequence `s`, pool "main" on the
/// primary, and pool "replica", the default for reads, on the standby.
#[derive(Clone)]
struct World {
    runtime: Arc<dyn Runtime>,
    pair: &'static Pair,
    database: String,
    db: InteractionPool,
}

/// Runs `body` on both servers and all runtimes; `change` has the last word on the settings of both pools.
fn on_each_server<F>(change: fn(PoolConfig) -> PoolConfig, body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                let world = World::new(runtime, pair, change).await;
                body(world.clone()).await;
                for report in world.db.close(Duration::from_secs(20)).await {
                    assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
                }
            })
        });
    }
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, pair: &'static Pair, change: fn(PoolConfig) -> PoolConfig) -> Self {
        let dsn = fresh_database(&pair.primary);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        let sql = "CREATE TABLE t (n int PRIMARY KEY, word text); CREATE SEQUENCE s";
        pair.primary.psql_in(&database, sql);
        pair.standby.catch_up(&pair.primary);
        let config = |name, dsn: &str| PoolConfig::new(name, dsn).expect("a sound DSN").size(1);
        let replica = config("replica", &pair.standby.dsn_to(&database)).default_read();
        let builder = InteractionPool::builder(Arc::clone(&runtime));
        let builder = builder.pool(change(config("main", &dsn))).pool(change(replica));
        Self {
            runtime,
            pair,
            database,
            db: builder.open().await.expect("sound settings"),
        }
    }

    /// Runs SQL beside the library, and gives the answer as text.
    fn psql(&self, sql: &str) -> String {
        self.pair.primary.psql_in(&self.database, sql)
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    /// Waits until the primary works on a statement with this in it; gives the process id.
    async fn running(&self, part: &str) -> i32 {
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

    /// Ends a backend of the primary, and waits until it is gone.
    fn terminate(&self, pid: i32) {
        self.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
    }

    async fn backend(&self, pool: &str) -> i32 {
        let order = self.db.run("SELECT pg_backend_pid()").on_pool(pool);
        order.scalar().await.expect("a process id")
    }
}

fn same(config: PoolConfig) -> PoolConfig {
    config
}

/// What an error says, in short.
fn said(error: &Error) -> (Option<&str>, Outcome) {
    (error.sqlstate().map(|state| state.code()), error.outcome())
}
