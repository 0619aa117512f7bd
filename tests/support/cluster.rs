//! Throwaway PostgreSQL servers: a primary, and standbys that stream from it.
//!
//! Each server lives in a temporary folder of its own with its data, its Unix socket and its log. Dropping a [`Cluster`]
//! stops the server and removes the folder, also on panic; a watchdog process does the same when this process is killed
//! outright. Linux only. Uses only std, so that examples and benches can take this file through `#[path]`; it never
//! touches a server that it did not start.
#![allow(dead_code, unused_imports, reason = "every includer uses its own part")]
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]

#[path = "backup.rs"]
mod backup;
#[path = "pgbouncer.rs"]
mod pgbouncer;
#[path = "ports.rs"]
mod ports;
#[path = "server.rs"]
mod server;
#[path = "watchdog.rs"]
mod watchdog;

pub(crate) use self::pgbouncer::PgBouncer;
pub(crate) use self::ports::free_port;
pub(crate) use self::server::{Server, try_psql_at};

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::server::server_command;
use self::watchdog::Watchdog;

/// One running server and everything it owns on disk. Its methods panic when a server does not do as told.
#[derive(Debug)]
pub(crate) struct Cluster {
    auth: Auth,
    port: u16,
    postmaster: Mutex<Option<Child>>,
    server: Server,
    watchdog: Watchdog,
}

impl Cluster {
    /// Starts a primary in a new temporary folder and waits until it takes connections.
    ///
    /// It has a superuser `postgres` and a user `app`.
    pub(crate) fn start(options: ClusterOptions) -> Self {
        let ClusterOptions {
            auth,
            max_connections,
            server,
            settings,
        } = options;
        let watchdog = Watchdog::start();
        init_data(server, &watchdog);
        let hba = match auth {
            Auth::Scram { .. } => SCRAM_HBA,
            Auth::Trust => TRUST_HBA,
        };
        write_in_place(&watchdog.data().join("pg_hba.conf"), hba);
        let mut configuration = format!("{CONFIGURATION}max_connections = {max_connections}\n");
        for (name, value) in settings {
            configuration.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        append(&watchdog.data().join("postgresql.conf"), &configuration);

        let cluster = Self::launch(server, auth, watchdog);
        let password = match &cluster.auth {
            Auth::Scram { password } => format!("PASSWORD '{}'", password.replace('\'', "''")),
            Auth::Trust => String::new(),
        };
        cluster.psql(&format!(
            "CREATE ROLE app LOGIN {password}; GRANT ALL ON SCHEMA public TO app"
        ));
        cluster
    }

    /// Starts a standby of this server and waits until it streams and answers reads.
    ///
    /// It goes on by itself when this server restarts.
    pub(crate) fn standby(&self) -> Self {
        let watchdog = Watchdog::start();
        let name = watchdog.name();
        backup::take(self, &watchdog.data());
        let connection = format!(
            "host={} port={} user=postgres application_name={name}",
            self.socket_dir().display(),
            self.port,
        );
        append(
            &watchdog.data().join("postgresql.auto.conf"),
            &format!("primary_conninfo = '{connection}'\n"),
        );

        let standby = Self::launch(self.server, self.auth.clone(), watchdog);
        let streams = format!("application_name = '{name}' AND state = 'streaming'");
        let query = format!("SELECT count(*) FROM pg_stat_replication WHERE {streams}");
        eventually("the standby streams", || self.psql(&query) == "1");
        standby
    }

    /// A DSN over TCP for database `postgres`: the superuser, or `app` with its password where one is asked for.
    pub(crate) fn dsn(&self) -> String {
        self.dsn_to("postgres")
    }

    /// Like [`Cluster::dsn`], for another database.
    pub(crate) fn dsn_to(&self, database: &str) -> String {
        self.compose("127.0.0.1", self.port, database)
    }

    /// Like [`Cluster::dsn`], through something that listens on another port of this machine, such as a proxy.
    pub(crate) fn dsn_at(&self, port: u16) -> String {
        self.compose("127.0.0.1", port, "postgres")
    }

    /// Like [`Cluster::dsn`], over the Unix socket.
    pub(crate) fn unix_dsn(&self) -> String {
        self.compose(&self.socket_dir().display().to_string(), self.port, "postgres")
    }

    /// Like [`Cluster::dsn`], as somebody else.
    pub(crate) fn dsn_for(&self, user: &str, password: &str) -> String {
        let (user, password) = (quoted(user), quoted(password));
        format!(
            "host=127.0.0.1 port={} user={user} password={password} dbname=postgres",
            self.port
        )
    }

    /// The TCP port on 127.0.0.1; it stays the same over restarts.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.watchdog.folder()
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.watchdog.log()).unwrap_or_default()).into_owned()
    }

    /// The process id of the server's main process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// The server's version as PostgreSQL numbers it: 150004 for 15.4.
    pub(crate) fn version(&self) -> u32 {
        self.psql("SHOW server_version_num").parse().expect("a version number")
    }

    /// Runs SQL as superuser in database `postgres`; returns what came back, columns parted by `|`, rows by line ends.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// Like [`Cluster::psql`], in another database.
    pub(crate) fn psql_in(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Like [`Cluster::psql_in`], for SQL that may fail: the error is what `psql` said.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        try_psql_at(&self.admin_dsn(database), sql)
    }

    /// Waits until this standby has replayed all that `primary` has written up to now.
    pub(crate) fn catch_up(&self, primary: &Self) {
        let target = primary.psql("SELECT pg_current_wal_lsn()");
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'");
        eventually("the standby catches up", || self.psql(&query) == "t");
    }

    /// Makes this standby a primary, and waits until it is one.
    pub(crate) fn promote(&self) {
        assert_eq!(
            self.psql("SELECT pg_promote(true, 30)"),
            "t",
            "the standby was not promoted"
        );
    }

    /// Stops the server and waits until it is gone.
    pub(crate) fn stop(&self, mode: Mode) {
        let mut postmaster = self.lock().take().expect("a running server to stop");
        let signal = match mode {
            Mode::Fast => "INT",
            Mode::Immediate => "QUIT",
        };
        send_signal(signal, postmaster.id());
        eventually("the server stops", || {
            postmaster.try_wait().expect("ask for the server").is_some()
        });
    }

    /// Starts a stopped server again, on the same port and data, and waits until it takes connections.
    pub(crate) fn start_again(&self) {
        let mut postmaster = self.lock();
        assert!(postmaster.is_none(), "the server is running already");
        // The port may be in somebody's hands for a moment.
        eventually("the server has its port again", || {
            match boot(self.server, self.port, &self.watchdog) {
                Ok(child) => postmaster.insert(child).id() != 0,
                Err(NotStarted::PortTaken) => false,
                Err(NotStarted::Other(log)) => panic!("the server did not start again:\n{log}"),
            }
        });
    }

    /// A fast stop and a start.
    pub(crate) fn restart(&self) {
        self.stop(Mode::Fast);
        self.start_again();
    }

    /// First start on a folder that is ready: finds the port.
    fn launch(server: Server, auth: Auth, watchdog: Watchdog) -> Self {
        for _ in 0..20 {
            let port = free_port();
            match boot(server, port, &watchdog) {
                Ok(child) => {
                    return Self {
                        auth,
                        port,
                        postmaster: Mutex::new(Some(child)),
                        server,
                        watchdog,
                    };
                }
                // Between the look and the start somebody else took it.
                Err(NotStarted::PortTaken) => {}
                Err(NotStarted::Other(log)) => panic!("the server did not start:\n{log}"),
            }
        }
        panic!("20 ports in a row were taken by others");
    }

    /// The superuser over the Unix socket is asked for no password.
    fn admin_dsn(&self, database: &str) -> String {
        format!(
            "host={} port={} user=postgres dbname={database}",
            self.socket_dir().display(),
            self.port
        )
    }

    fn compose(&self, host: &str, port: u16, database: &str) -> String {
        let credentials = match &self.auth {
            Auth::Scram { password } => format!("app password={}", quoted(password)),
            Auth::Trust => "postgres".to_owned(),
        };
        format!("host={host} port={port} user={credentials} dbname={database}")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.watchdog.finish();
        if let Some(mut postmaster) = self.lock().take() {
            let _ = postmaster.wait();
        }
    }
}

/// What a new primary is like.
#[derive(Clone, Debug)]
pub(crate) struct ClusterOptions {
    auth: Auth,
    max_connections: u16,
    server: Server,
    settings: Vec<(String, String)>,
}

impl ClusterOptions {
    /// Everybody on this machine is let in, 100 connections.
    pub(crate) fn new(server: Server) -> Self {
        Self {
            auth: Auth::Trust,
            max_connections: 100,
            server,
            settings: Vec::new(),
        }
    }

    /// Whom the server lets in.
    pub(crate) fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    /// `max_connections`; standbys have the same.
    pub(crate) fn max_connections(self, max_connections: u16) -> Self {
        Self {
            max_connections,
            ..self
        }
    }

    /// Any further server setting; wins over those made here.
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How clients prove who they are.
#[derive(Clone, Debug)]
pub(crate) enum Auth {
    /// SCRAM-SHA-256, for user `app` with this password; the superuser gets in over the Unix socket only.
    Scram {
        /// `app`'s password.
        password: String,
    },
    /// Not at all.
    Trust,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Sessions are told, open transactions rolled back, data written.
    Fast,
    /// As in a crash: recovery runs at the next start.
    Immediate,
}

/// Polls `condition` until it holds.
///
/// # Panics
///
/// When it does not hold within 60 s; the message says `what` was waited for.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited for {DEADLINE:?} in vain until {what}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

/// Makes an empty database cluster that the servers' user owns.
fn init_data(server: Server, watchdog: &Watchdog) {
    let mut initdb = server_command(&server.binaries().join("initdb"), watchdog.folder());
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-locale",
        "--no-sync",
        "--pgdata",
    ]);
    let output = initdb.arg(watchdog.data()).output().expect("run initdb");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Why [`boot`] did not work.
enum NotStarted {
    /// With what it logged.
    Other(String),
    PortTaken,
}

/// Starts the server's main process and waits until it takes connections.
fn boot(server: Server, port: u16, watchdog: &Watchdog) -> Result<Child, NotStarted> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(watchdog.log())
        .expect("open the server's log");
    let logged_before = log.metadata().expect("the log's length").len();
    let mut command = server_command(&server.binaries().join("postgres"), watchdog.folder());
    command
        .arg("-D")
        .arg(watchdog.data())
        .args(["-p", &port.to_string(), "-k"])
        .arg(watchdog.folder());
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share the log"))
        .stderr(log);
    // A Ctrl-C is for the test process alone; what follows from it is the watchdog's job.
    let mut postmaster = command.process_group(0).spawn().expect("run postgres");

    let deadline = Instant::now() + DEADLINE;
    loop {
        let ended = postmaster.try_wait().expect("ask for the server").is_some();
        if !ended && takes_connections(&postmaster, watchdog) {
            return Ok(postmaster);
        }
        if ended || Instant::now() > deadline {
            let _ = postmaster.kill();
            let _ = postmaster.wait();
            let bytes = fs::read(watchdog.log()).unwrap_or_default();
            let start = usize::try_from(logged_before).map_or(0, |start| start.min(bytes.len()));
            let log = String::from_utf8_lossy(&bytes[start..]).into_owned();
            let port_taken = log.contains("could not bind IPv4 address");
            return Err(if port_taken {
                NotStarted::PortTaken
            } else {
                NotStarted::Other(log)
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The main process keeps its state in line 8 of its lock file; a leftover of a crash has another process id.
fn takes_connections(postmaster: &Child, watchdog: &Watchdog) -> bool {
    let text = fs::read_to_string(watchdog.data().join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&postmaster.id().to_string().as_str()) && lines.get(7) == Some(&"ready")
}

/// std has no safe call for it; the shell has.
fn send_signal(signal: &str, pid: u32) {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{signal} {pid}"))
        .status()
        .expect("run sh");
    assert!(status.success(), "no process {pid} to signal");
}

/// A DSN value in quotes.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Rewrites an existing file; its owner stays.
fn write_in_place(path: &Path, text: &str) {
    let mut file = File::create(path).expect("open a file of the server");
    file.write_all(text.as_bytes()).expect("write a file of the server");
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .open(path)
        .expect("open a file of the server");
    file.write_all(text.as_bytes()).expect("write a file of the server");
}

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Nothing here outlives the test, so nothing is synced to disk; standbys find all WAL they need on the primary.
const CONFIGURATION: &str = "
listen_addresses = '127.0.0.1'
fsync = off
wal_level = replica
hot_standby = on
max_wal_senders = 10
wal_keep_size = '512MB'
shared_buffers = '32MB'
";

const SCRAM_HBA: &str = "
local replication postgres trust
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
";

const TRUST_HBA: &str = "
local replication postgres trust
local all all trust
host all all 127.0.0.1/32 trust
";
