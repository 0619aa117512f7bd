//! The values' meaning: what `PoolConfig::new` takes, libpq begins to connect with, and the other way round.

use std::net::TcpListener;

use gdbpool::PoolConfig;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::library::newest;
use crate::runner;

const CASES: usize = 3_000;

/// What we refuse and libpq takes, or takes for now: a part of our message, and the reason.
const STRICTER: [(&str, &str); 14] = [
    (
        "connect_timeout is not",
        "libpq looks at it while it waits, not at the start",
    ),
    ("keepalives", "libpq looks at keepalives_… only with keepalives=1"),
    ("tcp_user_timeout", "the same"),
    (
        "hostaddr is not an IP address",
        "libpq takes 127.1 and zones (fe80::1%eth0), which getaddrinfo knows",
    ),
    (
        "sslrootcert names no file",
        "libpq finds out when TLS begins; here files are read when the configuration is made",
    ),
    ("sslcertmode is require, and there is no", "the same"),
    ("gssencmode is require", "there is no GSSAPI here"),
    (
        "replication",
        "a pool has no use for it; libpq leaves the word to the server",
    ),
    ("client_encoding", "texts are UTF-8 here"),
    ("needs OAuth", "not served"),
    (
        "is not served",
        "scram_client_key, scram_server_key, sslkeylogfile, requirepeer",
    ),
    ("min_protocol_version must be 3.0", "3.2 is not spoken here"),
    ("require_auth leaves no method", "GSSAPI, SSPI and OAuth are not served"),
    (
        "user is missing",
        "only from_environment asks the system for the user's name",
    ),
];

/// What libpq refuses and we take: a part of its message, and the reason.
const LAXER: [(&str, &str); 1] = [(
    "setsockopt(",
    "zero and below stand for the system's default, as libpq's manual says; libpq hands a zero to the system, which \
     refuses it",
)];

#[test]
fn values_are_taken_or_refused_alike() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let mut runner = runner(2);
    let settings = settings();
    let (mut taken, mut refused, mut stricter, mut laxer) = (0, 0, 0, 0);
    for _ in 0..CASES {
        let settings = settings.new_tree(&mut runner).expect("settings").current();
        let text = format!("hostaddr=127.0.0.1 port={port} user=u gssencmode=disable {settings}");
        let ours = PoolConfig::new("main", &text)
            .map(drop)
            .map_err(|error| error.to_string());
        let theirs = newest().libpq.start(&text);
        match (&ours, theirs.begun) {
            (Ok(()), true) => taken += 1,
            (Err(_), false) => refused += 1,
            (Err(message), true) if STRICTER.iter().any(|(part, _)| message.contains(part)) => stricter += 1,
            (Ok(()), false) if LAXER.iter().any(|(part, _)| theirs.message.contains(part)) => laxer += 1,
            _ => panic!("to replay: {text:?}\n  ours:   {ours:?}\n  theirs: {theirs:?}"),
        }
    }
    println!(
        "{CASES} settings: {taken} taken by both, {refused} refused by both, {stricter} refused here only, {laxer} there only"
    );
    assert!(taken * 5 > CASES && refused * 10 > CASES, "{taken} {refused}");
}

fn settings() -> impl Strategy<Value = String> {
    prop::collection::vec(setting(), 0..4).prop_map(|settings| settings.join(" "))
}

fn setting() -> impl Strategy<Value = String> {
    let values = |(key, values): (&'static str, &'static [&'static str])| {
        prop::sample::select(values).prop_map(move |value| format!("{key}='{value}'"))
    };
    prop::sample::select(&VALUES[..]).prop_flat_map(values)
}

/// None that the system would not set.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    " 7 ",
    "-3",
    "+2",
    "2147483648",
    "",
    "x",
    "1x",
    "0x1",
    "\t4\n",
    "1 2",
];

const VALUES: [(&str, &[&str]); 30] = [
    (
        "sslmode",
        &[
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
            "",
            "Disable",
            "on",
        ],
    ),
    ("sslnegotiation", &["postgres", "direct", "", "Direct"]),
    ("sslcertmode", &["disable", "allow", "require", "", "x"]),
    ("sslrootcert", &["system", "", "/nowhere/root.crt"]),
    ("sslsni", &["0", "1", "", "x"]),
    ("sslcompression", &["0", "1", "x"]),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "tlsv1.1", "TLSv1.2", "TLSv1.3", "", "SSLv3"],
    ),
    (
        "ssl_max_protocol_version",
        &["TLSv1", "tlsv1.1", "TLSv1.2", "TLSv1.3", "", "1.2"],
    ),
    ("min_protocol_version", &["3.0", "3.2", "latest", "", "3", "3.1"]),
    ("max_protocol_version", &["3.0", "3.2", "latest", "", "3"]),
    ("gssencmode", &["disable", "prefer", "", "x"]),
    ("channel_binding", &["disable", "prefer", "require", "", "x"]),
    (
        "target_session_attrs",
        &[
            "any",
            "read-write",
            "read-only",
            "primary",
            "standby",
            "prefer-standby",
            "",
            "Any",
            "any,primary",
        ],
    ),
    ("load_balance_hosts", &["disable", "random", "", "x"]),
    (
        "require_auth",
        &[
            "",
            "password",
            "md5",
            "scram-sha-256",
            "none",
            "gss",
            "sspi",
            "oauth",
            "!password",
            "!none,!md5",
            "md5,none",
            "md5,md5",
            "!md5,!md5",
            "none,none",
            "!none,!none",
            "md5,!none",
            "!md5,none",
            "x",
            "!x",
            ",",
            "md5,",
            "password,md5,gss,sspi,scram-sha-256,none",
            "!",
            " md5",
            "!gss,!sspi",
        ],
    ),
    ("connect_timeout", &NUMBERS),
    ("keepalives", &NUMBERS),
    ("keepalives_idle", &NUMBERS),
    ("keepalives_interval", &NUMBERS),
    ("keepalives_count", &NUMBERS),
    ("tcp_user_timeout", &NUMBERS),
    ("host", &["a", "a,b", "a,b,c", "", ",", "127.0.0.1"]),
    ("hostaddr", &["127.0.0.1", "127.0.0.1,127.0.0.1", "x", "127.0.0.1,"]),
    ("replication", &["", "off", "database", "x"]),
    ("client_encoding", &["", "UTF8", "utf-8", "auto", "latin1"]),
    ("application_name", &["", "x"]),
    ("oauth_issuer", &["", "x"]),
    ("krbsrvname", &["", "x"]),
    ("requirepeer", &["", "x"]),
    ("options", &["", "-c geqo=off"]),
];
