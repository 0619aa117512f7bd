//! Promise: of a list of hosts, the one is taken whose role `target_session_attrs` asks for, by what the server says of itself
//! at each connect.
//!
//! All six values: on a real primary with its standby, and on fake servers of a version that does not report its role.

#[path = "support/fake.rs"]
mod fake;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use gdbpool::{ConnectionPool, Endpoint, Error, PoolConfig, Runtime};
use gdbpool_sim::{Kill, Sim};

use fake::{Fake, Message, Reply, bytes, fatal, one_value, welcome};
use runtimes::{on_each, until};
use support::{Pair, Server, shared_cluster};

/// Each value, with what it takes of a primary and of its standby.
const VALUES: [(&str, bool, bool); 6] = [
    ("any", true, true),
    ("read-write", true, false),
    ("read-only", false, true),
    ("primary", true, false),
    ("standby", false, true),
    ("prefer-standby", false, true),
];

fn all_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, " | {cause}");
        next = cause.source();
    }
    text
}

fn open(runtime: &Arc<dyn Runtime>, dsn: &str) -> ConnectionPool {
    let config = PoolConfig::new("p", dsn).expect("a sound DSN").size(1);
    ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings")
}

// --- Real servers -----------------------------------------------------------------------------------------------------

/// Whether the session that is made is one of a standby, or why none is made.
async fn taken(runtime: &Arc<dyn Runtime>, ports: &[u16], rest: &str) -> Result<bool, String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let dsn = format!(
        "host={hosts} port={} user=postgres dbname=postgres {rest}",
        ports.join(",")
    );
    let pool = open(runtime, &dsn);
    let asking = pool.checkout();
    futures::pin_mut!(asking);
    let failing = until(&**runtime, "it has failed", || pool.last_connect_error().is_some());
    futures::pin_mut!(failing);
    match futures::future::select(asking, failing).await {
        futures::future::Either::Left((lease, _)) => {
            let lease = lease.expect("a lease");
            let row = lease.query_one("SELECT pg_is_in_recovery()", &[]).await.expect("a row");
            Ok(row.get(0))
        }
        futures::future::Either::Right(_) => Err(all_of(&pool.last_connect_error().expect("an error"))),
    }
}

fn on_each_pair(body: fn(Arc<dyn Runtime>, &'static Pair) -> gdbpool::BoxFuture<'static, ()>) {
    for server in [Server::V15, Server::V18] {
        on_each(|runtime| body(runtime, shared_cluster(server)));
    }
}

#[test]
fn each_value_takes_the_first_that_fits() {
    on_each_pair(|runtime, pair| {
        Box::pin(async move {
            let (primary, standby) = (pair.primary.port(), pair.standby.port());
            for (value, takes_primary, takes_standby) in VALUES {
                let rest = format!("target_session_attrs={value}");
                for (ports, first_is_standby) in [([primary, standby], false), ([standby, primary], true)] {
                    let fits_first = if first_is_standby { takes_standby } else { takes_primary };
                    let expected = if fits_first {
                        first_is_standby
                    } else {
                        !first_is_standby
                    };
                    assert_eq!(taken(&runtime, &ports, &rest).await, Ok(expected), "{value}, {ports:?}");
                }
            }
        })
    });
}

#[test]
fn without_one_that_fits_there_is_no_session() {
    on_each_pair(|runtime, pair| {
        Box::pin(async move {
            for (value, takes_primary, takes_standby) in VALUES {
                let rest = format!("target_session_attrs={value}");
                for (cluster, is_standby) in [(&pair.primary, false), (&pair.standby, true)] {
                    let fits = if is_standby { takes_standby } else { takes_primary };
                    // Two of a kind: both are asked, and both are told.
                    let taken = taken(&runtime, &[cluster.port(), cluster.port()], &rest).await;
                    if fits || value == "prefer-standby" {
                        assert_eq!(taken, Ok(is_standby), "{value}");
                        continue;
                    }
                    let text = taken.expect_err("none fits");
                    assert_eq!(text.matches("(target_session_attrs)").count(), 2, "{value}: {text}");
                }
            }
        })
    });
}

/// A session of a primary may be read only all the same, which is what `read-only` and `read-write` ask for.
#[test]
fn read_only_is_what_the_session_is() {
    on_each_pair(|runtime, pair| {
        Box::pin(async move {
            let port = pair.primary.port();
            for (value, fits) in [
                ("read-only", true),
                ("read-write", false),
                ("primary", true),
                ("standby", false),
            ] {
                let rest = format!("options=-cdefault_transaction_read_only=on target_session_attrs={value}");
                assert_eq!(taken(&runtime, &[port], &rest).await.is_ok(), fits, "{value}");
            }
        })
    });
}

/// Sessions that are not wanted are said goodbye to: none stays behind on the server.
#[test]
fn what_is_not_wanted_does_not_stay() {
    on_each_pair(|runtime, pair| {
        Box::pin(async move {
            let ports = [pair.standby.port(), pair.primary.port()];
            let rest = "application_name=unwanted target_session_attrs=primary";
            for _ in 0..5 {
                assert_eq!(taken(&runtime, &ports, rest).await, Ok(false));
            }
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'unwanted'";
            until(&*runtime, "they are gone", || pair.standby.psql(count) == "0").await;
        })
    });
}

// --- Servers that do not report it ------------------------------------------------------------------------------------

const OLD: [(&str, &str); 2] = [("server_version", "13.20"), ("client_encoding", "UTF8")];

/// A server of version 13: it says what it is only when asked.
fn old_server(sim: &Sim, number: u8, is_standby: bool) -> Fake {
    Fake::start(sim, ([10, 0, 0, number], 5432).into(), move |_, message: &Message| {
        if message.asks_for_tls() {
            return Reply::Send(b"N".to_vec());
        }
        if message.is_start_up() {
            return Reply::Send(welcome(&OLD));
        }
        match (message.kind, &message.body[..]) {
            (b'Q', b"SHOW transaction_read_only\0") => Reply::Send(one_value(
                "transaction_read_only",
                if is_standby { "on" } else { "off" },
            )),
            (b'Q', b"SELECT pg_catalog.pg_is_in_recovery()\0") => {
                Reply::Send(one_value("pg_is_in_recovery", if is_standby { "t" } else { "f" }))
            }
            _ => Reply::Last(Vec::new()),
        }
    })
}

fn dsn(rest: &str) -> String {
    format!("host=10.0.0.1,10.0.0.2 port=5432,5432 user=app dbname=shop {rest}")
}

#[test]
fn a_server_that_does_not_report_it_is_asked() {
    for (value, takes_primary, takes_standby) in VALUES {
        for first_is_standby in [false, true] {
            let sim = Sim::new(1);
            let fakes = [
                old_server(&sim, 1, first_is_standby),
                old_server(&sim, 2, !first_is_standby),
            ];
            let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
            let pool = open(&runtime, &dsn(&format!("target_session_attrs={value}")));
            let lease = sim.block_on(pool.checkout()).expect("a lease");
            let fits_first = if first_is_standby { takes_standby } else { takes_primary };
            let expected = Endpoint::Tcp(([10, 0, 0, if fits_first { 1 } else { 2 }], 5432).into());
            assert_eq!(*lease.endpoint(), expected, "{value}");
            let asked: Vec<u8> = fakes.iter().flat_map(Fake::received).flatten().collect();
            let question: &[u8] = match value {
                "read-only" | "read-write" => b"SHOW transaction_read_only\0",
                "any" => b"user",
                _ => b"SELECT pg_catalog.pg_is_in_recovery()\0",
            };
            assert!(asked.windows(question.len()).any(|part| part == question), "{value}");
        }
    }
}

#[test]
fn with_no_standby_a_preference_is_none() {
    let sim = Sim::new(2);
    let _fakes = [old_server(&sim, 1, false), old_server(&sim, 2, false)];
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let pool = open(&runtime, &dsn("target_session_attrs=prefer-standby"));
    let lease = sim.block_on(pool.checkout()).expect("a lease");
    assert_eq!(*lease.endpoint(), Endpoint::Tcp(([10, 0, 0, 1], 5432).into()));
    // Both were asked before, and the first was not asked again.
    assert_eq!(sim.connect_attempts(lease.endpoint()).len(), 2);
}

/// Who cannot say what it is is passed by.
#[test]
fn a_question_without_an_answer_is_no() {
    for answer in [
        fatal("57P01", "terminating connection due to administrator command"),
        bytes(&[
            gdbpool_sim::wire::Backend::ErrorResponse(gdbpool_sim::wire::Report::error("42883", "no such function")),
            gdbpool_sim::wire::Backend::ReadyForQuery(b'I'),
        ]),
    ] {
        let sim = Sim::new(3);
        let _mute = Fake::start(&sim, ([10, 0, 0, 1], 5432).into(), move |_, message| {
            match message.kind {
                0 if message.asks_for_tls() => Reply::Send(b"N".to_vec()),
                0 => Reply::Send(welcome(&OLD)),
                b'Q' => Reply::Send(answer.clone()),
                _ => Reply::Last(Vec::new()),
            }
        });
        let _other = old_server(&sim, 2, false);
        let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
        let pool = open(&runtime, &dsn("target_session_attrs=primary"));
        let lease = sim.block_on(pool.checkout()).expect("a lease");
        assert_eq!(*lease.endpoint(), Endpoint::Tcp(([10, 0, 0, 2], 5432).into()));
    }
}

// --- Roles change -----------------------------------------------------------------------------------------------------

/// Nothing is remembered of a host's role: after a failover the next session is made with the new primary.
#[test]
fn each_connect_looks_anew() {
    let sim = Sim::new(4);
    let servers = [scripted::server(&sim, 1), scripted::server(&sim, 2)];
    servers[1].set_parameter("in_hot_standby", "on");
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let pool = open(&runtime, &dsn("target_session_attrs=read-write"));
    for (primary, standby) in [(0, 1), (1, 0), (0, 1)] {
        servers[primary].set_parameter("in_hot_standby", "off");
        servers[standby].set_parameter("in_hot_standby", "on");
        servers[standby]
            .sessions()
            .iter()
            .filter(|session| !session.closed)
            .for_each(|session| {
                servers[standby].kill_session(session.ordinal, Kill::Fatal);
            });
        sim.advance(Duration::from_secs(1));
        let lease = sim.block_on(pool.checkout()).expect("a lease");
        assert_eq!(*lease.endpoint(), servers[primary].endpoint());
    }
}
