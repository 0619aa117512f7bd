//! Promise: what `require_auth` forbids does not happen: a server that asks for it gets no answer, above all no password.
//!
//! Real servers with each way of authentication, and fake ones that keep every byte they were sent.

#[path = "support/fake.rs"]
mod fake;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::error::Error as _;
use std::fmt::Write as _;
use std::fs;
use std::sync::{Arc, OnceLock};

use gdbpool::{ConnectionPool, Error, PoolConfig, Runtime};
use gdbpool_sim::Sim;
use gdbpool_sim::wire::Backend;

use fake::{Fake, Reply, bytes, fatal, welcome};
use runtimes::{on_each, until};
use support::{Cluster, ClusterOptions, Server};

const SECRET: &str = "hunter2";

/// Every kind of list, with which of no question, password, MD5 and SCRAM it allows.
const LISTS: [(&str, [bool; 4]); 11] = [
    ("", [true, true, true, true]),
    ("none", [true, false, false, false]),
    ("password", [false, true, false, false]),
    ("md5", [false, false, true, false]),
    ("scram-sha-256", [false, false, false, true]),
    ("md5,scram-sha-256", [false, false, true, true]),
    ("none,scram-sha-256", [true, false, false, true]),
    ("!none", [false, true, true, true]),
    ("!password", [true, false, true, true]),
    ("!password,!md5", [true, false, false, true]),
    ("!password,!md5,!none", [false, false, false, true]),
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

fn with(list: &str) -> String {
    if list.is_empty() {
        String::new()
    } else {
        format!("require_auth={list}")
    }
}

// --- Real servers -----------------------------------------------------------------------------------------------------

/// A server on which the user's name says how it is let in.
fn cluster(server: Server) -> &'static Cluster {
    static V15: OnceLock<Cluster> = OnceLock::new();
    static V18: OnceLock<Cluster> = OnceLock::new();
    let cluster = match server {
        Server::V15 => &V15,
        Server::V18 => &V18,
    };
    cluster.get_or_init(|| {
        let cluster = Cluster::start(ClusterOptions::new(server));
        cluster.psql(&format!(
            "SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD '{SECRET}'; \
             SET password_encryption = 'scram-sha-256'; CREATE ROLE clear LOGIN PASSWORD '{SECRET}'; \
             CREATE ROLE scram LOGIN PASSWORD '{SECRET}'; CREATE ROLE trusted LOGIN PASSWORD '{SECRET}'"
        ));
        let mut hba = String::from("local all postgres trust\n");
        for (user, method) in [
            ("clear", "password"),
            ("md5", "md5"),
            ("scram", "scram-sha-256"),
            ("trusted", "trust"),
        ] {
            let _ = writeln!(hba, "host all {user} 127.0.0.1/32 {method}");
        }
        fs::write(cluster.psql("SHOW hba_file"), hba).expect("write pg_hba.conf");
        cluster.psql("SELECT pg_reload_conf()");
        support::eventually("the server has read it", || {
            cluster.psql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NULL AND user_name <> '{all}'") == "5"
        });
        cluster
    })
}

async fn connects(runtime: &Arc<dyn Runtime>, dsn: &str) -> Result<(), String> {
    let pool = open(runtime, dsn);
    let asking = pool.checkout();
    futures::pin_mut!(asking);
    let failing = until(&**runtime, "it has failed", || pool.last_connect_error().is_some());
    futures::pin_mut!(failing);
    match futures::future::select(asking, failing).await {
        futures::future::Either::Left((lease, _)) => lease.map(drop).map_err(|error| all_of(&error)),
        futures::future::Either::Right(_) => Err(all_of(&pool.last_connect_error().expect("an error"))),
    }
}

#[test]
fn each_list_allows_what_it_says() {
    for server in [Server::V15, Server::V18] {
        let cluster = cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                for (list, allows) in LISTS {
                    for (user, allows) in ["trusted", "clear", "md5", "scram"].iter().zip(allows) {
                        let dsn = format!("{} {}", cluster.dsn_for(user, SECRET), with(list));
                        let result = connects(&runtime, &dsn).await;
                        assert_eq!(result.is_ok(), allows, "{list:?} of {user}: {result:?}");
                        if let Err(text) = result {
                            assert!(text.contains("require_auth: the server"), "{text}");
                            assert!(!text.contains(SECRET), "{text}");
                        }
                    }
                }
            })
        });
    }
}

// --- Fake servers -----------------------------------------------------------------------------------------------------

/// What a server does at the start-up.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Nothing,
    Clear,
    Md5,
    /// SCRAM, as far as this many messages, then "you are in".
    Scram(usize),
}

fn request(asks: Asks) -> Vec<u8> {
    match asks {
        Asks::Nothing | Asks::Scram(0) => welcome(&[]),
        Asks::Clear => bytes(&[Backend::AuthenticationCleartextPassword]),
        Asks::Md5 => bytes(&[Backend::AuthenticationMd5Password(*b"salt")]),
        Asks::Scram(_) => bytes(&[Backend::AuthenticationSasl(vec!["SCRAM-SHA-256"])]),
    }
}

/// A server that lets everybody in, after it has asked; gives what it was sent.
fn run(asks: Asks, list: &str) -> (bool, Vec<u8>) {
    let sim = Sim::new(1);
    let fake = Fake::start(&sim, ([10, 0, 0, 1], 5432).into(), move |_, message| {
        match message.kind {
            0 if message.asks_for_tls() => Reply::Send(b"N".to_vec()),
            0 => Reply::Send(request(asks)),
            // The client's nonce with more behind it: a challenge that it answers with its proof.
            b'p' if matches!(asks, Asks::Scram(2)) && message.body.starts_with(b"SCRAM-SHA-256") => {
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let nonce = text.rsplit("r=").next().expect("a nonce");
                let challenge = format!("r={nonce}more,s=c2FsdA==,i=4096");
                Reply::Send(bytes(&[Backend::AuthenticationSaslContinue(challenge.into_bytes())]))
            }
            b'p' => Reply::Send(welcome(&[])),
            _ => Reply::Last(Vec::new()),
        }
    });
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let dsn = format!(
        "host=10.0.0.1 port=5432 sslmode=prefer user=app dbname=shop password={SECRET} {}",
        with(list)
    );
    let pool = open(&runtime, &dsn);
    let mut asking = sim.manual(pool.checkout());
    let _ = asking.settle();
    sim.run_until_idle();
    let received = fake.received().into_iter().flatten().collect();
    (pool.status().connects == 1, received)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_forbidden_password_is_never_on_the_wire() {
    for (list, [none, password, md5, _]) in LISTS {
        let (is_in, received) = run(Asks::Nothing, list);
        assert_eq!(is_in, none, "{list:?}");
        assert!(!has(&received, SECRET.as_bytes()));

        let (is_in, received) = run(Asks::Clear, list);
        assert_eq!(
            (is_in, has(&received, SECRET.as_bytes())),
            (password, password),
            "{list:?}"
        );

        // What is sent for MD5 begins with it.
        let (is_in, received) = run(Asks::Md5, list);
        assert_eq!((is_in, has(&received, b"md5")), (md5, md5), "{list:?}");
        assert!(!has(&received, SECRET.as_bytes()));
    }
}

/// A server that has begun SCRAM proves that it knows the password, or is none of ours, whatever `require_auth` says.
#[test]
fn scram_is_not_over_before_the_server_has_proven_itself() {
    for (list, _) in LISTS {
        for messages in [1, 2] {
            let (is_in, received) = run(Asks::Scram(messages), list);
            assert!(!is_in, "{list:?}, {messages}");
            assert!(!has(&received, SECRET.as_bytes()));
        }
    }
}

/// A server that asks for two things, one after the other, gets neither answer when one of them is forbidden.
#[test]
fn the_second_question_counts_as_well() {
    let sim = Sim::new(2);
    let fake = Fake::start(&sim, ([10, 0, 0, 1], 5432).into(), |_, message| match message.kind {
        0 if message.asks_for_tls() => Reply::Send(b"N".to_vec()),
        0 => Reply::Send(bytes(&[Backend::AuthenticationMd5Password(*b"salt")])),
        b'p' => Reply::Send(bytes(&[Backend::AuthenticationCleartextPassword])),
        _ => Reply::Last(fatal("08P01", "no more")),
    });
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let dsn = format!("host=10.0.0.1 port=5432 sslmode=prefer user=app password={SECRET} require_auth=!password");
    let pool = open(&runtime, &dsn);
    let mut asking = sim.manual(pool.checkout());
    let _ = asking.settle();
    sim.run_until_idle();
    let text = all_of(&pool.last_connect_error().expect("an error"));
    assert!(text.contains("the password in clear text"), "{text}");
    assert!(!has(&fake.received().concat(), SECRET.as_bytes()));
}
