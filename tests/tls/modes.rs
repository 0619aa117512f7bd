//! When a connection is encrypted: the weak modes and their other way, and negotiation with and without asking.

use std::time::Duration;

use gdbpool::PoolConfig;
use gdbpool_sim::wire::Backend;

use super::pki::Pki;
use super::relay::{Relay, has};
use super::runtimes::until;
use super::support::Server;
use super::world::{SECRET, connect, dsn, is_encrypted, on_each_server};

#[test]
fn the_weak_modes_go_the_other_way_where_the_server_wants_it() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            // What comes of each mode: for a user of both ways, of TLS only, of plaintext only.
            for (mode, expected) in [
                ("disable", [Some(false), None, Some(false)]),
                ("allow", [Some(false), Some(true), Some(false)]),
                ("prefer", [Some(true), Some(true), Some(false)]),
                ("require", [Some(true), Some(true), None]),
            ] {
                for (user, expected) in ["postgres", "only_tls", "only_plain"].iter().zip(expected) {
                    let dsn = dsn("localhost", cluster.port(), &format!("user={user} sslmode={mode}"));
                    let result = is_encrypted(&runtime, &dsn).await;
                    assert_eq!(result.clone().ok(), expected, "{user} by {mode}: {result:?}");
                    if let Err(text) = result {
                        assert!(text.contains("pg_hba.conf"), "{text}");
                    }
                }
            }
        })
    });
}

/// Both ways were in vain: both are told, and a password that is wrong one way is not tried for ever.
#[test]
fn both_refusals_are_told() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            for mode in ["allow", "prefer"] {
                let rest = format!("user=app password=wrong sslmode={mode}");
                let text = is_encrypted(&runtime, &dsn("localhost", cluster.port(), &rest)).await;
                let text = text.expect_err("refused");
                assert!(text.contains("2 attempts failed"), "{text}");
                assert_eq!(text.matches("password authentication failed").count(), 2 + 1, "{text}");
            }
        })
    });
}

/// Under `prefer` a certificate that is not good enough for the roots given is one more reason to go without.
#[test]
fn to_prefer_is_not_to_require() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            let rest = format!(
                "user=postgres sslmode=prefer sslrootcert={}",
                Pki::get().of("false_ca.crt")
            );
            let result = is_encrypted(&runtime, &dsn("localhost", cluster.port(), &rest)).await;
            assert_eq!(result, Ok(false));
        })
    });
}

/// Servers before 17 take a handshake for a start-up packet that makes no sense, and hang up.
#[test]
fn a_server_can_be_spoken_to_directly_from_17_on() {
    on_each_server(|runtime, cluster, server| {
        Box::pin(async move {
            let root = Pki::get().of("ca.crt");
            let rest = format!("user=postgres sslmode=verify-full sslrootcert={root} sslnegotiation=direct");
            let result = is_encrypted(&runtime, &dsn("localhost", cluster.port(), &rest)).await;
            match server {
                Server::V18 => assert_eq!(result, Ok(true)),
                Server::V15 => assert!(result.expect_err("refused").contains("the TLS handshake failed")),
            }
        })
    });
}

/// What crosses the wire of an encrypted session: no password, no statement, no cancel request.
#[test]
fn nothing_is_said_in_the_clear() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            for (mode, is_open) in [("require", false), ("disable", true)] {
                let relay = Relay::to(cluster.port());
                let rest = format!("user=clear password={SECRET} sslmode={mode}");
                let config = PoolConfig::new("p", &dsn("localhost", relay.port(), &rest)).expect("a sound DSN");
                let (pool, lease) = connect(&runtime, config).await;
                let lease = lease.expect("a lease");
                let mut working = Box::pin(async move { lease.query("SELECT 1, pg_sleep(600)", &[]).await.map(drop) });
                assert!(futures::poll!(&mut working).is_pending());
                let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT 1, pg_sleep%' AND \
                                wait_event = 'PgSleep'";
                let done = until(&*runtime, "it sleeps", || cluster.psql(sleeping) == "1");
                futures::pin_mut!(done);
                drop(futures::future::select(&mut working, done).await);
                drop(working);
                // The cancel request stops it, and the session is good for more.
                pool.checkout()
                    .await
                    .expect("a lease")
                    .query_one("SELECT 2", &[])
                    .await
                    .expect("a row");
                assert_eq!(pool.status().connects, 1, "{}", pool.status());
                pool.close(Duration::from_secs(5)).await;
                let sent = relay.sent();
                assert!(sent.len() >= 2, "a session and a cancel request");
                let cancel: Vec<&Vec<u8>> = sent
                    .iter()
                    .filter(|bytes| has(bytes, &80_877_102_u32.to_be_bytes()))
                    .collect();
                assert_eq!(!cancel.is_empty(), is_open);
                for words in [SECRET, "pg_sleep", "clear"] {
                    assert_eq!(
                        sent.iter().any(|bytes| has(bytes, words.as_bytes())),
                        is_open,
                        "{words} by {mode}"
                    );
                }
                // Every connection of an encrypted session asks for TLS first.
                let asks = |bytes: &Vec<u8>| bytes.starts_with(&[0, 0, 0, 8, 4, 210, 22, 47]);
                assert_eq!(sent.iter().all(asks), !is_open);
            }
        })
    });
}

/// In the handshake a host's name is there to be read, unless it is not to be; an address never is.
#[test]
fn the_hosts_name_is_told_if_it_may_be() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            for (host, rest, is_told) in [
                ("localhost", "", true),
                ("localhost", "sslsni=1", true),
                ("localhost", "sslsni=0", false),
                ("127.0.0.1", "", false),
            ] {
                let relay = Relay::to(cluster.port());
                let rest = format!("user=postgres sslmode=require {rest}");
                let result = is_encrypted(&runtime, &dsn(host, relay.port(), &rest)).await;
                assert_eq!(result, Ok(true), "{host} {rest}");
                let sent = relay.sent().concat();
                assert_eq!(has(&sent, host.as_bytes()), is_told, "{host} {rest}");
                assert!(has(&sent, b"postgresql"), "the protocol's name is");
            }
        })
    });
}

/// Speaking directly, only a server that says what it is will do.
#[test]
fn directly_means_with_its_name() {
    on_each_server(|runtime, _, _| {
        Box::pin(async move {
            for (alpn, is_heard) in [(&b""[..], false), (b"http/1.1", false), (b"postgresql", true)] {
                let port = super::relay::tls_server(alpn, {
                    let mut bytes = Vec::new();
                    let report = gdbpool_sim::wire::Report::fatal("28000", "who are you");
                    Backend::ErrorResponse(report).encode(&mut bytes);
                    bytes
                });
                let rest = "user=postgres sslmode=require sslnegotiation=direct";
                let text = is_encrypted(&runtime, &dsn("localhost", port, rest))
                    .await
                    .expect_err("refused");
                assert_eq!(text.contains("who are you"), is_heard, "{text}");
            }
        })
    });
}
