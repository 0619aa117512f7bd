//! Connections: order, capacity, latency, half close, stall, cut, reset; connects and names.

use std::io::{self, ErrorKind};
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gdbpool::{Endpoint, Instant, Runtime, SocketOptions};
use gdbpool_sim::{ConnectMode, Cut, Direction, PipeOptions, Sim};

#[test]
fn bytes_arrive_in_order_and_a_half_close_leaves_the_other_lane_open() {
    let sim = Sim::new(1);
    let (mut client, mut server) = sim.pipe();
    sim.block_on(async {
        client.write_all(b"hello ").await.unwrap();
        client.write_all(b"world").await.unwrap();
        client.close().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello world");
        server.write_all(b"and back").await.unwrap();
        drop(server);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "and back");
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_full_lane_makes_writes_wait_and_a_read_wakes_them() {
    let sim = Sim::new(1);
    let (mut client, mut server) = sim.pipe_with(PipeOptions {
        capacity: 10,
        ..PipeOptions::default()
    });
    let mut write = sim.manual(client.write_all(&[7; 25]));
    assert!(write.poll().is_pending());
    let mut buffer = [0; 10];
    for expected in [10, 10] {
        assert!(!write.is_woken());
        assert_eq!(sim.block_on(server.read(&mut buffer)).unwrap(), expected);
        assert!(write.is_woken());
        let _ = write.poll();
    }
    drop(write);
    assert_eq!(sim.block_on(server.read(&mut buffer)).unwrap(), 5);
}

#[test]
fn latency_is_virtual_time_and_short_reads_keep_the_bytes() {
    let sim = Sim::new(1);
    let options = PipeOptions {
        latency: Duration::from_millis(5),
        max_read: 3,
        ..PipeOptions::default()
    };
    let (mut client, mut server) = sim.pipe_with(options);
    sim.block_on(async {
        client.write_all(b"abcdefgh").await.unwrap();
        drop(client);
        let mut buffer = [0; 100];
        let mut all = Vec::new();
        loop {
            let count = server.read(&mut buffer).await.unwrap();
            assert!(count <= 3);
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(all, b"abcdefgh");
    });
    assert_eq!(sim.now(), Instant::from_nanos(5_000_000));
    assert_eq!(sim.pending_timers(), 0, "the network's timers are not the program's");
}

#[test]
fn a_stall_holds_bytes_and_even_the_end_until_it_is_resumed() {
    let sim = Sim::new(1);
    let (mut client, mut server) = sim.pipe_with(PipeOptions {
        capacity: 4,
        ..PipeOptions::default()
    });
    let control = client.control();
    control.stall(Direction::ToServer);
    let mut buffer = [0; 10];
    assert_eq!(sim.block_on(client.write(b"abcdef")).unwrap(), 4);
    let mut full = sim.manual(client.write(b"ef"));
    assert!(full.settle().is_pending());
    drop(full);
    drop(client);
    let mut read = sim.manual(server.read(&mut buffer));
    assert!(read.settle().is_pending());
    control.resume(Direction::ToServer);
    assert!(matches!(read.settle(), Poll::Ready(Ok(4))));
    drop(read);
    assert_eq!(&buffer[..4], b"abcd");
    assert_eq!(sim.block_on(server.read(&mut buffer)).unwrap(), 0);
}

#[test]
fn a_cut_delivers_exactly_so_many_bytes_for_every_byte() {
    let message = b"0123456789";
    for at in 0..=message.len() {
        for how in [Cut::Eof, Cut::Reset, Cut::Stall] {
            let sim = Sim::new(1);
            let (mut client, mut server) = sim.pipe();
            server.control().cut_at(Direction::ToClient, at as u64, how);
            sim.block_on(async {
                // Whatever lies behind the cut is swallowed or refused, never delivered.
                let _ = server.write_all(&message[..4]).await;
                let _ = server.write_all(&message[4..]).await;
            });
            let mut seen = Vec::new();
            let mut rest = sim.manual(async { client.read_to_end(&mut seen).await });
            let end = rest.settle();
            drop(rest);
            assert_eq!(seen, message[..at], "cut at {at} with {how:?}");
            match (how, end) {
                (Cut::Eof, Poll::Ready(Ok(_))) | (Cut::Stall, Poll::Pending) => {}
                (Cut::Reset, Poll::Ready(Err(error))) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                (_, end) => panic!("cut at {at} with {how:?} ended as {end:?}"),
            }
        }
    }
}

#[test]
fn a_reset_reaches_both_ends_and_wakes_them() {
    let sim = Sim::new(1);
    let (mut client, mut server) = sim.pipe();
    let control = client.control();
    let mut buffer = [0; 4];
    let mut read = sim.manual(server.read(&mut buffer));
    assert!(read.poll().is_pending());
    control.reset();
    assert!(read.is_woken());
    let kind = |result: Poll<io::Result<usize>>| match result {
        Poll::Ready(Err(error)) => Some(error.kind()),
        _ => None,
    };
    assert_eq!(kind(read.poll()), Some(ErrorKind::ConnectionReset));
    assert_eq!(
        kind(sim.manual(client.write(b"x")).poll()),
        Some(ErrorKind::ConnectionReset)
    );
}

#[test]
fn connects_end_as_the_mode_says() {
    let sim = Sim::new(1);
    let runtime = sim.runtime();
    let endpoint = Endpoint::Tcp("10.0.0.9:5432".parse().unwrap());
    let unix = Endpoint::Unix("/run/db/.s.PGSQL.5432".into());
    let options = SocketOptions::default();
    let failure = |endpoint| {
        sim.block_on(runtime.connect(endpoint, &options))
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(failure(&endpoint), Some(ErrorKind::ConnectionRefused));
    assert_eq!(failure(&unix), Some(ErrorKind::NotFound));
    let listeners = [sim.listen_at(endpoint.clone()), sim.listen_at(unix.clone())];
    assert_eq!(failure(&endpoint), None);
    assert_eq!(failure(&unix), None);
    sim.set_connect_mode(&endpoint, ConnectMode::Refused);
    assert_eq!(failure(&endpoint), Some(ErrorKind::ConnectionRefused));
    sim.set_connect_mode(&endpoint, ConnectMode::Hang);
    assert!(sim.manual(runtime.connect(&endpoint, &options)).settle().is_pending());
    sim.set_connect_mode(&endpoint, ConnectMode::AcceptThenClose);
    let mut stream = sim.block_on(runtime.connect(&endpoint, &options)).unwrap();
    assert_eq!(sim.block_on(stream.read(&mut [0; 1])).unwrap(), 0);
    sim.set_connect_mode(&endpoint, ConnectMode::Slow(Duration::from_secs(2)));
    assert_eq!(failure(&endpoint), None);
    assert_eq!(sim.now(), Instant::from_nanos(2_000_000_000));
    assert_eq!(sim.connect_attempts(&endpoint).len(), 6);
    drop(listeners);
    sim.set_connect_mode(&endpoint, ConnectMode::Accept);
    assert_eq!(failure(&endpoint), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn names_resolve_to_their_addresses_in_order() {
    let sim = Sim::new(1);
    let runtime = sim.runtime();
    sim.add_host("db1", "10.0.0.2".parse().unwrap());
    sim.add_host("db1", "10.0.0.1".parse().unwrap());
    let found = |host: &str| sim.block_on(runtime.resolve(host, 5432)).map_err(|error| error.kind());
    assert_eq!(
        found("db1").unwrap(),
        ["10.0.0.2:5432".parse().unwrap(), "10.0.0.1:5432".parse().unwrap()]
    );
    assert_eq!(found("127.0.0.1").unwrap(), ["127.0.0.1:5432".parse().unwrap()]);
    assert_eq!(found("db2"), Err(ErrorKind::NotFound));
    sim.remove_host("db1");
    assert_eq!(found("db1"), Err(ErrorKind::NotFound));
    sim.hang_host("db1");
    assert!(sim.manual(runtime.resolve("db1", 1)).settle().is_pending());
}
