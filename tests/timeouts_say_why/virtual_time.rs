//! Causes that need a server, a network or a clock that obeys: in the simulator, to the nanosecond.

use std::time::Duration;

use gdbpool::{ConnectionPool, Endpoint, Error, PoolConfig, Runtime};
use gdbpool_sim::{ConnectMode, Direction, PipeOptions, ScriptedServer, Sim, StartStep, StartUp};
use std::sync::Arc;

use super::{Table, report};
use crate::scripted;

const PATIENCE: Duration = Duration::from_secs(5);

struct World {
    sim: Sim,
    server: ScriptedServer,
}

impl World {
    fn new() -> Self {
        let sim = Sim::new(11);
        let server = scripted::server(&sim, 1);
        Self { sim, server }
    }

    fn pool(&self, change: impl FnOnce(PoolConfig) -> PoolConfig) -> ConnectionPool {
        let config = scripted::config("main", 1).size(1).checkout_timeout(PATIENCE);
        ConnectionPool::open(Arc::new(self.sim.runtime()), change(config)).expect("sound settings")
    }

    /// A checkout that ends without a session.
    fn turned_away(&self, pool: &ConnectionPool) -> Error {
        let result = self.sim.block_on(pool.checkout());
        result.map(drop).expect_err("there is no session to be had")
    }
}

#[test]
fn a_server_that_starts_stops_or_recovers() {
    let mut table = Table::default();
    for what in ["starting up", "shutting down", "in recovery mode"] {
        let world = World::new();
        let message = format!("the database system is {what}");
        world
            .server
            .set_start_up(StartUp::Error("57P03".into(), message.clone()));
        let error = world.turned_away(&world.pool(|config| config));
        table.reports("the server is not ready (57P03)", "ServerNotReady", &error, PATIENCE);
        let last = report(&error).last_connect_error.as_ref().expect("a failed connect");
        assert_eq!(last.sqlstate().map(|state| state.code()), Some("57P03"));
        assert!(error.to_string().contains(&message), "{error}");
    }
    table.print("the server is not ready");
}

#[test]
fn a_connect_that_is_not_answered_at_any_step() {
    let mut table = Table::default();
    let steps = [
        StartStep::Accepted,
        StartStep::Requested,
        StartStep::Authenticated,
        StartStep::Reported,
        StartStep::Keyed,
    ];
    for step in steps {
        let world = World::new();
        world.server.set_start_up(StartUp::Hang(step));
        let error = world.turned_away(&world.pool(|config| config));
        table.reports("the start-up hangs", "ConnectHangs", &error, PATIENCE);
        assert_eq!(report(&error).connecting, 1);
        // Once the connect itself ran out of time, that is the last connect error.
        let world = World::new();
        world.server.set_start_up(StartUp::Hang(step));
        let error = world.turned_away(&world.pool(|config| config.connect_timeout(Duration::from_secs(1))));
        table.reports(
            "the start-up hangs, connect_timeout passed",
            "ConnectHangs",
            &error,
            PATIENCE,
        );
        assert!(report(&error).last_connect_error.is_some(), "{error}");
        // A server that closes the connection instead is another cause.
        let world = World::new();
        world.server.set_start_up(StartUp::Close(step));
        let error = world.turned_away(&world.pool(|config| config));
        table.reports("the start-up is broken off", "ConnectFails", &error, PATIENCE);
        assert!(report(&error).last_connect_error.is_some(), "{error}");
    }
    assert_eq!(table.print("the start-up"), 2);
}

#[test]
fn a_network_that_answers_or_does_not() {
    let mut table = Table::default();
    for (injected, mode, expected) in [
        ("packets are dropped", ConnectMode::Hang, "ConnectHangs"),
        (
            "connecting takes too long",
            ConnectMode::Slow(Duration::from_secs(9)),
            "ConnectHangs",
        ),
        ("connecting is refused", ConnectMode::Refused, "ConnectFails"),
        ("accepted and closed", ConnectMode::AcceptThenClose, "ConnectFails"),
    ] {
        let world = World::new();
        let endpoint: Endpoint = world.server.endpoint();
        world.sim.set_connect_mode(&endpoint, mode);
        let error = world.turned_away(&world.pool(|config| config));
        table.reports(injected, expected, &error, PATIENCE);
    }
    for (injected, expected) in [
        ("the name is unknown", "ConnectFails"),
        ("the look-up hangs", "ConnectHangs"),
    ] {
        let sim = Sim::new(12);
        if expected == "ConnectHangs" {
            sim.hang_host("db1");
        }
        let config = PoolConfig::new("main", "host=db1 user=app").expect("a sound DSN");
        let pool = ConnectionPool::open(Arc::new(sim.runtime()), config.checkout_timeout(PATIENCE)).expect("sound");
        let error = sim.block_on(pool.checkout()).map(drop).expect_err("nobody is there");
        table.reports(injected, expected, &error, PATIENCE);
        assert_eq!(
            error.to_string().contains("\"db1\""),
            expected == "ConnectFails",
            "{error}"
        );
    }
    table.print("the network");
}

#[test]
fn sessions_that_change_hands_but_not_to_this_caller() {
    let world = World::new();
    let pool = world.pool(|config| config);
    let runtime = world.sim.runtime();
    let error = world.sim.block_on(async {
        let first = pool.checkout().await.expect("a session");
        // Two callers before this one, at work for two seconds and for nine.
        let busy = async |seconds| {
            let lease = pool.checkout().await.expect("a session");
            runtime.sleep_until(runtime.now() + Duration::from_secs(seconds)).await;
            drop(lease);
        };
        let first = async {
            runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
            drop(first);
        };
        let last = async { pool.checkout().await.map(drop).expect_err("others are first") };
        futures::join!(first, busy(2), busy(9), last).3
    });
    let mut table = Table::default();
    table.reports("others are first in the queue", "WaitingTurn", &error, PATIENCE);
    table.print("turns");
}

#[test]
fn how_many_are_before_a_caller_is_counted_without_those_behind_it() {
    let world = World::new();
    let pool = world.pool(|config| config);
    let ahead = world.sim.block_on(async {
        let held = pool.checkout().await.expect("a session");
        let waits = (0..5u64).map(|place| {
            // Whoever came first waits longest.
            let pool = &pool;
            async move {
                let patience = Duration::from_secs(5 - place % 5);
                let error = pool
                    .checkout_within(patience)
                    .await
                    .map(drop)
                    .expect_err("all is leased");
                assert_eq!(format!("{:?}", report(&error).cause), "AllLeased");
                report(&error).ahead
            }
        });
        let ahead = futures::future::join_all(waits).await;
        drop(held);
        ahead
    });
    assert_eq!(ahead, [0, 1, 2, 3, 4]);
}

#[test]
fn sessions_that_are_still_being_closed() {
    let world = World::new();
    world.sim.set_pipe_options(PipeOptions {
        capacity: 1,
        ..PipeOptions::default()
    });
    let pool = world.pool(|config| config.close_timeout(Duration::from_secs(20)));
    drop(world.sim.block_on(pool.checkout()).expect("a session"));
    // Not even the goodbye gets through.
    world.server.session_control(0).stall(Direction::ToServer);
    pool.retire();
    world.sim.run_until_idle();
    let error = world.turned_away(&pool);
    let mut table = Table::default();
    table.reports("a session is still being closed", "Closing", &error, PATIENCE);
    assert_eq!((report(&error).closing, report(&error).max), (1, 1));
    table.print("closing");
}
