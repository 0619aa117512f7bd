//! A server, a PgBouncer of one mode in front of it, a database of its own for each test, and a pool through the pooler.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use gdbpool::{InteractionPool, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Cluster, ClusterOptions, PgBouncer, Server, fresh_database};

pub(crate) const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// Which pooler stands in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Session mode, many server connections.
    Session,
    /// Transaction mode, one server connection for each database: every client of a database shares it.
    One,
    /// Transaction mode, three of them.
    Three,
    /// As `Three`, where the program follows prepared statements; in session mode where it does not.
    Tracking,
}

/// One test's place.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) cluster: &'static Cluster,
    pub(crate) pooler: &'static PgBouncer,
    pub(crate) database: String,
}

impl World {
    /// A database where `set_up` was run.
    pub(crate) fn new(runtime: Arc<dyn Runtime>, server: Server, front: Front, set_up: &str) -> Self {
        let (cluster, pooler) = fronted(server, front);
        let dsn = fresh_database(cluster);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        cluster.psql_in(&database, set_up);
        Self {
            runtime,
            cluster,
            pooler,
            database,
        }
    }

    /// The ordinary configuration of a pool through the pooler, named "main".
    pub(crate) fn config(&self) -> PoolConfig {
        let dsn = self.pooler.dsn_to(&self.database);
        PoolConfig::new("main", &dsn).expect("a sound DSN").size(4)
    }

    pub(crate) async fn open(&self, config: PoolConfig) -> InteractionPool {
        let builder = InteractionPool::builder(Arc::clone(&self.runtime)).pool(config);
        builder.open().await.expect("sound settings")
    }

    /// Runs SQL straight on the server.
    pub(crate) fn direct(&self, sql: &str) -> String {
        self.cluster.psql_in(&self.database, sql)
    }

    /// Runs SQL as another client of the pooler does.
    pub(crate) fn other(&self, sql: &str) -> String {
        let answer = self.pooler.try_psql(&self.database, sql);
        answer.unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.pooler.log()))
    }

    pub(crate) async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    /// Waits until nothing of the pool's is under way.
    pub(crate) async fn at_rest(&self, db: &InteractionPool) {
        let pool = db.pool("main").expect("a pool");
        self.until("the pool is at rest", || {
            let status = pool.status();
            status.leased + status.settling + status.closing + status.waiting == 0
        })
        .await;
    }
}

/// Runs `body` on both servers and all runtimes.
pub(crate) fn on_each_server<F>(front: Front, set_up: &'static str, body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in SERVERS {
        on_each(move |runtime| Box::pin(async move { body(World::new(runtime, server, front, set_up)).await }));
    }
}

pub(crate) async fn close(db: &InteractionPool) {
    for report in db.close(Duration::from_secs(20)).await {
        assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
    }
}

/// Started at first use; the watchdogs end them with the process.
fn fronted(server: Server, front: Front) -> (&'static Cluster, &'static PgBouncer) {
    static CLUSTERS: [OnceLock<Cluster>; 2] = [const { OnceLock::new() }; 2];
    static POOLERS: Mutex<Vec<((usize, Front), &'static PgBouncer)>> = Mutex::new(Vec::new());
    let at = usize::from(server == Server::V18);
    let cluster = CLUSTERS[at].get_or_init(|| Cluster::start(ClusterOptions::new(server).max_connections(300)));
    let mut poolers = POOLERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, pooler)) = poolers.iter().find(|(key, _)| *key == (at, front)) {
        return (cluster, pooler);
    }
    let pooler = &*Box::leak(Box::new(start(cluster, front)));
    poolers.push(((at, front), pooler));
    (cluster, pooler)
}

/// A PgBouncer of one's own, to be killed.
pub(crate) fn start(cluster: &Cluster, front: Front) -> PgBouncer {
    let transaction = ("pool_mode", "transaction");
    let session = ("pool_mode", "session");
    let settings: &[(&str, &str)] = match front {
        Front::Session => &[session, ("default_pool_size", "50")],
        Front::One => &[transaction],
        Front::Three => &[transaction, ("default_pool_size", "3")],
        Front::Tracking if PgBouncer::tracks_statements() => &[
            transaction,
            ("default_pool_size", "3"),
            ("max_prepared_statements", "200"),
        ],
        Front::Tracking => &[session, ("default_pool_size", "50")],
    };
    PgBouncer::start(cluster, settings)
}
