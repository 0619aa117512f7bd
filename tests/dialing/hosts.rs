//! In virtual time, on scripted servers: which host and address is tried when, and what is said of those that failed.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gdbpool::{ConnectionPool, Endpoint, ErrorKind, Instant, Lease, PasswordRequest, PoolConfig};
use gdbpool_sim::{Answer, ConnectMode, Kill, ScriptedServer, Sim, StartUp, Type};

use super::{all_of, scripted};

const SECOND: Duration = Duration::from_secs(1);

fn ip(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::Tcp((ip(number), 5432).into())
}

/// Servers at 10.0.0.1 and on, each known as `dbN`.
fn servers(sim: &Sim, count: u8) -> Vec<ScriptedServer> {
    let start = |number| {
        sim.add_host(&format!("db{number}"), ip(number));
        scripted::server(sim, number)
    };
    (1..=count).map(start).collect()
}

fn config(rest: &str) -> PoolConfig {
    let dsn = format!("user=app dbname=shop password=unused {rest}");
    PoolConfig::new("p", &dsn).expect("a sound DSN").size(1)
}

fn open(sim: &Sim, config: PoolConfig) -> ConnectionPool {
    ConnectionPool::open(Arc::new(sim.runtime()), config).expect("sound settings")
}

fn lease(sim: &Sim, rest: &str) -> (ConnectionPool, Lease) {
    let pool = open(sim, config(rest));
    let lease = sim.block_on(pool.checkout()).expect("a lease");
    (pool, lease)
}

/// The error of the first dial.
fn failure(sim: &Sim, config: PoolConfig) -> (String, bool) {
    let pool = open(sim, config);
    let mut asking = sim.manual(pool.checkout());
    assert!(asking.settle().is_pending());
    while pool.last_connect_error().is_none() {
        sim.advance(Duration::from_millis(1));
    }
    let error = pool.last_connect_error().expect("an error");
    (all_of(&error), matches!(error.kind(), ErrorKind::Timeout))
}

#[test]
fn the_first_host_that_takes_us_is_taken() {
    let sim = Sim::new(1);
    let servers = servers(&sim, 3);
    let (_pool, lease) = lease(&sim, "host=db1,db2,db3");
    assert_eq!(*lease.endpoint(), endpoint(1));
    drop(lease);
    sim.set_connect_mode(&endpoint(1), ConnectMode::Refused);
    servers[0].stop(Kill::Fatal);
    let (_pool, lease) = self::lease(&sim, "host=db1,db2,db3 port=5432,5432,1");
    assert_eq!(*lease.endpoint(), endpoint(2));
    assert!(servers[2].sessions().is_empty());
}

#[test]
fn all_addresses_of_a_name_are_tried_before_the_next_host() {
    let sim = Sim::new(2);
    let servers = servers(&sim, 4);
    for number in [1, 2, 3] {
        sim.add_host("many", ip(number));
    }
    servers[0].stop(Kill::Silent);
    servers[1].stop(Kill::Silent);
    let (_pool, lease) = lease(&sim, "host=many,db4");
    assert_eq!(*lease.endpoint(), endpoint(3));
    for number in [1, 2, 3] {
        assert_eq!(sim.connect_attempts(&endpoint(number)).len(), 1, "{number}");
    }
    assert!(sim.connect_attempts(&endpoint(4)).is_empty());
}

/// A black hole costs `connect_timeout`, wherever it swallows us, and is one failure among others.
#[test]
fn each_address_has_its_connect_timeout() {
    for step in 0..2 {
        let sim = Sim::new(3);
        let servers = servers(&sim, 3);
        match step {
            0 => sim.set_connect_mode(&endpoint(1), ConnectMode::Hang),
            _ => servers[0].set_start_up(StartUp::Hang(gdbpool_sim::StartStep::Requested)),
        }
        servers[1].stop(Kill::Silent);
        let (pool, lease) = lease(&sim, "host=db1,db2,db3 connect_timeout=2");
        assert_eq!(*lease.endpoint(), endpoint(3));
        assert_eq!(sim.now(), Instant::from_nanos(0) + 2 * SECOND, "step {step}");
        assert_eq!(pool.status().connect_failures, 0);
    }
}

#[test]
fn all_failures_are_told_together() {
    let sim = Sim::new(4);
    let servers = servers(&sim, 4);
    sim.set_connect_mode(&endpoint(1), ConnectMode::Hang);
    servers[1].stop(Kill::Silent);
    servers[2].set_start_up(StartUp::Error(
        "57P03".into(),
        "the database system is starting up".into(),
    ));
    sim.hang_host("lost");
    let (text, is_timeout) = failure(&sim, config("host=db1,db2,nowhere,lost,db3 connect_timeout=3"));
    assert!(!is_timeout);
    for part in [
        "5 attempts failed",
        "connect_timeout (3s) passed while connecting to db1:5432 (10.0.0.1:5432)",
        "could not connect to db2:5432 (10.0.0.2:5432): nobody accepts connections",
        "could not look up the host \"nowhere\"",
        "could not look up the host \"lost\": timed out",
        "the server at db3:5432 (10.0.0.3:5432) refused the start-up",
        "the database system is starting up",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("unused"), "{text}");
}

/// What one server says to our credentials is not asked of another; a server that is not ready is passed by.
#[test]
fn only_what_another_host_may_do_better_goes_on() {
    for (start_up, goes_on) in [
        (StartUp::RefusePassword, false),
        (StartUp::Error("3D000".into(), "no such database".into()), false),
        (
            StartUp::Error("53300".into(), "sorry, too many clients already".into()),
            false,
        ),
        (StartUp::Close(gdbpool_sim::StartStep::Requested), false),
        (
            StartUp::Error("57P03".into(), "the database system is shutting down".into()),
            true,
        ),
    ] {
        let sim = Sim::new(5);
        let servers = servers(&sim, 2);
        servers[0].set_start_up(start_up.clone());
        let pool = open(&sim, config("host=db1,db2 sslmode=disable"));
        let mut asking = sim.manual(pool.checkout());
        let _ = asking.settle();
        sim.run_until_idle();
        assert_eq!(servers[1].sessions().len(), usize::from(goes_on), "{start_up:?}");
        assert_eq!(pool.last_connect_error().is_none(), goes_on, "{start_up:?}");
    }
}

#[test]
fn one_deadline_holds_over_all() {
    for per_address in ["", "connect_timeout=2"] {
        let sim = Sim::new(6);
        servers(&sim, 6);
        for number in 1..=6 {
            sim.set_connect_mode(&endpoint(number), ConnectMode::Hang);
        }
        let rest = format!("host=db1,db2,db3,db4,db5,db6 {per_address}");
        let (text, is_timeout) = failure(&sim, config(&rest).connect_timeout(5 * SECOND));
        assert!(is_timeout, "{text}");
        assert_eq!(sim.now(), Instant::from_nanos(0) + 5 * SECOND);
        let last = if per_address.is_empty() { 1 } else { 3 };
        let unfinished = format!("the time was over while connecting to db{last}:5432");
        assert!(text.contains(&unfinished), "{text}");
        let told = text.contains("connect_timeout (2s) passed while connecting to db2:5432");
        assert_eq!(told, !per_address.is_empty(), "{text}");
    }
}

#[test]
fn a_name_that_moves_is_looked_up_again() {
    let sim = Sim::new(7);
    let servers = servers(&sim, 2);
    sim.add_host("db", ip(1));
    let (pool, lease) = lease(&sim, "host=db");
    assert_eq!(*lease.endpoint(), endpoint(1));
    sim.remove_host("db");
    sim.add_host("db", ip(2));
    servers[0].kill_session(0, Kill::Fatal);
    drop(lease);
    let lease = sim.block_on(pool.checkout()).expect("a lease");
    assert_eq!(*lease.endpoint(), endpoint(2));
}

/// Of 300 sessions to three hosts, each gets a third: within six standard deviations (8.2) of 100. The same for the addresses
/// of one name; and without `random`, all go to the first.
#[test]
fn at_random_the_load_is_spread() {
    for (hosts, is_spread) in [
        ("host=db1,db2,db3 load_balance_hosts=random", true),
        ("host=many load_balance_hosts=random", true),
        ("host=db1,db2,db3 load_balance_hosts=disable", false),
        ("host=many port=5432 sslmode=disable", false),
    ] {
        let sim = Sim::new(8);
        let servers = servers(&sim, 3);
        for number in [1, 2, 3] {
            sim.add_host("many", ip(number));
        }
        let pool = open(&sim, config(hosts).size(300).min_size(300));
        sim.block_on(pool.warm_up(60 * SECOND)).expect("300 sessions");
        let counts: Vec<usize> = servers.iter().map(|server| server.sessions().len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 300);
        if is_spread {
            assert!(
                counts.iter().all(|count| (51..=149).contains(count)),
                "{hosts}: {counts:?}"
            );
        } else {
            assert_eq!(counts, [300, 0, 0], "{hosts}");
        }
    }
}

#[test]
fn an_address_to_connect_to_goes_before_the_name() {
    let sim = Sim::new(9);
    let _servers = servers(&sim, 2);
    let (_pool, lease) = lease(&sim, "host=nowhere,nobody hostaddr=10.0.0.9,10.0.0.2");
    assert_eq!(*lease.endpoint(), endpoint(2));
    // It is not looked up, so it is found.
    let (text, _) = failure(&sim, config("host=nowhere hostaddr=10.0.0.9 sslmode=disable"));
    assert!(
        text.contains("could not connect to nowhere:5432 (10.0.0.9:5432)"),
        "{text}"
    );
}

#[test]
fn the_password_is_asked_for_per_host() {
    let sim = Sim::new(10);
    let servers = servers(&sim, 2);
    servers[0].stop(Kill::Silent);
    servers[1].set_start_up(StartUp::Cleartext("of db2".into()));
    let asked: Arc<Mutex<Vec<PasswordRequest>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let config = config("host=db1,db2 port=5432,5432 sslmode=disable").password_from(move |request| {
        let password = format!("of {}", request.host);
        noted.lock().expect("whole").push(request);
        async { Ok::<_, std::io::Error>(password) }
    });
    let pool = open(&sim, config);
    drop(sim.block_on(pool.checkout()).expect("a lease"));
    let asked = asked.lock().expect("whole");
    let hosts: Vec<&str> = asked.iter().map(|request| &*request.host).collect();
    assert_eq!(hosts, ["db1", "db2"]);
    assert!(
        asked
            .iter()
            .all(|request| request.port == 5432 && request.user == "app")
    );
}

#[test]
fn a_cancel_request_goes_to_the_sessions_own_address() {
    let sim = Sim::new(11);
    let servers = servers(&sim, 3);
    sim.add_host("many", ip(1));
    sim.add_host("many", ip(3));
    servers[0].stop(Kill::Silent);
    servers[2].on(
        "SELECT slow()",
        Answer::rows(&[("n", Type::Int4)], vec![]).after(600 * SECOND),
    );
    let (pool, lease) = lease(&sim, "host=many,db2");
    assert_eq!(*lease.endpoint(), endpoint(3));
    // The name leads elsewhere by now, and its first address is alive again.
    servers[0].restart();
    sim.remove_host("many");
    sim.add_host("many", ip(2));
    let mut work = sim.manual(Box::pin(
        async move { lease.query("SELECT slow()", &[]).await.map(drop) },
    ));
    assert!(work.settle().is_pending());
    sim.advance(SECOND);
    drop(work);
    sim.advance(SECOND);
    let cancels: Vec<usize> = servers.iter().map(|server| server.cancels().len()).collect();
    assert_eq!(cancels[..2], [0, 0]);
    assert!(cancels[2] >= 1 && servers[2].cancels()[0].hit);
    assert_eq!(pool.status().connects, 1);
}
