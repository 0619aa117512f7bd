//! A throwaway PgBouncer in front of a [`Cluster`]: started on a port of its own, stopped and removed on drop.
//!
//! Below the tests of poolers, beside `cluster.rs`, whose watchdog and user it shares. The program is Debian's, in
//! `/usr/sbin`, or what `GDBPOOL_PGBOUNCER` names.

use std::env;
use std::fs::{self, OpenOptions};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::server::{give_to_server, server_command, try_psql_at};
use super::watchdog::Watchdog;
use super::{Cluster, DEADLINE, POLL_INTERVAL, eventually, free_port, send_signal};

/// One running PgBouncer.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    port: u16,
    process: Mutex<Option<Child>>,
    watchdog: Watchdog,
}

impl PgBouncer {
    /// Starts one that leads to all databases of `cluster`, with these settings and one server connection for each database
    /// and user unless they say otherwise.
    ///
    /// # Panics
    /// When there is no PgBouncer, or it does not start.
    pub(crate) fn start(cluster: &Cluster, settings: &[(&str, &str)]) -> Self {
        let watchdog = Watchdog::start();
        let data = watchdog.data();
        fs::create_dir(&data).expect("make a folder");
        give_to_server(&data).expect("hand a folder to the servers' user");
        for _ in 0..20 {
            let port = free_port();
            let text = configuration(cluster, &watchdog, port, settings);
            for (name, text) in [("pgbouncer.ini", text.as_str()), ("users", USERS)] {
                fs::write(data.join(name), text).expect("write a file of PgBouncer");
                give_to_server(&data.join(name)).expect("hand a file to the servers' user");
            }
            if let Some(process) = boot(&watchdog, port) {
                return Self {
                    port,
                    process: Mutex::new(Some(process)),
                    watchdog,
                };
            }
        }
        panic!("PgBouncer did not start:\n{}", log(&watchdog));
    }

    /// Whether the program follows prepared statements over its server connections: 1.21 and later.
    pub(crate) fn tracks_statements() -> bool {
        let output = Command::new(program())
            .arg("--version")
            .output()
            .expect("run pgbouncer");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text
            .lines()
            .next()
            .and_then(|line| line.rsplit(' ').next())
            .unwrap_or_default();
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
        (numbers.next(), numbers.next()) >= (Some(1), Some(21))
    }

    /// A DSN through it, as the superuser.
    pub(crate) fn dsn_to(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port)
    }

    /// Runs SQL with `psql` through it, as one message.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        try_psql_at(&self.dsn_to(database), sql)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        log(&self.watchdog)
    }

    /// Ends it without a word to anybody, and waits until it is gone.
    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let mut process = process.take().expect("a running PgBouncer");
        send_signal("KILL", process.id());
        eventually("PgBouncer is gone", || {
            process.try_wait().expect("ask for the process").is_some()
        });
    }

    /// Starts it again on the same port.
    pub(crate) fn start_again(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(process.is_none(), "PgBouncer is running already");
        // The port may be in somebody's hands for a moment, and so may be the socket that a killed one left.
        let _ = fs::remove_file(self.watchdog.data().join("postmaster.pid"));
        eventually("PgBouncer has its port again", || {
            *process = boot(&self.watchdog, self.port);
            process.is_some()
        });
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.watchdog.finish();
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = process.take() {
            let _ = process.wait();
        }
    }
}

/// The watchdog looks for the lock file of a PostgreSQL server: PgBouncer's has that name.
fn configuration(cluster: &Cluster, watchdog: &Watchdog, port: u16, settings: &[(&str, &str)]) -> String {
    let (folder, data) = (watchdog.folder().display().to_string(), watchdog.data());
    let mut text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir = {folder}\nauth_type = trust\nauth_file = {users}\nlogfile = {log}\npidfile = {pid}\n\
         admin_users = postgres\nmax_client_conn = 300\nquery_wait_timeout = 40\nserver_login_retry = 0\n\
         ",
        cluster.socket_dir().display(),
        cluster.port(),
        users = data.join("users").display(),
        log = watchdog.log().display(),
        pid = data.join("postmaster.pid").display(),
    );
    let has_size = settings.iter().any(|(name, _)| *name == "default_pool_size");
    let one = (!has_size).then_some(("default_pool_size", "1"));
    for (name, value) in settings.iter().copied().chain(one) {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

/// `None` when it ended at once, as it does when its port is taken.
fn boot(watchdog: &Watchdog, port: u16) -> Option<Child> {
    let mut command = server_command(&program(), watchdog.folder());
    command.arg(watchdog.data().join("pgbouncer.ini"));
    let log = OpenOptions::new().create(true).append(true).open(watchdog.log());
    let log = log.expect("open PgBouncer's log");
    give_to_server(&watchdog.log()).expect("hand the log to the servers' user");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut process = command.process_group(0).spawn().expect("run pgbouncer");
    let deadline = std::time::Instant::now() + DEADLINE;
    while process.try_wait().expect("ask for the process").is_none() {
        let lock = fs::read_to_string(watchdog.data().join("postmaster.pid")).unwrap_or_default();
        if lock.trim() == process.id().to_string() && TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(process);
        }
        if std::time::Instant::now() > deadline {
            let _ = process.kill();
        }
        thread::sleep(POLL_INTERVAL);
    }
    None
}

fn program() -> PathBuf {
    let named = env::var_os("GDBPOOL_PGBOUNCER").map(PathBuf::from);
    let program = named.unwrap_or_else(|| PathBuf::from("/usr/sbin/pgbouncer"));
    assert!(
        program.is_file(),
        "no PgBouncer: run `sh tests/run.sh --setup`, or set GDBPOOL_PGBOUNCER to the program"
    );
    program
}

fn log(watchdog: &Watchdog) -> String {
    String::from_utf8_lossy(&fs::read(watchdog.log()).unwrap_or_default()).into_owned()
}

const USERS: &str = "\"postgres\" \"\"\n\"app\" \"\"\n";
