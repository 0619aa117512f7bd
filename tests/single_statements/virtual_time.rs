//! What depends on when exactly bytes arrive: in the simulator, where a byte is under way as long as the test says.

use std::time::Duration;

use gdbpool::{ErrorKind, InteractionPool, Outcome, PoolConfig};
use gdbpool_sim::{Answer, CancelMode, Kill, PipeOptions, ScriptedServer, Sim, Type};

use super::said;
use crate::scripted;

const WRITE: &str = "INSERT INTO t VALUES (1)";
const READ: &str = "SELECT n FROM t";
const ONE_WAY: Duration = Duration::from_millis(10);
const ROUND_TRIP: Duration = Duration::from_millis(20);

struct World {
    sim: Sim,
    server: ScriptedServer,
    db: InteractionPool,
}

impl World {
    /// One session that has both statements in its cache.
    fn new(change: impl FnOnce(PoolConfig) -> PoolConfig) -> Self {
        let sim = Sim::new(31);
        sim.set_pipe_options(PipeOptions {
            latency: ONE_WAY,
            ..PipeOptions::default()
        });
        let server = scripted::server(&sim, 1);
        server.on(WRITE, Answer::tag("INSERT 0 1"));
        server.on(
            READ,
            Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()], vec![2.into()]]),
        );
        let config = scripted::config("main", 1).size(1).ping_after(None);
        let builder = InteractionPool::builder(sim.runtime()).pool(change(config));
        let db = sim.block_on(builder.open()).expect("sound settings");
        let world = Self { sim, server, db };
        world.sim.block_on(async {
            world.db.run(READ).read().await.expect("a read");
            world.db.run(WRITE).await.expect("a write");
        });
        world
    }

    /// How long it took.
    fn timed<T>(&self, act: impl Future<Output = T>) -> (T, Duration) {
        let before = self.sim.now();
        let done = self.sim.block_on(act);
        (done, self.sim.now() - before)
    }

    fn sent(&self, sql: &str) -> usize {
        let sessions = self.server.sessions();
        let all = sessions.iter().flat_map(|session| &session.statements);
        all.filter(|text| *text == sql).count()
    }
}

#[test]
fn the_mode_is_kept_in_step_without_a_trip() {
    let world = World::new(|config| config);
    for round in 2..50 {
        let (rows, took) = world.timed(world.db.run(READ).read().into_future());
        assert_eq!(
            (rows.expect("rows").len(), took),
            (2, ROUND_TRIP),
            "a read after a write"
        );
        let (count, took) = world.timed(world.db.run(WRITE).execute().into_future());
        assert_eq!((count.expect("a count"), took), (1, ROUND_TRIP), "a write after a read");
        assert_eq!((world.sent(READ), world.sent(WRITE)), (round, round));
    }
    let settings = "SET default_transaction_read_only = on";
    assert_eq!(world.sent(settings), 49, "one for each change of mode");
    let before = world.sent(settings);
    for _ in 0..10 {
        let (_, took) = world.timed(world.db.run(READ).read().into_future());
        assert_eq!(took, ROUND_TRIP);
    }
    assert_eq!(world.sent(settings), before + 1, "none while the mode stays");
    assert!(world.server.violations().is_empty());
}

/// What the server does with a cancel request, and when the answer to the write comes, decide what is known.
#[test]
fn a_late_word_counts_within_the_grace() {
    let seconds = Duration::from_secs;
    let answer = || Answer::tag("INSERT 0 1");
    let refused = || Answer::error("23505", "duplicate key value violates unique constraint");
    let done: Result<u64, (Option<&str>, Outcome)> = Ok(1);
    let unknown = Err((Some("40003"), Outcome::Unknown));
    for (what, cancel, answer, expected) in [
        (
            "it hits",
            CancelMode::Prompt,
            answer().after(seconds(3)),
            Err((Some("57014"), Outcome::RolledBack)),
        ),
        (
            "it hits late",
            CancelMode::Delayed(seconds(1)),
            answer().after(seconds(9)),
            Err((Some("57014"), Outcome::RolledBack)),
        ),
        (
            "it is lost, success comes late",
            CancelMode::Lost,
            answer().after(seconds(3)),
            done,
        ),
        (
            "it is lost, an error comes late",
            CancelMode::Lost,
            refused().after(seconds(3)),
            Err((Some("23505"), Outcome::RolledBack)),
        ),
        (
            "it hangs, success comes late",
            CancelMode::Hang,
            answer().after(seconds(3)),
            done,
        ),
        (
            "it is slow, success comes before",
            CancelMode::Delayed(seconds(4)),
            answer().after(seconds(3)),
            done,
        ),
        (
            "it is lost, and no word comes",
            CancelMode::Lost,
            answer().after(seconds(60)),
            unknown,
        ),
        ("it hangs, and no word comes", CancelMode::Hang, Answer::Never, unknown),
    ] {
        let world = World::new(|config| config.cancel_grace(seconds(5)).settle_timeout(seconds(1)));
        world.server.set_cancel_mode(cancel);
        world.server.once(WRITE, answer);
        let order = world.db.run(WRITE).timeout(seconds(1)).execute();
        let (result, took) = world.timed(order.into_future());
        let result = match &result {
            Ok(count) => Ok(*count),
            Err(error) => Err(said(error)),
        };
        assert_eq!(result, expected, "{what}");
        assert!(took <= seconds(6), "{what}: {took:?}");
        assert_eq!(world.sent(WRITE), 2, "{what}: sent once");
        // Whatever became of it, the next write is served, and by no session on which a signal may still arrive.
        let next = world.sim.block_on(world.db.run(WRITE).execute().into_future());
        assert_eq!(next.ok(), Some(1), "{what}");
        assert_eq!(world.sent(WRITE), 3, "{what}");
    }
}

/// A session that ends without a word at each stage of a write.
#[test]
fn a_write_is_sent_once_whenever_its_session_ends() {
    for bytes in 0..200 {
        let world = World::new(|config| config);
        world.server.once(WRITE, Answer::tag("INSERT 0 1").cut_at(bytes));
        let result = world.sim.block_on(world.db.run(WRITE).execute().into_future());
        let times = world.sent(WRITE);
        match result {
            Ok(count) => assert_eq!((count, times), (1, 2), "cut after {bytes} bytes"),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Lost),
                    "cut after {bytes} bytes: {error:?}"
                );
                assert_eq!(
                    (said(&error), times),
                    ((Some("40003"), Outcome::Unknown), 2),
                    "cut after {bytes} bytes"
                );
            }
        }
    }
}

#[test]
fn a_write_on_a_session_that_is_gone_is_sent_on_another() {
    for kill in [Kill::Fatal, Kill::Notice, Kill::Silent] {
        let world = World::new(|config| config);
        world.server.kill_session(0, kill);
        // The server's end is gone; the word of it is still under way.
        world.sim.advance(ONE_WAY);
        let result = world.sim.block_on(world.db.run(WRITE).execute().into_future());
        assert_eq!((result.ok(), world.sent(WRITE)), (Some(1), 2), "{kill:?}");
    }
}

#[test]
fn a_read_is_sent_again_until_it_is_answered() {
    let rows = || Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()], vec![2.into()]]);
    for bytes in 0..60 {
        let world = World::new(|config| config);
        world.server.once(READ, rows().cut_at(bytes));
        let found = world.sim.block_on(world.db.run(READ).read().into_future());
        assert_eq!(found.expect("sent again").len(), 2, "cut after {bytes} bytes");
    }
    let world = World::new(|config| config);
    for _ in 0..3 {
        world.server.once(READ, Answer::CloseConnection);
    }
    let error = world
        .sim
        .block_on(world.db.run(READ).read().into_future())
        .expect_err("it fails each time");
    assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
    assert_eq!(error.outcome(), Outcome::RolledBack);
}
