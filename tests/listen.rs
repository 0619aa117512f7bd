//! Promise: a listener never lies. Each notification that is missing lies inside a gap, the order is kept, nothing comes
//! after `closed()`, and the server keeps no channel that nobody subscribes to.

#[path = "listen/endings.rs"]
mod endings;
#[path = "listen/input.rs"]
mod input;
#[path = "listen/losses.rs"]
mod losses;
#[path = "listen/overflow.rs"]
mod overflow;
#[path = "listen/received.rs"]
mod received;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;
#[path = "listen/virtual_time.rs"]
mod virtual_time;

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{InteractionPool, ListenEvent, PoolConfig, Runtime, Subscription};

use crate::runtimes::{on_each, until};
use crate::support::{Pair, Proxy, Server, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// A database of its own: pool "main" on the primary, pool "ear" on the same through a proxy, pool "replica" on the standby.
struct World {
    runtime: Arc<dyn Runtime>,
    pair: &'static Pair,
    database: String,
    proxy: Proxy,
    db: InteractionPool,
}

/// Runs `body` on both servers and all runtimes.
fn on_each_server<F>(self_test: bool, body: impl Fn(Arc<World>) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in SERVERS {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                let world = Arc::new(World::new(runtime, pair, self_test).await);
                body(Arc::clone(&world)).await;
                world.db.close(Duration::from_secs(20)).await;
                assert_eq!(world.sessions(), 0, "a closed pool has no connection left");
            })
        });
    }
}

/// Settings that notice a loss soon.
fn watchful(config: PoolConfig) -> PoolConfig {
    config
        .size(1)
        .listen_heartbeat(Duration::from_millis(100))
        .ping_timeout(Duration::from_millis(700))
        .connect_timeout(Duration::from_secs(2))
        .connect_backoff(Duration::from_millis(10), Duration::from_millis(100))
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, pair: &'static Pair, self_test: bool) -> Self {
        let dsn = fresh_database(&pair.primary);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        pair.standby.catch_up(&pair.primary);
        let proxy = Proxy::to_port(pair.primary.port());
        let through = format!(
            "{} dbname={database}",
            pair.primary.dsn_at(proxy.port()).replace("dbname=postgres", "")
        );
        let config = |name, dsn: &str| {
            let config = PoolConfig::new(name, dsn).expect("a sound DSN");
            watchful(config).application_name(name).listen_self_test(self_test)
        };
        let builder = InteractionPool::builder(Arc::clone(&runtime))
            .pool(config("main", &dsn))
            .pool(config("ear", &through))
            .pool(config("replica", &pair.standby.dsn_to(&database)));
        let db = builder.open().await.expect("sound settings");
        Self {
            runtime,
            pair,
            database,
            proxy,
            db,
        }
    }

    fn psql(&self, sql: &str) -> String {
        self.pair.primary.psql_in(&self.database, sql)
    }

    /// The library's connections to the database.
    fn sessions(&self) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name IN ('main', 'ear', 'replica')";
        self.psql(sql).parse().expect("a number")
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    async fn notify(&self, channel: &str, payload: &str) {
        self.db.notify(channel, payload).await.expect("a notification");
    }

    /// What the listener of this pool asked the server last.
    fn last_request(&self, pool: &str) -> String {
        let sql = format!(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{pool}' \
             AND (query LIKE 'LISTEN%' OR query LIKE 'UNLISTEN%')"
        );
        self.psql(&sql)
    }
}

/// The next event, which has to come.
async fn next(subscription: &mut Subscription) -> ListenEvent {
    subscription.next().await.expect("an event")
}

/// The next event, which has to be a notification.
async fn payload(subscription: &mut Subscription) -> String {
    match next(subscription).await {
        ListenEvent::Notification(notification) => notification.payload().to_owned(),
        other => panic!("{other:?} instead of a notification"),
    }
}
