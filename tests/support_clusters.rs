//! The tests' own support, proved: clusters stream, restart, get promoted and leave nothing behind; the proxy misbehaves
//! exactly as told.
#![expect(clippy::disallowed_methods, reason = "waits for real processes, on threads")]

mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use self::support::{
    Auth, Cluster, ClusterOptions, Mode, Pair, Proxy, Server, eventually, fresh_database, shared_cluster, try_psql_at,
};

#[test]
fn streams_and_promotes_on_15() {
    streams_and_promotes(Server::V15);
}

#[test]
fn streams_and_promotes_on_18() {
    let primary = streams_and_promotes(Server::V18);
    assert_eq!(primary.version() / 10_000, 18);
}

fn streams_and_promotes(server: Server) -> Cluster {
    let Pair { primary, standby } = Pair::start(server);
    assert!(primary.version() >= 150_000);
    primary.psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    standby.catch_up(&primary);
    assert_eq!(standby.psql("SELECT count(*) FROM t"), "1000");
    assert_eq!(primary.psql("SELECT pg_is_in_recovery()"), "f");
    assert_eq!(standby.psql("SELECT pg_is_in_recovery()"), "t");
    let refused = standby
        .try_psql("postgres", "DELETE FROM t")
        .expect_err("a standby is read-only");
    assert!(refused.contains("read-only"), "{refused}");

    standby.promote();
    standby.psql("DELETE FROM t");
    assert_eq!(primary.psql("SELECT count(*) FROM t"), "1000");
    primary
}

#[test]
fn restarts_on_15() {
    restarts(Server::V15);
}

#[test]
fn restarts_on_18() {
    restarts(Server::V18);
}

fn restarts(server: Server) {
    let Pair { primary, standby } = Pair::start(server);
    let (port, first) = (primary.port(), primary.pid());
    primary.psql("CREATE TABLE t (id int)");
    primary.restart();
    assert_eq!(primary.port(), port);
    assert_ne!(primary.pid(), first);

    primary.stop(Mode::Immediate);
    assert!(primary.pid().is_none());
    primary
        .try_psql("postgres", "SELECT 1")
        .expect_err("the server is stopped");
    primary.start_again();

    primary.psql("INSERT INTO t VALUES (1)");
    standby.catch_up(&primary);
    assert_eq!(standby.psql("SELECT count(*) FROM t"), "1");
}

#[test]
fn answers_on_every_address() {
    let cluster = Cluster::start(
        ClusterOptions::new(Server::V15)
            .max_connections(23)
            .setting("work_mem", "5MB"),
    );
    for dsn in [
        cluster.dsn(),
        cluster.unix_dsn(),
        cluster.dsn_for("app", "it's \\ ignored"),
    ] {
        assert_eq!(try_psql_at(&dsn, "SHOW max_connections").as_deref(), Ok("23"), "{dsn}");
    }
    assert_eq!(cluster.psql("SHOW work_mem"), "5MB");
}

#[test]
fn asks_for_passwords() {
    let password = "it's \\ a secret".to_owned();
    let options = ClusterOptions::new(Server::V15).auth(Auth::Scram {
        password: password.clone(),
    });
    let cluster = Cluster::start(options);
    let standby = cluster.standby();
    for dsn in [
        cluster.dsn(),
        cluster.unix_dsn(),
        cluster.dsn_for("app", &password),
        standby.dsn(),
    ] {
        assert_eq!(try_psql_at(&dsn, "SELECT current_user").as_deref(), Ok("app"), "{dsn}");
    }
    let refused = try_psql_at(&cluster.dsn_for("app", "wrong"), "SELECT 1").expect_err("a wrong password");
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[test]
fn shares_one_pair_with_a_database_for_each() {
    let pair = shared_cluster(Server::V15);
    assert_eq!(pair.primary.pid(), shared_cluster(Server::V15).primary.pid());
    let (one, other) = (fresh_database(&pair.primary), fresh_database(&pair.primary));
    assert_ne!(one, other);
    for dsn in [one, other] {
        assert_eq!(
            try_psql_at(&dsn, "CREATE TABLE t (); SELECT count(*) FROM t").as_deref(),
            Ok("0")
        );
    }
}

#[test]
fn leaves_nothing_behind() {
    let dropped = Pair::start(Server::V15);
    let left = [Left::of(&dropped.primary), Left::of(&dropped.standby)];
    assert!(left.iter().all(|left| left.server_runs() && left.folder.is_dir()));
    drop(dropped);
    assert!(left.iter().all(Left::is_gone), "{left:?}");
}

#[test]
fn leaves_nothing_behind_after_a_panic() {
    let mut left = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let cluster = Cluster::start(ClusterOptions::new(Server::V15));
        left = Some(Left::of(&cluster));
        panic::resume_unwind(Box::new("a test fails"));
    }));
    assert!(result.is_err());
    assert!(left.is_some_and(|left| left.is_gone()));
}

/// The test runs itself as another process, which is then killed.
#[test]
fn leaves_nothing_behind_after_a_kill() {
    const VARIABLE: &str = "GDBPOOL_TEST_TO_BE_KILLED";
    if env::var_os(VARIABLE).is_some() {
        let cluster = Cluster::start(ClusterOptions::new(Server::V15));
        let left = Left::of(&cluster);
        println!("\nowns {} {}", left.pid, left.folder.display());
        let end = std::io::stdin().read(&mut [0]);
        panic!("the parent should have killed this process: {end:?}");
    }

    let mut command = Command::new(env::current_exe().expect("the path of this test"));
    command
        .args(["--exact", "leaves_nothing_behind_after_a_kill", "--nocapture"])
        .env(VARIABLE, "1");
    let mut owner = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run this test");
    let mut lines = BufReader::new(owner.stdout.take().expect("its output"))
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find(|line| line.starts_with("owns "))
        .expect("a cluster in the other process");
    let (pid, folder) = line["owns ".len()..].split_once(' ').expect("two words");
    let left = Left {
        pid: pid.parse().expect("a process id"),
        folder: PathBuf::from(folder),
    };
    assert!(left.server_runs() && left.folder.is_dir());

    owner.kill().expect("kill the other process");
    owner.wait().expect("the other process ends");
    eventually("the watchdog has cleaned up", || left.is_gone());
}

#[test]
fn proxy_forwards_cuts_and_refuses() {
    let cluster = Cluster::start(ClusterOptions::new(Server::V15));
    let proxy = Proxy::to_port(cluster.port());
    let dsn = cluster.dsn_at(proxy.port());
    assert_eq!(try_psql_at(&dsn, "SELECT 42").as_deref(), Ok("42"));
    assert_eq!(proxy.connections_accepted(), 1);

    let sleeper = {
        let dsn = dsn.clone();
        thread::spawn(move || try_psql_at(&dsn, "SELECT pg_sleep(600)"))
    };
    eventually("the statement runs", || sleeping(&cluster) == 1);
    proxy.cut();
    let error = sleeper
        .join()
        .expect("the thread ends")
        .expect_err("its connection was cut");
    assert!(error.contains("closed the connection unexpectedly"), "{error}");
    assert_eq!(
        try_psql_at(&dsn, "SELECT 1").as_deref(),
        Ok("1"),
        "new connections work after a cut"
    );

    proxy.refuse(true);
    let error = try_psql_at(&dsn, "SELECT 1").expect_err("nobody listens");
    assert!(error.contains("Connection refused"), "{error}");
    proxy.refuse(false);
    assert_eq!(try_psql_at(&dsn, "SELECT 1").as_deref(), Ok("1"));
    assert_eq!(proxy.connections_accepted(), 4);
    eventually("no connection is left", || proxy.connections_open() == 0);

    let port = proxy.port();
    drop(proxy);
    eventually("the proxy is gone", || TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn proxy_holds_back_while_paused() {
    let cluster = Cluster::start(ClusterOptions::new(Server::V15));
    let proxy = Proxy::to_port(cluster.port());
    let dsn = cluster.dsn_at(proxy.port());
    proxy.pause();
    let client = thread::spawn(move || try_psql_at(&dsn, "CREATE TABLE arrived ()"));
    eventually("the client has connected", || proxy.connections_open() == 1);
    assert_eq!(cluster.psql("SELECT to_regclass('arrived') IS NULL"), "t");
    assert!(!client.is_finished());
    proxy.resume();
    client
        .join()
        .expect("the thread ends")
        .expect("the statement gets through");
    assert_eq!(cluster.psql("SELECT to_regclass('arrived') IS NULL"), "f");
}

#[test]
fn proxy_sees_and_delays_cancel_requests() {
    let cluster = Cluster::start(ClusterOptions::new(Server::V15));
    let proxy = Proxy::to_port(cluster.port());
    proxy.delay_cancels(Duration::from_secs(3600));
    let mut cancel = TcpStream::connect(("127.0.0.1", proxy.port())).expect("reach the proxy");
    let mut request = vec![0, 0, 0, 16, 4, 210, 22, 46];
    request.extend([0; 8]);
    cancel.write_all(&request).expect("send a cancel request");
    eventually("the cancel request is seen", || proxy.cancels_seen() == 1);
    assert_eq!(proxy.connections_open(), 1, "it is held back");

    // Others are not delayed, and end it with them.
    assert_eq!(
        try_psql_at(&cluster.dsn_at(proxy.port()), "SELECT 1").as_deref(),
        Ok("1")
    );
    proxy.cut();
    assert_eq!(cancel.read(&mut [0]).expect("an orderly end"), 0);

    proxy.delay_cancels(Duration::ZERO);
    proxy.delay_new_connections(Duration::from_millis(1));
    let mut cancel = TcpStream::connect(("127.0.0.1", proxy.port())).expect("reach the proxy");
    cancel.write_all(&request).expect("send a cancel request");
    let end = cancel.read(&mut [0]);
    assert!(matches!(end, Ok(0)), "the server closes a cancel connection: {end:?}");
    assert_eq!(proxy.cancels_seen(), 2);
}

fn sleeping(cluster: &Cluster) -> usize {
    let count = cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    count.parse().expect("a count")
}

/// What a cluster must not leave behind.
#[derive(Debug)]
struct Left {
    pid: u32,
    folder: PathBuf,
}

impl Left {
    fn of(cluster: &Cluster) -> Self {
        Self {
            pid: cluster.pid().expect("a running server"),
            folder: cluster.socket_dir().to_owned(),
        }
    }

    fn is_gone(&self) -> bool {
        !self.server_runs() && !self.folder.exists()
    }

    /// A zombie that nobody has waited for has an empty command line: it runs no more.
    fn server_runs(&self) -> bool {
        let command_line = fs::read(Path::new("/proc").join(self.pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(&*self.folder.to_string_lossy())
    }
}
