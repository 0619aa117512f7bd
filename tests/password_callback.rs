//! Promise: a pool asks for the password at each dial, so that it can rotate; where that fails there is a connect error with
//! the function's own error in it, and the password shows nowhere.

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::error::Error as _;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use gdbpool::{BoxFuture, ConnectionPool, Error, Outcome, PasswordRequest, PoolConfig, PoolEvent, Runtime};

use runtimes::{on_each, until};
use support::{Auth, Cluster, ClusterOptions, Server};

/// Part of every password here.
const SECRET: &str = "hunter2";

fn on_each_server(body: fn(Arc<dyn Runtime>, Arc<Cluster>) -> BoxFuture<'static, ()>) {
    for server in [Server::V15, Server::V18] {
        let password = format!("{SECRET} the first");
        let cluster = Arc::new(Cluster::start(
            ClusterOptions::new(server).auth(Auth::Scram { password }),
        ));
        on_each(|runtime| body(runtime, Arc::clone(&cluster)));
    }
}

/// A pool on the cluster; its connection string has a password that is not the server's.
fn config(cluster: &Cluster) -> PoolConfig {
    let dsn = cluster.dsn_for("app", "not this one");
    PoolConfig::new("main", &dsn).expect("a sound DSN").size(2)
}

fn open(runtime: &Arc<dyn Runtime>, config: PoolConfig) -> ConnectionPool {
    ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings")
}

fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, " {cause} {cause:?}");
        next = cause.source();
    }
    text
}

/// The server's password changes again and again; every dial gets the one of its time.
#[test]
fn it_is_asked_for_at_each_dial() {
    on_each_server(|runtime, cluster| {
        Box::pin(async move {
            let token = Arc::new(Mutex::new(String::new()));
            let asked: Arc<Mutex<Vec<PasswordRequest>>> = Arc::default();
            let (given, noted) = (Arc::clone(&token), Arc::clone(&asked));
            let config = config(&cluster).password_from(move |request| {
                noted.lock().expect("no panic").push(request);
                let token = given.lock().expect("no panic").clone();
                async move { Ok::<_, Error>(token) }
            });
            assert!(!format!("{config:?}").contains(SECRET));
            let rotate = |round: u32| {
                let next = format!("{SECRET} of round {round}");
                cluster.psql(&format!("ALTER ROLE app PASSWORD '{next}'"));
                *token.lock().expect("no panic") = next;
            };
            rotate(0);
            let pool = open(&runtime, config);
            let mut kept = pool.checkout().await.expect("the first token is good");
            for round in 1..4 {
                rotate(round);
                let lease = pool.checkout().await.expect("so is the next");
                kept.query_one("SELECT 1", &[]).await.expect("an old session stays");
                std::mem::replace(&mut kept, lease).discard();
            }
            drop(kept);
            let requests = std::mem::take(&mut *asked.lock().expect("no panic"));
            assert_eq!(requests.len() as u64, pool.status().dials, "once per dial");
            for request in requests {
                assert_eq!((&*request.pool, &*request.user), ("main", "app"));
                assert_eq!((&*request.host, request.port), ("127.0.0.1", cluster.port()));
                assert_eq!(request.dbname.as_deref(), Some("postgres"));
            }
            pool.close(Duration::from_secs(20)).await;
        })
    });
}

/// A stale token is refused by the server, and the pool goes on when a good one comes.
#[test]
fn a_stale_password_is_refused_and_replaced() {
    on_each_server(|runtime, cluster| {
        Box::pin(async move {
            cluster.psql(&format!("ALTER ROLE app PASSWORD '{SECRET} now'"));
            let token = Arc::new(Mutex::new(format!("{SECRET} of yesterday")));
            let given = Arc::clone(&token);
            let config = config(&cluster).connect_backoff(Duration::from_millis(1), Duration::from_millis(20));
            let pool = open(
                &runtime,
                config.password_from(move |_| {
                    let token = given.lock().expect("no panic").clone();
                    async move { Ok::<_, Error>(token) }
                }),
            );
            let mut events = pool.events();
            let waiter = pool.checkout();
            let change = async {
                until(&*runtime, "it is refused", || pool.last_connect_error().is_some()).await;
                let error = pool.last_connect_error().expect("a connect error");
                *token.lock().expect("no panic") = format!("{SECRET} now");
                error
            };
            let (lease, error) = futures::join!(waiter, change);
            drop(lease.expect("the new one is good"));
            assert_eq!(error.sqlstate().map(|state| state.code()), Some("28P01"));
            let all = all_of(&error);
            assert!(!all.contains(SECRET), "{all}");
            let Some(event @ PoolEvent::ConnectFailed { .. }) = events.next().await else {
                panic!("no event of the failure")
            };
            let text = format!("{event} {event:?}");
            assert!(!text.contains(SECRET), "{text}");
            pool.close(Duration::from_secs(20)).await;
        })
    });
}

#[test]
fn its_failure_is_a_connect_error() {
    on_each_server(|runtime, cluster| {
        Box::pin(async move {
            let fails = config(&cluster).password_from(|_| async { Err("the vault is sealed") });
            let panics = config(&cluster).password_from(|request: PasswordRequest| async move {
                if request.user == "app" {
                    panic!("the vault is gone");
                }
                Ok::<_, Error>(String::new())
            });
            let hangs = config(&cluster)
                .connect_timeout(Duration::from_millis(50))
                .password_from(|_| std::future::pending::<Result<String, Error>>());
            for (config, kind, says) in [
                (fails, "Connect", "the vault is sealed"),
                (panics, "Connect", "the function panicked"),
                (hangs, "Timeout", "while connecting"),
            ] {
                let pool = open(&runtime, config.min_size(1));
                until(&*runtime, "the connect fails", || pool.last_connect_error().is_some()).await;
                let error = pool.last_connect_error().expect("a connect error");
                assert_eq!(format!("{:?}", error.kind()), kind);
                assert_eq!(error.outcome(), Outcome::NotExecuted);
                let all = all_of(&error);
                assert!(all.contains(says), "{all}");
                pool.close(Duration::from_secs(20)).await;
            }
        })
    });
}
