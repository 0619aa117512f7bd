//! The contenders: this library and its peers behind one trait, each used the way its users use it.
//!
//! Between the scenarios and the pools. All have the same number of sessions and, but for that, the settings they come
//! with: this library and sqlx with their statement caches, deadpool with its `Fast` recycling, bb8 and sqlx with the
//! ping before each checkout. It measures nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bb8_postgres::PostgresConnectionManager;
use gdbpool::{ConnectionPool, InteractionPool, PoolConfig};
use sqlx::Row as _;
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls, Statement};

/// The prepared point read.
const READ: &str = "SELECT name FROM items WHERE id = $1";

/// Something that answers point reads.
pub(crate) trait Reader: Send + Sync + 'static {
    /// Reads the row of one key.
    fn read(&self, key: i32) -> impl Future<Output = String> + Send;
}

/// A pool of sessions.
pub(crate) trait Pool: Reader {
    /// What a caller holds; gives the session back when dropped.
    type Lease<'a>: Send
    where
        Self: 'a;

    /// Takes a session.
    fn checkout(&self) -> impl Future<Output = Self::Lease<'_>> + Send;
}

/// This library.
pub(crate) struct Ours {
    db: InteractionPool,
    pool: ConnectionPool,
}

impl Ours {
    pub(crate) async fn open(dsn: &str, sessions: u32) -> Self {
        let config = PoolConfig::new("bench", dsn).expect("a DSN").size(sessions);
        let db = InteractionPool::builder(gdbpool::Tokio::new(Handle::current()))
            .pool(config)
            .open()
            .await
            .expect("open the pool");
        let pool = db.pool("bench").expect("the pool that was just opened");
        Self { db, pool }
    }

    /// The ledger's own count of sessions that went past a waiter.
    pub(crate) fn overtakes(&self) -> u64 {
        self.pool.status().overtakes
    }
}

impl Reader for Ours {
    async fn read(&self, key: i32) -> String {
        let row = self.db.run(READ).bind(key).read().one().await;
        row.expect("one row").get(0)
    }
}

impl Pool for Ours {
    type Lease<'a> = gdbpool::Lease;

    async fn checkout(&self) -> gdbpool::Lease {
        self.pool.checkout().await.expect("a lease")
    }
}

/// deadpool-postgres.
pub(crate) struct Deadpool(deadpool_postgres::Pool);

impl Deadpool {
    pub(crate) fn open(dsn: &str, sessions: u32) -> Self {
        let manager = deadpool_postgres::Manager::new(config(dsn), NoTls);
        let pool = deadpool_postgres::Pool::builder(manager).max_size(sessions as usize);
        Self(pool.build().expect("build the pool"))
    }
}

impl Reader for Deadpool {
    async fn read(&self, key: i32) -> String {
        let client = self.0.get().await.expect("a client");
        let statement = client.prepare_cached(READ).await.expect("prepare");
        client.query_one(&statement, &[&key]).await.expect("one row").get(0)
    }
}

impl Pool for Deadpool {
    type Lease<'a> = deadpool_postgres::Client;

    async fn checkout(&self) -> deadpool_postgres::Client {
        self.0.get().await.expect("a client")
    }
}

/// bb8-postgres.
pub(crate) struct Bb8(bb8::Pool<PostgresConnectionManager<NoTls>>);

impl Bb8 {
    pub(crate) async fn open(dsn: &str, sessions: u32) -> Self {
        let manager = PostgresConnectionManager::new(config(dsn), NoTls);
        let pool = bb8::Pool::builder().max_size(sessions).build(manager).await;
        Self(pool.expect("build the pool"))
    }
}

impl Reader for Bb8 {
    /// There is no statement cache: its users give the text, and pay for the preparing.
    async fn read(&self, key: i32) -> String {
        let client = self.0.get().await.expect("a client");
        client.query_one(READ, &[&key]).await.expect("one row").get(0)
    }
}

impl Pool for Bb8 {
    type Lease<'a> = bb8::PooledConnection<'a, PostgresConnectionManager<NoTls>>;

    async fn checkout(&self) -> Self::Lease<'_> {
        self.0.get().await.expect("a client")
    }
}

/// sqlx.
pub(crate) struct Sqlx(sqlx::PgPool);

impl Sqlx {
    /// `ping`: as it comes; without, `test_before_acquire` is switched off.
    pub(crate) fn open(dsn: &str, sessions: u32, ping: bool) -> Self {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(sessions);
        let options = if ping {
            options
        } else {
            options.test_before_acquire(false)
        };
        let config = config(dsn);
        let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else {
            panic!("the server is on one TCP address");
        };
        let connect = sqlx::postgres::PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(config.get_ports()[0])
            .username(config.get_user().expect("a user"))
            .database(config.get_dbname().expect("a database"))
            .ssl_mode(sqlx::postgres::PgSslMode::Disable);
        Self(options.connect_lazy_with(connect))
    }
}

impl Reader for Sqlx {
    async fn read(&self, key: i32) -> String {
        let row = sqlx::query(READ).bind(key).fetch_one(&self.0).await;
        row.expect("one row").get(0)
    }
}

impl Pool for Sqlx {
    type Lease<'a> = sqlx::pool::PoolConnection<sqlx::Postgres>;

    async fn checkout(&self) -> Self::Lease<'_> {
        self.0.acquire().await.expect("a connection")
    }
}

/// tokio-postgres without a pool: each call goes to the next session, behind whatever is under way there. What pipelining
/// makes possible when nobody ever needs a session alone.
pub(crate) struct Bare {
    sessions: Vec<(Client, Statement)>,
    next: AtomicUsize,
}

impl Bare {
    pub(crate) async fn open(dsn: &str, sessions: u32) -> Self {
        let mut opened = Vec::new();
        for _ in 0..sessions {
            let (client, connection) = config(dsn).connect(NoTls).await.expect("connect");
            Handle::current().spawn(async move { connection.await.expect("a session that lasts") });
            let statement = client.prepare(READ).await.expect("prepare");
            opened.push((client, statement));
        }
        Self {
            sessions: opened,
            next: AtomicUsize::new(0),
        }
    }
}

impl Reader for Bare {
    async fn read(&self, key: i32) -> String {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (client, statement) = &self.sessions[turn % self.sessions.len()];
        client.query_one(statement, &[&key]).await.expect("one row").get(0)
    }
}

/// Makes the table that is read.
pub(crate) async fn fill(dsn: &str, rows: u32) {
    let (client, connection) = config(dsn).connect(NoTls).await.expect("connect");
    Handle::current().spawn(async move { connection.await.expect("a session that lasts") });
    let sql = format!(
        "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL);
         INSERT INTO items SELECT id, 'item ' || id FROM generate_series(1, {rows}) AS id;
         VACUUM ANALYZE items"
    );
    for statement in sql.split(';') {
        client.batch_execute(statement).await.expect("make the table");
    }
}

/// Opens all sessions of a pool: takes as many at once as there are.
pub(crate) async fn warm_up<P: Pool>(pool: &Arc<P>, sessions: u32) {
    let mut leases = Vec::new();
    for _ in 0..sessions {
        leases.push(pool.checkout().await);
    }
}

fn config(dsn: &str) -> Config {
    dsn.parse().expect("a DSN")
}
