//! Which certificates are good for which `sslmode`, on both sides.

use gdbpool::{BadInput, ErrorKind, PoolConfig};

use super::pki::Pki;
use super::relay::tls_server;
use super::runtimes::on_each;
use super::support::Server;
use super::world::{connect, dsn, is_encrypted, on_each_server, open, turn};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// What is wrong with a certificate is found wherever it is looked for, and only there.
#[test]
fn each_mode_takes_what_it_says() {
    let pki = Pki::get();
    let root = format!("sslrootcert={}", pki.of("ca.crt"));
    let with_crl = |crl: &str| format!("{root} sslcrl={}", pki.of(crl));
    let own = format!("sslrootcert={}", pki.of("self_signed.crt"));
    let (clean, with, old) = (with_crl("crl.pem"), with_crl("crl_with.pem"), with_crl("crl_old.pem"));
    let middle = format!("sslrootcert={}", pki.of("middle.crt"));
    // The certificate, what the client has, and whether require, verify-ca and verify-full take it; with what words if not.
    let cases: [(&str, &str, [bool; 3], &str); 14] = [
        ("good", &root, [true, true, true], ""),
        ("good", &clean, [true, true, true], ""),
        ("other_name", &root, [true, true, false], "db1.example"),
        ("expired", &root, [false, false, false], "expired"),
        ("false", &root, [false, false, false], "UnknownIssuer"),
        ("revoked", &root, [true, true, true], ""),
        ("revoked", &clean, [true, true, true], ""),
        ("revoked", &with, [false, false, false], "Revoked"),
        ("good", &old, [false, false, false], "revocation list expired"),
        ("chained", &root, [true, true, true], ""),
        // Of the authority in the middle there is no list.
        ("chained", &clean, [false, false, false], "UnknownRevocationStatus"),
        ("chained", &middle, [true, true, true], ""),
        ("self_signed", &own, [true, true, true], ""),
        ("self_signed", &root, [false, false, false], ""),
    ];
    for server in SERVERS {
        let turn = turn(server);
        for (certificate, has, takes, words) in cases {
            turn.show(certificate);
            for (mode, takes) in ["require", "verify-ca", "verify-full"].iter().zip(takes) {
                let dsn = dsn(
                    "localhost",
                    turn.cluster.port(),
                    &format!("user=postgres sslmode={mode} {has}"),
                );
                on_each(|runtime| {
                    let dsn = dsn.clone();
                    Box::pin(async move {
                        match is_encrypted(&runtime, &dsn).await {
                            Ok(is_encrypted) => assert!(takes && is_encrypted, "{certificate} under {dsn}"),
                            Err(text) => {
                                assert!(!takes, "{certificate} under {dsn}: {text}");
                                assert!(text.contains("the TLS handshake failed"), "{text}");
                                assert!(text.contains(words), "{words} in {text}");
                            }
                        }
                    })
                });
            }
        }
    }
}

/// Without root certificates there is nothing to measure by, as libpq has it: encrypted, and no more.
#[test]
fn without_roots_any_certificate_will_do_up_to_require() {
    for server in SERVERS {
        let turn = turn(server);
        for certificate in ["good", "other_name", "expired", "false", "self_signed"] {
            turn.show(certificate);
            for mode in ["prefer", "require"] {
                let dsn = dsn(
                    "localhost",
                    turn.cluster.port(),
                    &format!("user=postgres sslmode={mode}"),
                );
                on_each(|runtime| {
                    let dsn = dsn.clone();
                    Box::pin(
                        async move { assert_eq!(is_encrypted(&runtime, &dsn).await, Ok(true), "{certificate} {mode}") },
                    )
                });
            }
        }
    }
}

/// The name is the one in `host`, whatever address is connected to; an address is a name if the certificate says so.
#[test]
fn the_name_is_the_hosts() {
    let root = format!(
        "user=postgres sslmode=verify-full sslrootcert={}",
        Pki::get().of("ca.crt")
    );
    let turn = turn(Server::V18);
    for (certificate, host, is_good) in [
        ("good", "host=localhost", true),
        ("good", "host=127.0.0.1", true),
        ("good", "host=localhost hostaddr=127.0.0.1", true),
        ("good", "host=db1.example hostaddr=127.0.0.1", false),
        ("other_name", "host=db1.example hostaddr=127.0.0.1", true),
        ("other_name", "host=127.0.0.1", false),
    ] {
        turn.show(certificate);
        let dsn = format!("{host} port={} dbname=postgres {root}", turn.cluster.port());
        on_each(|runtime| {
            let dsn = dsn.clone();
            Box::pin(async move {
                assert_eq!(
                    is_encrypted(&runtime, &dsn).await.is_ok(),
                    is_good,
                    "{certificate} for {dsn}"
                );
            })
        });
    }
}

#[test]
fn our_own_certificate_is_shown_to_a_server_that_asks() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            let pki = Pki::get();
            let pair = |name: &str| {
                let (certificate, key) = (pki.of(&format!("{name}.crt")), pki.of(&format!("{name}.key")));
                format!("sslcert={certificate} sslkey={key}")
            };
            for (has, is_in) in [
                (pair("client"), true),
                (format!("{} sslcertmode=require", pair("client")), true),
                (format!("{} sslcertmode=disable", pair("client")), false),
                (pair("false_client"), false),
                (String::new(), false),
            ] {
                let rest = format!(
                    "user=certified sslmode=verify-full sslrootcert={} {has}",
                    pki.of("ca.crt")
                );
                let result = is_encrypted(&runtime, &dsn("localhost", cluster.port(), &rest)).await;
                assert_eq!(result.is_ok(), is_in, "{has}: {result:?}");
            }
        })
    });
}

#[test]
fn a_server_that_does_not_ask_may_be_refused() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            // In the clear nobody asks; nor does this server, once it is spoken to.
            let pki = Pki::get();
            let mute = tls_server(b"postgresql", Vec::new());
            let ours = format!("sslcert={} sslkey={}", pki.of("client.crt"), pki.of("client.key"));
            for (port, mode) in [
                (cluster.port(), "sslmode=disable".to_owned()),
                (mute, format!("sslmode=require sslnegotiation=direct {ours}")),
            ] {
                let rest = format!("user=postgres {mode} sslcertmode=require");
                let text = is_encrypted(&runtime, &dsn("localhost", port, &rest)).await;
                assert!(text.expect_err("refused").contains("sslcertmode=require"), "{mode}");
            }
        })
    });
}

#[test]
fn what_cannot_be_used_is_named_when_the_pool_is_opened() {
    let pki = Pki::get();
    let broken = pki.path("broken.crt");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nhunter2\n").expect("write");
    let encrypted = pki.path("encrypted.key");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .expect("write");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&encrypted, private).expect("a private key");
    let (certificate, key) = (pki.of("client.crt"), pki.of("good.key"));
    for (rest, words) in [
        (
            format!("sslmode=verify-ca sslrootcert={}", broken.display()),
            "sslrootcert",
        ),
        (
            format!("sslmode=require sslcert={certificate} sslkey={}", encrypted.display()),
            "is encrypted",
        ),
        (format!("sslmode=require sslcert={certificate} sslkey={key}"), "sslkey"),
        (
            format!("sslmode=require sslcert={certificate} sslkey={certificate}"),
            "sslkey",
        ),
        (
            "sslmode=require ssl_max_protocol_version=TLSv1.1 ssl_min_protocol_version=TLSv1".into(),
            "ssl_max_protocol_version",
        ),
    ] {
        on_each(|runtime| {
            let config = PoolConfig::new("p", &dsn("localhost", 1, &format!("user=u {rest}")));
            let error = config
                .and_then(|config| gdbpool::ConnectionPool::open(runtime, config))
                .expect_err("refused");
            let ErrorKind::BadInput(BadInput::Dsn { reason }) = error.kind() else {
                panic!("{error:?}");
            };
            assert!(reason.contains(words), "{words} in {reason}");
            assert!(!format!("{error:?}").contains("hunter2"));
            Box::pin(async {})
        });
    }
}

#[test]
fn the_versions_are_kept_to() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            for (rest, expected) in [
                ("ssl_max_protocol_version=TLSv1.2", "TLSv1.2"),
                ("ssl_min_protocol_version=TLSv1.3", "TLSv1.3"),
                ("ssl_min_protocol_version=TLSv1", "TLSv1.3"),
            ] {
                let dsn = dsn(
                    "localhost",
                    cluster.port(),
                    &format!("user=postgres sslmode=require {rest}"),
                );
                let (_pool, lease) = connect(&runtime, PoolConfig::new("p", &dsn).expect("a sound DSN")).await;
                let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                let row = lease.expect("a lease").query_one(sql, &[]).await.expect("a row");
                assert_eq!(row.get::<_, &str>(0), expected, "{rest}");
            }
        })
    });
}

/// The system trusts no authority that was made here. One without any certificates is told so.
#[test]
fn the_system_is_asked_whom_it_trusts() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            let rest = "user=postgres sslmode=verify-full sslrootcert=system";
            let config = PoolConfig::new("p", &dsn("localhost", cluster.port(), rest)).expect("a sound DSN");
            match gdbpool::ConnectionPool::open(std::sync::Arc::clone(&runtime), config.clone()) {
                Ok(_) => {
                    let (_pool, lease) = connect(&runtime, config).await;
                    assert!(lease.expect_err("refused").contains("UnknownIssuer"));
                }
                Err(error) => assert!(error.to_string().contains("sslrootcert=system"), "{error}"),
            }
        })
    });
}

/// Settings for TLS that a Unix socket has no use for are none to fail by.
#[test]
fn a_unix_socket_needs_no_certificate() {
    on_each_server(|runtime, cluster, _| {
        Box::pin(async move {
            let folder = cluster.socket_dir().display();
            let dsn = format!(
                "host={folder} port={} user=postgres dbname=postgres sslmode=require",
                cluster.port()
            );
            let pool = open(&runtime, PoolConfig::new("p", &dsn).expect("a sound DSN"));
            pool.checkout()
                .await
                .expect("a lease")
                .query_one("SELECT 1", &[])
                .await
                .expect("a row");
        })
    });
}
