//! On real servers: Unix sockets with and without a file, hosts of which one is dead, and errors of the system.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;

use gdbpool::{ConnectionPool, Endpoint, PoolConfig, Runtime};

use super::all_of;
use super::runtimes::{on_each, until};
use super::support::{Server, free_port, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

fn open(runtime: &Arc<dyn Runtime>, dsn: &str) -> ConnectionPool {
    let config = PoolConfig::new("p", dsn).expect("a sound DSN").size(1);
    ConnectionPool::open(Arc::clone(runtime), config).expect("sound settings")
}

#[test]
fn a_dead_host_is_passed_by() {
    for server in SERVERS {
        on_each(|runtime| {
            let cluster = &shared_cluster(server).primary;
            let (dead, alive) = (free_port(), cluster.port());
            let folder = cluster.socket_dir().display().to_string();
            let hosts = [
                format!("host=127.0.0.1,127.0.0.1 port={dead},{alive}"),
                format!("host=localhost,/nowhere,{folder} port={dead},{dead},{alive}"),
                format!("host=nowhere.invalid,localhost port={dead},{alive}"),
                format!("hostaddr=127.0.0.1,127.0.0.1 port={dead},{alive} sslmode=disable"),
            ];
            Box::pin(async move {
                for hosts in hosts {
                    let pool = open(&runtime, &format!("{hosts} user=postgres dbname=postgres"));
                    let lease = pool.checkout().await.expect("a lease");
                    lease.query_one("SELECT 1", &[]).await.expect("a row");
                    assert_eq!(pool.status().connect_failures, 0, "{hosts}");
                }
            })
        });
    }
}

#[test]
fn the_systems_words_are_told() {
    on_each(|runtime| {
        Box::pin(async move {
            let port = free_port();
            let dsn = format!("host=127.0.0.1,/nowhere,nowhere.invalid,@nobody port={port} user=u");
            let pool = open(&runtime, &dsn);
            let asking = pool.checkout();
            futures::pin_mut!(asking);
            let _ = futures::poll!(asking.as_mut());
            until(&*runtime, "the dial has failed", || pool.last_connect_error().is_some()).await;
            let text = all_of(&pool.last_connect_error().expect("an error"));
            for part in [
                &format!("could not connect to 127.0.0.1:{port}: Connection refused"),
                &format!("could not connect to /nowhere/.s.PGSQL.{port}: No such file"),
                "could not look up the host \"nowhere.invalid\"",
                &format!("could not connect to @nobody/.s.PGSQL.{port}: Connection refused"),
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
        })
    });
}

/// Servers of today can listen there, but the test servers' place is their folder: a relay stands in for them.
#[test]
fn an_abstract_socket_has_no_file() {
    for server in SERVERS {
        on_each(|runtime| {
            let cluster = &shared_cluster(server).primary;
            let name = format!("gdbpool-{}-{}", process::id(), free_port());
            relay(&name, cluster.port(), cluster.socket_dir().to_owned());
            let dsn = format!("host=@{name} port={} user=postgres dbname=postgres", cluster.port());
            let expected = Endpoint::UnixAbstract(format!("{name}/.s.PGSQL.{}", cluster.port()).into());
            Box::pin(async move {
                let pool = open(&runtime, &dsn);
                let lease = pool.checkout().await.expect("a lease");
                lease.query_one("SELECT 1", &[]).await.expect("a row");
                assert_eq!(*lease.endpoint(), expected);
            })
        });
    }
}

/// Forwards connections to an abstract socket to a server's socket in `folder`.
#[expect(clippy::disallowed_methods, reason = "a relay for real servers lives on threads")]
fn relay(name: &str, port: u16, folder: PathBuf) {
    let address = SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.{port}")).expect("a name");
    let listener = UnixListener::bind_addr(&address).expect("nobody else's name");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).expect("the server");
            let pairs = [
                (client.try_clone().expect("a copy"), server.try_clone().expect("a copy")),
                (server, client),
            ];
            for (from, to) in pairs {
                std::thread::spawn(move || drop(forward(from, to)));
            }
        }
    });
}

fn forward(mut from: UnixStream, mut to: UnixStream) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&buffer[..read])?;
    }
}
