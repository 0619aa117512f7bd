//! Every fault of the network does what it says, ends when it should, and is counted as applied and as noticed.

use std::io::ErrorKind;
use std::task::Poll;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use gdbpool::{BoxStream, Endpoint, Instant, Runtime, SocketOptions};
use gdbpool_sim::fault::{
    Answer, ConnectFate, Connections, CutPart, Delay, Fault, FaultKind, Jitter, Link, Micros, NetworkFault, START_UP,
    Trigger, Ways,
};
use gdbpool_sim::{Cut, Direction, Listener, PipeEnd, Sim};

/// A host `n0` that listens, and connects to it from `app`.
struct World {
    sim: Sim,
    endpoint: Endpoint,
    listener: Listener,
}

impl World {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        sim.place("10.0.0.1".parse().unwrap(), "n0");
        let endpoint = Endpoint::Tcp("10.0.0.1:5432".parse().unwrap());
        let listener = sim.listen_at(endpoint.clone());
        Self {
            sim,
            endpoint,
            listener,
        }
    }

    fn connect(&self) -> (BoxStream, PipeEnd) {
        let options = SocketOptions::default();
        let client = self.sim.block_on(self.sim.runtime().connect(&self.endpoint, &options));
        (client.unwrap(), self.sim.block_on(self.listener.accept()))
    }

    fn inject(&self, fault: NetworkFault, span: Option<Micros>) {
        self.sim.inject(FaultKind::Network(fault), span);
    }

    /// That a kind of fault was applied, and met by somebody.
    fn seen(&self, name: &str) {
        let coverage = self.sim.coverage();
        for end in ["applied", "noticed"] {
            let name = format!("fault.network.{name}.{end}");
            assert!(coverage.count(&name) > 0, "{name} is not in\n{coverage}");
        }
    }
}

fn link() -> Link {
    Link::Between("app".to_owned(), "n0".to_owned())
}

fn all() -> Connections {
    Connections::All { to: None }
}

fn millis(at: Instant) -> u128 {
    (at - Instant::from_nanos(0)).as_millis()
}

/// A start-up packet, then Query messages with these texts.
fn session(queries: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 9, 0, 3, 0, 0, 0];
    for query in queries {
        bytes.push(b'Q');
        bytes.extend(u32::try_from(query.len() + 5).unwrap().to_be_bytes());
        bytes.extend(query.as_bytes());
        bytes.push(0);
    }
    bytes
}

#[test]
fn latency_delays_both_ways_and_the_connect_and_keeps_the_order() {
    let world = World::new(1);
    let delay = Delay {
        min: Micros::from_millis(10),
        jitter: Jitter::Exponential(Micros::from_millis(5)),
    };
    world.inject(NetworkFault::Latency { link: link(), delay }, None);
    let (mut client, mut server) = world.connect();
    let connected = millis(world.sim.now());
    assert!(connected >= 20, "there and back: {connected} ms");
    world.sim.block_on(async {
        for number in 0..50u8 {
            client.write_all(&[number]).await.unwrap();
        }
        let mut all = [0; 50];
        server.read_exact(&mut all).await.unwrap();
        assert!(all.iter().copied().eq(0..50), "the order stays");
    });
    let read = millis(world.sim.now());
    assert!(read >= connected + 10);
    world.sim.stop_faults();
    world.sim.block_on(async {
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
    });
    assert_eq!(millis(world.sim.now()), read, "healed");
    world.seen("latency");
}

#[test]
fn bandwidth_and_slices_stretch_what_they_carry() {
    let world = World::new(1);
    let (mut client, mut server) = world.connect();
    let fault = NetworkFault::Bandwidth {
        link: Link::All,
        bytes_per_second: 1_000,
    };
    world.inject(fault, None);
    world.sim.block_on(async {
        client.write_all(&[1; 500]).await.unwrap();
        server.read_exact(&mut [0; 500]).await.unwrap();
    });
    assert_eq!(millis(world.sim.now()), 500);
    world.sim.stop_faults();
    let gap = Micros::from_millis(1);
    let fault = NetworkFault::Slice {
        link: Link::Of("n0".to_owned()),
        max: 7,
        gap,
    };
    world.inject(fault, None);
    let mut reads = Vec::new();
    world.sim.block_on(async {
        client.write_all(&(0..100).collect::<Vec<u8>>()).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 100 {
            let mut buffer = [0; 100];
            let count = server.read(&mut buffer).await.unwrap();
            reads.push(count);
            got.extend_from_slice(&buffer[..count]);
        }
        assert!(got.iter().copied().eq(0..100));
    });
    assert!(
        reads.iter().all(|count| (1..=7).contains(count)) && reads.len() > 14,
        "{reads:?}"
    );
    world.seen("bandwidth");
    world.seen("slice");
}

#[test]
fn short_reads_writes_and_pending_storms_lose_nothing() {
    let world = World::new(3);
    let (mut client, mut server) = world.connect();
    world.inject(NetworkFault::ShortReads { link: link(), max: 3 }, None);
    world.inject(NetworkFault::ShortWrites { link: link(), max: 2 }, None);
    let percent = 60;
    world.inject(NetworkFault::PendingStorm { link: link(), percent }, None);
    let polls = world.sim.steps();
    world.sim.block_on(async {
        assert!(client.write(b"abcdef").await.unwrap() <= 2);
        let mut buffer = [0; 100];
        assert!(server.read(&mut buffer).await.unwrap() <= 3);
        let text: Vec<u8> = (0..200).collect();
        let write = async { client.write_all(&text).await.unwrap() };
        let read = async {
            let mut got = vec![0; 200];
            server.read_exact(&mut got).await.unwrap();
            got
        };
        let ((), got) = futures::join!(write, read);
        assert_eq!(got, text);
    });
    assert!(world.sim.steps() - polls > 40, "{} polls", world.sim.steps() - polls);
    for name in ["short_reads", "short_writes", "pending_storm"] {
        world.seen(name);
    }
}

#[test]
fn a_one_way_partition_lets_requests_through_and_replies_come_late_after_it() {
    let world = World::new(5);
    let (mut client, mut server) = world.connect();
    let fault = NetworkFault::Partition {
        link: link(),
        ways: Ways::Replies,
    };
    world.inject(fault, Some(Micros::from_secs(10)));
    world.sim.block_on(async {
        client.write_all(b"q").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        assert_eq!(millis(world.sim.now()), 0, "requests pass");
        server.write_all(b"reply").await.unwrap();
        let mut reply = [0; 5];
        client.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"reply");
    });
    let now = millis(world.sim.now());
    assert!(
        (10_001..=20_000).contains(&now),
        "sent again some time after the heal: {now} ms"
    );
    world.seen("partition");
}

#[test]
fn a_connect_waits_for_a_clog_to_end_and_everything_comes_in_one_burst() {
    let world = World::new(5);
    let (mut client, mut server) = world.connect();
    let ways = Ways::Both;
    world.inject(NetworkFault::Clog { link: link(), ways }, Some(Micros::from_secs(3)));
    let options = SocketOptions::default();
    let runtime = world.sim.runtime();
    let mut connect = world.sim.manual(runtime.connect(&world.endpoint, &options));
    assert!(connect.settle().is_pending());
    world.sim.block_on(async {
        for byte in b"burst" {
            client.write_all(&[*byte]).await.unwrap();
        }
        let mut burst = [0; 5];
        assert_eq!(server.read(&mut burst).await.unwrap(), 5);
    });
    assert_eq!(millis(world.sim.now()), 3_000);
    assert!(matches!(connect.settle(), Poll::Ready(Ok(_))));
    world.seen("clog");
}

#[test]
fn a_swizzle_clogs_hosts_one_by_one_and_frees_them_in_another_order() {
    let sim = Sim::new(2);
    let hosts: Vec<String> = (0..4).map(|number| format!("n{number}")).collect();
    let mut listeners = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        let address = format!("10.0.0.{number}");
        sim.place(address.parse().unwrap(), host);
        listeners.push(sim.listen(format!("{address}:1").parse().unwrap()));
    }
    let stagger = Micros::from_millis(10);
    let fault = NetworkFault::Swizzle { hosts, stagger };
    sim.inject(FaultKind::Network(fault), Some(Micros::from_millis(100)));
    let free = || {
        let options = SocketOptions::default();
        let connects = listeners.iter().map(|listener| {
            let runtime = sim.runtime();
            sim.manual(runtime.connect(listener.endpoint(), &options))
                .settle()
                .is_ready()
        });
        connects.collect::<Vec<_>>()
    };
    let mut states = vec![free()];
    for _ in 0..14 {
        sim.advance(Duration::from_millis(10));
        let state = free();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    let clogged: Vec<usize> = states
        .iter()
        .map(|state| state.iter().filter(|free| !**free).count())
        .collect();
    assert_eq!(clogged, [1, 2, 3, 4, 3, 2, 1, 0], "{states:?}");
    assert_eq!(states[0], [false, true, true, true]);
    assert!(sim.coverage().count("fault.network.swizzle.noticed") > 0);
}

#[test]
fn reset_fin_and_half_open_end_connections_in_their_ways() {
    let world = World::new(1);
    let (mut client, mut server) = world.connect();
    world.inject(NetworkFault::Reset { connections: all() }, None);
    let mut buffer = [0; 9];
    for end in [
        world.sim.block_on(client.read(&mut buffer)),
        world.sim.block_on(server.write(b"x")),
    ] {
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let (mut client, mut server) = world.connect();
    let to = Some("n0".to_owned());
    let fault = NetworkFault::Fin {
        connections: Connections::Nth { to, nth: 2 },
        direction: Direction::ToClient,
    };
    world.inject(fault, None);
    world.sim.block_on(async {
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
        client.write_all(b"still").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
    });
    let (mut client, mut server) = world.connect();
    let fault = NetworkFault::HalfOpen {
        connections: Connections::Newest { to: None },
        buffer: 10,
    };
    world.inject(fault, Some(Micros::from_secs(60)));
    assert_eq!(world.sim.block_on(client.write(&[1; 30])).unwrap(), 10);
    let mut full = world.sim.manual(client.write(&[1; 30]));
    assert!(full.settle().is_pending(), "the buffer is full and nothing says why");
    drop(full);
    let mut read = world.sim.manual(server.read(&mut buffer));
    assert!(read.settle().is_pending());
    world.sim.advance(Duration::from_secs(60));
    assert!(matches!(read.settle(), Poll::Ready(Err(error)) if error.kind() == ErrorKind::ConnectionReset));
    for name in ["reset", "fin", "half_open"] {
        world.seen(name);
    }
}

#[test]
fn a_slow_close_shows_the_end_late() {
    let world = World::new(1);
    let (mut client, server) = world.connect();
    let delay = Micros::from_secs(2);
    world.inject(NetworkFault::SlowClose { link: link(), delay }, None);
    drop(server);
    assert_eq!(world.sim.block_on(client.read(&mut [0; 1])).unwrap(), 0);
    assert_eq!(millis(world.sim.now()), 2_000);
    world.seen("slow_close");
}

#[test]
fn a_cut_is_found_by_message_and_part_whatever_was_before() {
    let texts = ["SELECT 1", "SELECT 22", "SELECT 333"];
    let bytes = session(&texts);
    // The start-up packet, and each Query with its header and final zero.
    let begins = [0, 9, 9 + 14, 9 + 14 + 15];
    for (kind, skip, at, expected) in [
        (Some('Q'), 1, CutPart::Byte(7), begins[2] + 7),
        (Some('Q'), 2, CutPart::Thousandth(1_000), bytes.len()),
        (Some('Q'), 0, CutPart::Thousandth(0), begins[1]),
        (Some(START_UP), 0, CutPart::Byte(3), 3),
        (None, 2, CutPart::Thousandth(500), begins[2] + 7),
    ] {
        let world = World::new(1);
        let nth = Connections::Nth { to: None, nth: 1 };
        let fault = NetworkFault::Cut {
            connections: nth,
            direction: Direction::ToServer,
            kind,
            skip,
            at,
            then: Cut::Eof,
        };
        world.inject(fault, None);
        let (mut client, mut server) = world.connect();
        let mut got = Vec::new();
        world.sim.block_on(async {
            let _ = client.write_all(&bytes).await;
            server.read_to_end(&mut got).await.unwrap();
        });
        assert_eq!(got, bytes[..expected], "{kind:?} {skip} {at:?}");
        world.seen("cut");
    }
}

#[test]
fn a_message_triggers_a_fault_before_its_first_byte() {
    for nth in 1..=3 {
        let world = World::new(1);
        world.sim.set_faults([Fault {
            trigger: Trigger::Message {
                connections: Connections::Nth { to: None, nth: 1 },
                direction: Direction::ToServer,
                kind: Some('Q'),
                nth,
            },
            what: FaultKind::Network(NetworkFault::Cut {
                connections: Connections::Trigger,
                direction: Direction::ToServer,
                kind: None,
                skip: 0,
                at: CutPart::Byte(2),
                then: Cut::Reset,
            }),
            span: None,
        }]);
        let (mut client, mut server) = world.connect();
        let bytes = session(&["a", "b", "c", "d"]);
        let mut got = Vec::new();
        world.sim.block_on(async {
            let _ = client.write_all(&bytes).await;
            let _ = server.read_to_end(&mut got).await;
        });
        let expected = 9 + 7 * (usize::try_from(nth).unwrap() - 1) + 2;
        assert_eq!(got.len(), expected, "message {nth}");
        let report = &world.sim.fault_reports()[0];
        assert!(report.applied && report.began == Some(world.sim.now()), "{report:?}");
    }
}

#[test]
fn connects_and_names_change_their_fate() {
    let world = World::new(1);
    let options = SocketOptions::default();
    let runtime = world.sim.runtime();
    let connect = |world: &World| world.sim.block_on(runtime.connect(&world.endpoint, &options));
    let fate = |fate| NetworkFault::Connect {
        to: "n0".to_owned(),
        fate,
    };
    world.inject(fate(ConnectFate::Refused), None);
    let refused = connect(&world).err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
    world.inject(fate(ConnectFate::AcceptThenClose), None);
    let mut stream = connect(&world).unwrap();
    assert_eq!(world.sim.block_on(stream.read(&mut [0])).unwrap(), 0);
    world.inject(fate(ConnectFate::Slow(Micros::from_secs(1))), None);
    connect(&world).unwrap();
    assert_eq!(millis(world.sim.now()), 1_000);
    world.inject(fate(ConnectFate::Hang), None);
    let mut hung = world.sim.manual(runtime.connect(&world.endpoint, &options));
    assert!(hung.settle().is_pending());
    world.sim.stop_faults();
    connect(&world).unwrap();
    world.seen("connect");

    world.sim.add_host("db", "10.0.0.7".parse().unwrap());
    let found = |world: &World| {
        world
            .sim
            .block_on(runtime.resolve("db", 1))
            .map(|found| found[0].to_string())
    };
    let flip = |answer| NetworkFault::Resolve {
        name: "db".to_owned(),
        answer,
    };
    assert_eq!(found(&world).unwrap(), "10.0.0.7:1");
    world.inject(flip(Answer::Hosts(vec!["n0".to_owned()])), None);
    assert_eq!(found(&world).unwrap(), "10.0.0.1:1");
    world.inject(flip(Answer::Unknown), None);
    assert_eq!(found(&world).unwrap_err().kind(), ErrorKind::NotFound);
    world.sim.stop_faults();
    assert_eq!(found(&world).unwrap(), "10.0.0.7:1");
    world.seen("resolve");
}
