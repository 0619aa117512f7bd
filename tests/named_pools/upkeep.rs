//! What a pool does by itself as time goes by: in the simulator, where an hour is a moment.

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{CloseReason, ConnectionPool, ErrorKind, InteractionPool, Lease, PoolConfig, PoolStatus};
use gdbpool_sim::{Kill, ScriptedServer, Sim};

use crate::scripted;

struct World {
    sim: Sim,
    server: ScriptedServer,
    pool: ConnectionPool,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new(change: impl FnOnce(PoolConfig) -> PoolConfig) -> Self {
        let sim = Sim::new(51);
        let server = scripted::server(&sim, 1);
        let config = scripted::config("main", 1)
            .size(10)
            .max_lifetime(None)
            .idle_timeout(None);
        let pool = ConnectionPool::open(Arc::new(sim.runtime()), change(config)).expect("sound settings");
        Self { sim, server, pool }
    }

    fn take(&self, count: usize) -> Vec<Lease> {
        let leases = (0..count).map(|_| self.pool.checkout());
        let leases = self.sim.block_on(futures::future::join_all(leases));
        leases.into_iter().map(|lease| lease.expect("a session")).collect()
    }

    /// The pool after so much more time.
    fn after(&self, span: Duration) -> PoolStatus {
        self.sim.advance(span);
        self.pool.status()
    }
}

#[test]
fn the_minimum_is_kept() {
    let world = World::new(|config| config.min_size(3));
    assert_eq!(world.after(seconds(1)).idle, 3, "without anybody asking");
    for ordinal in 0..3 {
        world.server.kill_session(ordinal, Kill::Fatal);
    }
    assert_eq!(world.after(seconds(1)).idle, 3);
    assert_eq!((world.server.sessions().len(), world.server.open_sessions()), (6, 3));
    world.server.stop(Kill::Notice);
    assert_eq!(world.after(seconds(60)).size, 0);
    world.server.restart();
    let status = world.after(seconds(20));
    assert_eq!((status.idle, world.server.open_sessions()), (3, 3), "{status}");
}

#[test]
fn unused_sessions_beyond_the_minimum_are_closed() {
    let world = World::new(|config| config.min_size(2).idle_timeout(Some(seconds(600))));
    drop(world.take(7));
    assert_eq!(world.after(seconds(590)).idle, 7);
    let status = world.after(seconds(20));
    assert_eq!(
        (status.idle, status.closes(CloseReason::IdleTimeout)),
        (2, 5),
        "{status}"
    );
    assert_eq!(world.server.open_sessions(), 2, "the servers' processes are gone, too");
    // What is used stays, of the many the same ones: the session used last is used next.
    drop(world.take(4));
    for _ in 0..20 {
        world.sim.advance(seconds(100));
        drop(world.take(3));
    }
    assert_eq!(world.after(seconds(1)).idle, 3);
    // Held for longer than that is used.
    let leases = world.take(3);
    assert_eq!(world.after(seconds(6_000)).leased, 3);
    drop(leases);
    assert_eq!(world.after(seconds(1)).idle, 3);
    let forever = World::new(|config| config);
    drop(forever.take(7));
    assert_eq!(forever.after(seconds(1_000_000)).idle, 7);
}

#[test]
fn old_sessions_are_closed_each_at_a_time_of_its_own() {
    let world = World::new(|config| config.min_size(8).max_connecting(8).max_lifetime(Some(seconds(1_000))));
    let mut ends = [0; 8];
    for second in 1..=1_050u64 {
        world.sim.advance(seconds(1));
        for (end, session) in ends.iter_mut().zip(world.server.sessions()) {
            if *end == 0 && session.closed {
                *end = second;
            }
        }
    }
    assert!(ends.iter().all(|end| (900..=1_001).contains(end)), "{ends:?}");
    ends.sort_unstable();
    let different = ends.chunk_by(|a, b| a == b).count();
    assert!(different >= 6, "sessions born together end together: {ends:?}");
    let status = world.after(seconds(1));
    assert_eq!((status.idle, status.min), (8, 8), "each was replaced: {status}");
    assert!(status.closes(CloseReason::Lifetime) >= 8, "{status}");
}

#[test]
fn a_lease_outlives_its_sessions_lifetime() {
    let world = World::new(|config| config.max_lifetime(Some(seconds(100))));
    let leases = world.take(1);
    assert_eq!(world.after(seconds(1_000)).leased, 1);
    world.sim.block_on(leases[0].batch("SELECT 1")).expect("it works on");
    drop(leases);
    let status = world.after(seconds(1));
    assert_eq!((status.size, status.closes(CloseReason::Lifetime)), (0, 1), "{status}");
}

#[test]
fn an_overlong_hold_is_reported_once() {
    let world = World::new(|config| config.hold_warning(Some(seconds(60))));
    let line = line!() + 1;
    let first = world.sim.block_on(world.pool.checkout()).expect("a session");
    world.sim.advance(seconds(30));
    let second = world.sim.block_on(world.pool.checkout()).expect("a session");
    assert_eq!(world.after(seconds(29)).overlong_holds, 0);
    let status = world.after(seconds(2));
    assert_eq!(status.overlong_holds, 1);
    assert_eq!(
        (status.holders[0].at.file(), status.holders[0].at.line()),
        (file!(), line)
    );
    assert!(status.holders[0].held >= seconds(61), "{status:?}");
    assert_eq!(world.after(seconds(600)).overlong_holds, 2, "each once");
    drop((first, second));
    let again = world.sim.block_on(world.pool.checkout()).expect("a session");
    assert_eq!(
        world.after(seconds(61)).overlong_holds,
        3,
        "the next hold of the same session is another one"
    );
    drop(again);
    let never = World::new(|config| config.hold_warning(None));
    let lease = never.take(1);
    assert_eq!(never.after(seconds(100_000)).overlong_holds, 0);
    drop(lease);
}

#[test]
fn warming_up_waits_for_the_minimum_or_says_why_not() {
    let world = World::new(|config| config.min_size(5));
    assert!(world.sim.block_on(world.pool.warm_up(seconds(5))).is_ok());
    assert_eq!(world.pool.status().idle, 5);
    world.server.stop(Kill::Fatal);
    world.sim.advance(seconds(1));
    let before = world.sim.now();
    let error = world
        .sim
        .block_on(world.pool.warm_up(seconds(5)))
        .expect_err("nobody is there");
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
    assert_eq!((error.pool(), world.sim.now() - before), (Some("main"), seconds(5)));
    let cause = std::error::Error::source(&error)
        .expect("the last connect error")
        .to_string();
    assert!(cause.contains("no session could be made"), "{cause}");
    world.server.restart();
    assert!(world.sim.block_on(world.pool.warm_up(seconds(30))).is_ok());
    assert!(world.pool.last_connect_error().is_none(), "a success ends it");
}

#[test]
fn opening_waits_for_the_minimum_but_not_for_ever() {
    let sim = Sim::new(52);
    let server = scripted::server(&sim, 1);
    let config = || scripted::config("main", 1).min_size(2).connect_timeout(seconds(7));
    let db = sim
        .block_on(InteractionPool::builder(sim.runtime()).pool(config()).open())
        .expect("open");
    assert_eq!((db.status()[0].idle, sim.now().as_nanos() < 1_000_000_000), (2, true));
    server.stop(Kill::Fatal);
    let before = sim.now();
    let late = sim
        .block_on(InteractionPool::builder(sim.runtime()).pool(config()).open())
        .expect("it goes on trying");
    assert_eq!((late.status()[0].size, sim.now() - before), (0, seconds(7)));
    server.restart();
    sim.advance(seconds(20));
    assert_eq!((late.status()[0].idle, db.status()[0].idle), (2, 2));
}

/// The last clone of all handles closes the pools; those of a pool that is held keep that one open.
#[test]
fn dropped_pools_are_closed() {
    let world = World::new(|config| config.min_size(3));
    world.sim.advance(seconds(1));
    assert_eq!(world.server.open_sessions(), 3);
    let World { sim, server, pool } = world;
    let clone = pool.clone();
    drop(pool);
    sim.advance(seconds(1));
    assert_eq!((server.open_sessions(), clone.status().idle), (3, 3));
    drop(clone);
    sim.advance(seconds(1));
    assert_eq!(server.open_sessions(), 0);
    assert!(
        server.violations().is_empty(),
        "each said goodbye: {:?}",
        server.violations()
    );
}
