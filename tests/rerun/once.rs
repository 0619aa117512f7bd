//! What counts as a run: sessions that were dead before the function was called cost none. In the simulator.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gdbpool::{Error, ErrorKind, InteractionPool, Outcome, Runtime, Transaction};
use gdbpool_sim::{Answer, Kill, ScriptedServer, Sim, Type, Value};

use super::scripted;

const WRITE: &str = "INSERT INTO t VALUES (1)";
const KILLS: [Kill; 3] = [Kill::Fatal, Kill::Notice, Kill::Silent];

struct World {
    sim: Sim,
    server: ScriptedServer,
    db: InteractionPool,
    runs: AtomicU32,
}

impl World {
    /// One session is there, and idle.
    fn new() -> Self {
        let sim = Sim::new(29);
        let server = scripted::server(&sim, 1);
        server.on(WRITE, Answer::tag("INSERT 0 1"));
        let id = Answer::rows(&[("id", Type::Text)], vec![vec![Value::from("7")]]);
        server.on("SELECT pg_catalog.pg_current_xact_id_if_assigned()", id);
        let config = scripted::config("main", 1).size(1);
        let builder = InteractionPool::builder(sim.runtime()).pool(config);
        let db = sim.block_on(builder.open()).expect("sound settings");
        let checkout = db.pool("main").expect("the pool");
        drop(sim.block_on(checkout.checkout()).expect("a session"));
        sim.advance(Duration::from_millis(100));
        Self {
            sim,
            server,
            db,
            runs: AtomicU32::new(0),
        }
    }

    /// Calls a function that inserts once; `before` is told of each run before anything is sent.
    fn insert(&self, limit: u32, before: impl Fn(u32) + Send + Sync) -> Result<u64, Error> {
        let before = &before;
        let order = self.db.transact(|tx: Transaction| async move {
            before(self.runs.fetch_add(1, Ordering::SeqCst) + 1);
            // What happens to the session meanwhile is known before anything is sent.
            let runtime = self.sim.runtime();
            runtime.sleep_until(runtime.now() + Duration::from_millis(10)).await;
            tx.execute(WRITE, &[]).await
        });
        self.sim.block_on(order.reruns(limit).into_future())
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn kill_the_last(&self, kill: Kill) {
        self.server.kill_session(self.server.sessions().len() - 1, kill);
    }

    /// How often the write was committed.
    fn committed(&self) -> usize {
        self.sim.advance(Duration::from_secs(20));
        let sessions = self.server.sessions();
        sessions.iter().map(|session| session.committed.len()).sum()
    }
}

#[test]
fn a_session_that_dies_under_the_function_has_cost_its_run() {
    for kill in KILLS {
        let world = World::new();
        let error = world
            .insert(0, |_| world.kill_the_last(kill))
            .expect_err("it may not be run again");
        assert_eq!(world.runs(), 1, "{kill:?}: {error:?}");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{kill:?}: {error:?}");
        assert!(
            matches!(error.outcome(), Outcome::NotExecuted | Outcome::RolledBack),
            "{kill:?}: {error:?}"
        );
        assert_eq!(world.committed(), 0, "{kill:?}");
        assert_eq!(world.db.stats().retries, 0, "{kill:?}");
    }
}

#[test]
fn a_session_that_was_dead_before_the_function_was_called_costs_no_run() {
    for kill in KILLS {
        for idle in [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(10)] {
            let world = World::new();
            world.sim.advance(idle);
            world.kill_the_last(kill);
            world.sim.run_until_idle();
            let done = world.insert(0, |_| {});
            assert_eq!(done.map_err(|error| format!("{kill:?}: {error:?}")), Ok(1));
            assert_eq!((world.runs(), world.committed()), (1, 1), "{kill:?} after {idle:?}");
        }
    }
}

#[test]
fn reruns_are_counted_as_retries() {
    let world = World::new();
    world.server.once(WRITE, Answer::error("40001", "no order"));
    assert_eq!(world.insert(10, |_| {}).ok(), Some(1));
    assert_eq!((world.runs(), world.db.stats().retries), (2, 1), "a conflict");
    let spoil = |run| {
        if run == 3 {
            world.kill_the_last(Kill::Fatal);
        }
    };
    assert_eq!(world.insert(10, spoil).ok(), Some(1));
    assert_eq!((world.runs(), world.db.stats().retries), (4, 2), "a lost session");
    world.server.on(WRITE, Answer::error("40P01", "a deadlock"));
    world.insert(3, |_| {}).expect_err("it never gets through");
    assert_eq!((world.runs(), world.db.stats().retries), (8, 5), "until the limit");
    assert_eq!(world.committed(), 2);
}
