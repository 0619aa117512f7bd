//! Promise: whatever gDBPool could do can be done here, and its known faults do not come back. One test for each row of
//! the table of what it had, by the row's name, and one for each fault; with a schema of its kind: a table of a million
//! rows, and rules that notify on insert and update.

#[path = "gdbpool_parity/calls.rs"]
mod calls;
#[path = "gdbpool_parity/faults.rs"]
mod faults;
#[path = "gdbpool_parity/listening.rs"]
mod listening;
#[path = "gdbpool_parity/pins.rs"]
mod pins;
#[path = "gdbpool_parity/pools.rs"]
mod pools;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gdbpool::{InteractionPool, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Pair, Server, fresh_database, shared_cluster};

/// Rows that no test changes.
const MILLION: i32 = 1_000_000;

const TABLE: &str = "CREATE TABLE test_values (id int PRIMARY KEY, val1 int, val2 int, val3 float8, val4 text); \
    INSERT INTO test_values SELECT n, n % 97, n % 1009, n / 8.0, 'value ' || n FROM generate_series(1, 1000000) AS n; \
    CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
const RULES: &str = "CREATE RULE notify_insert AS ON INSERT TO test_values \
    DO ALSO NOTIFY test_values_insert, 'table:test_values|event:insert'; \
    CREATE RULE notify_update AS ON UPDATE TO test_values \
    DO ALSO NOTIFY test_values_update, 'table:test_values|event:update'";

const INSERT: &str = "INSERT INTO test_values VALUES ($1, 1, 2, 0.5, 'new')";
const NAME: &str = "SELECT current_setting('application_name')";
const PID: &str = "SELECT pg_backend_pid()";

/// The schema, and on it pool "main" of four sessions on the primary and pool "replica", the default for reads, on the
/// standby. Each pool's sessions bear its name.
struct World {
    runtime: Arc<dyn Runtime>,
    pair: &'static Pair,
    database: &'static str,
    db: InteractionPool,
}

/// Runs `body` on both servers and all runtimes; afterwards no pool has a session that is not idle.
fn on_each_server<F>(body: impl Fn(Arc<World>) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let (pair, database) = schema(server);
        on_each(|runtime| {
            Box::pin(async move {
                let world = Arc::new(World::new(runtime, pair, database).await);
                body(Arc::clone(&world)).await;
                world.is_left_clean(&world.db).await;
                world.close(&world.db).await;
            })
        });
    }
}

/// Made once for each server, for all tests.
fn schema(server: Server) -> (&'static Pair, &'static str) {
    static V15: OnceLock<String> = OnceLock::new();
    static V18: OnceLock<String> = OnceLock::new();
    let pair = shared_cluster(server);
    let name = match server {
        Server::V15 => &V15,
        Server::V18 => &V18,
    };
    let name = name.get_or_init(|| {
        let dsn = fresh_database(&pair.primary);
        let name = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        pair.primary.psql_in(&name, TABLE);
        pair.primary.psql_in(&name, RULES);
        pair.standby.catch_up(&pair.primary);
        name
    });
    (pair, name)
}

/// A key that no other row has.
fn fresh_id() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(MILLION);
    NEXT.fetch_add(1, Ordering::Relaxed) + 1
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, pair: &'static Pair, database: &'static str) -> Self {
        let main = named("main", &pair.primary.dsn_to(database)).size(4).default_write();
        let replica = named("replica", &pair.standby.dsn_to(database)).default_read();
        let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(main).pool(replica);
        let db = builder.open().await.expect("sound settings");
        Self {
            runtime,
            pair,
            database,
            db,
        }
    }

    /// A pool of this name on the primary.
    fn pool(&self, name: &str) -> PoolConfig {
        named(name, &self.pair.primary.dsn_to(self.database))
    }

    /// Another set of pools.
    async fn open(&self, configs: impl IntoIterator<Item = PoolConfig>) -> InteractionPool {
        let builder = InteractionPool::builder(Arc::clone(&self.runtime));
        let builder = configs.into_iter().fold(builder, gdbpool::InteractionPoolBuilder::pool);
        builder.open().await.expect("sound settings")
    }

    async fn close(&self, db: &InteractionPool) {
        for report in db.close(Duration::from_secs(20)).await {
            assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
        }
    }

    /// Runs SQL beside the library, and gives the answer as text.
    fn psql(&self, sql: &str) -> String {
        self.pair.primary.psql_in(self.database, sql)
    }

    /// How many rows have this key: what is committed.
    fn rows(&self, id: i32) -> String {
        self.psql(&format!("SELECT count(*) FROM test_values WHERE id = {id}"))
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    async fn is_left_clean(&self, db: &InteractionPool) {
        let back = || {
            db.status()
                .iter()
                .all(|status| status.leased == 0 && status.idle == status.size)
        };
        self.until("every session is back", back).await;
    }
}

fn named(name: &str, dsn: &str) -> PoolConfig {
    let config = PoolConfig::new(name, dsn).expect("a sound DSN");
    config.application_name(name).ping_after(None)
}
