//! Real servers with TLS, whose certificate can be changed, and connects to them.
//!
//! One server per version for all tests; they take turns, as there is one certificate at a time.

use std::error::Error as _;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::future::{Either, select};
use gdbpool::{BoxFuture, ConnectionPool, Error, Lease, PoolConfig, Runtime};

use super::pki::Pki;
use super::runtimes::{on_each, until};
use super::support::{Cluster, ClusterOptions, Server, eventually};

pub(crate) const SECRET: &str = "hunter2";

/// Who may come how. `clear` gives its password in clear text.
const HBA: &str = "local all postgres trust
hostssl all certified all cert
host all app all scram-sha-256
hostssl all only_tls all trust
hostnossl all only_tls all reject
hostnossl all only_plain all trust
hostssl all only_plain all reject
host all clear all password
host all postgres all trust
";
const CERTIFICATES: [&str; 7] = [
    "good",
    "other_name",
    "expired",
    "revoked",
    "false",
    "self_signed",
    "chained",
];

/// A turn with a server.
pub(crate) struct Turn {
    pub(crate) cluster: &'static Cluster,
    _turn: MutexGuard<'static, ()>,
}

pub(crate) fn turn(server: Server) -> Turn {
    static V15: OnceLock<Cluster> = OnceLock::new();
    static V18: OnceLock<Cluster> = OnceLock::new();
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let (cluster, turn) = match server {
        Server::V15 => (&V15, &TURNS[0]),
        Server::V18 => (&V18, &TURNS[1]),
    };
    let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = cluster.get_or_init(|| start(server));
    let turn = Turn { cluster, _turn: turn };
    turn.show("good");
    turn
}

/// Runs `body` with each server on each runtime.
pub(crate) fn on_each_server(body: impl Fn(Arc<dyn Runtime>, &'static Cluster, Server) -> BoxFuture<'static, ()>) {
    for server in [Server::V15, Server::V18] {
        let turn = turn(server);
        on_each(|runtime| body(runtime, turn.cluster, server));
    }
}

fn start(server: Server) -> Cluster {
    let pki = Pki::get();
    let cluster = Cluster::start(ClusterOptions::new(server));
    cluster.psql(&format!(
        "ALTER ROLE app PASSWORD '{SECRET}'; CREATE ROLE clear LOGIN PASSWORD '{SECRET}'; CREATE ROLE certified LOGIN; \
         CREATE ROLE only_tls LOGIN; CREATE ROLE only_plain LOGIN"
    ));
    let data = cluster.psql("SHOW data_directory");
    let data = Path::new(&data);
    let owner = fs::metadata(data).expect("the server's folder");
    for name in CERTIFICATES {
        for kind in ["crt", "key"] {
            let to = data.join(format!("{name}.{kind}"));
            fs::copy(pki.path(&format!("{name}.{kind}")), &to).expect("copy");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("a private file");
            chown(&to, Some(owner.uid()), Some(owner.gid())).expect("the server's file");
        }
    }
    let root = data.join("ca.crt");
    fs::copy(pki.path("ca.crt"), &root).expect("copy");
    chown(&root, Some(owner.uid()), Some(owner.gid())).expect("the server's file");
    fs::write(cluster.psql("SHOW hba_file"), HBA).expect("write pg_hba.conf");
    cluster.psql("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'");
    set_certificate(&cluster, "good");
    cluster.psql("ALTER SYSTEM SET ssl = on");
    reload(&cluster, "SHOW ssl", "on");
    cluster
}

fn set_certificate(cluster: &Cluster, name: &str) {
    cluster.psql(&format!("ALTER SYSTEM SET ssl_cert_file = '{name}.crt'"));
    cluster.psql(&format!("ALTER SYSTEM SET ssl_key_file = '{name}.key'"));
}

/// A new session has its settings from the main process, which has changed its certificate with them.
fn reload(cluster: &Cluster, show: &str, expected: &str) {
    cluster.psql("SELECT pg_reload_conf()");
    eventually("the server has read its settings", || cluster.psql(show) == expected);
}

impl Turn {
    /// The server has this certificate from now on.
    pub(crate) fn show(&self, name: &str) {
        let file = format!("{name}.crt");
        if self.cluster.psql("SHOW ssl_cert_file") != file {
            set_certificate(self.cluster, name);
            reload(self.cluster, "SHOW ssl_cert_file", &file);
        }
    }
}

/// A connection string over TCP.
pub(crate) fn dsn(host: &str, port: u16, rest: &str) -> String {
    format!("host={host} port={port} dbname=postgres {rest}")
}

pub(crate) fn open(runtime: &Arc<dyn Runtime>, config: PoolConfig) -> ConnectionPool {
    ConnectionPool::open(Arc::clone(runtime), config.size(1)).expect("sound settings")
}

/// One session, or why there is none, with the pool it is of.
pub(crate) async fn connect(runtime: &Arc<dyn Runtime>, config: PoolConfig) -> (ConnectionPool, Result<Lease, String>) {
    let pool = open(runtime, config);
    let found = {
        let asking = pool.checkout();
        futures::pin_mut!(asking);
        let failing = until(&**runtime, "it has failed", || pool.last_connect_error().is_some());
        futures::pin_mut!(failing);
        match select(asking, failing).await {
            Either::Left((lease, _)) => lease.map_err(|error| all_of(&error)),
            Either::Right(_) => Err(all_of(&pool.last_connect_error().expect("an error"))),
        }
    };
    (pool, found)
}

/// Whether the session that is made is encrypted, by the server's word, or why there is none.
pub(crate) async fn is_encrypted(runtime: &Arc<dyn Runtime>, dsn: &str) -> Result<bool, String> {
    let (_pool, lease) = connect(runtime, PoolConfig::new("p", dsn).expect("a sound DSN")).await;
    let lease = lease?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    Ok(lease.query_one(sql, &[]).await.expect("a row").get(0))
}

pub(crate) fn all_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, " | {cause}");
        next = cause.source();
    }
    text
}
