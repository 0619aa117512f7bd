//! Scenarios in which the library once broke a promise, shrunk: each holds from now on.

use gdbpool_sim::fault::*;
use gdbpool_sim::scenario::*;
use gdbpool_sim::{Direction, Schedule};

fn step(op: Op) -> Step {
    Step {
        pause: Micros(0),
        op,
        timeout: None,
        patience: Patience::Await,
    }
}

/// A read that is dropped is cancelled at the server. The request hit the SET that goes ahead of the read in the same
/// flight of bytes, and the read, an UPDATE in truth, ran in a session that could write.
#[test]
fn a_cancel_request_does_not_stop_what_makes_a_session_read_only() {
    let listen = Op::Listen {
        channel: 0,
        span: Micros(732_906),
        queue: false,
    };
    let pin = Op::Pin {
        rows: vec![6],
        hold: Micros(2_657),
        lease: None,
        cursor: false,
        end: PinEnd::Commit,
    };
    let dropped = Step {
        patience: Patience::Drop(4),
        ..step(Op::WriteAsRead { row: 4 })
    };
    let scenario = Scenario {
        seed: 100_592,
        topology: Topology {
            standbys: 0,
            write_size: 1,
            read_size: 1,
            latency: Delay::default(),
            replay_delay: Micros(0),
            socket_buffer: 65_536,
            synchronous: false,
        },
        clients: vec![
            Client {
                steps: vec![step(listen)],
            },
            Client {
                steps: vec![step(pin), dropped],
            },
        ],
        faults: vec![
            Fault {
                trigger: Trigger::Message {
                    connections: Connections::Trigger,
                    direction: Direction::ToClient,
                    kind: Some('Z'),
                    nth: 11,
                },
                what: FaultKind::Server(ServerFault::Pause { node: "n0".into() }),
                span: Some(Micros(1_799_000)),
            },
            Fault {
                trigger: Trigger::At(Micros(1_521_333)),
                what: FaultKind::Server(ServerFault::Slow {
                    node: "n0".into(),
                    by: Micros(2_000),
                }),
                span: None,
            },
        ],
        schedule: Schedule::Fifo,
        choices: None,
    };
    check_run(&scenario).unwrap();
}
