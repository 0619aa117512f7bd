//! A peer that stops answering, at any step, costs a slot for a stated time at most; when it answers again, all is well.
//!
//! In the simulator each step hangs by itself and the bounds are exact; in front of real servers a proxy swallows
//! everything.

#[path = "black_hole/behind_a_proxy.rs"]
mod behind_a_proxy;
#[path = "support/counting.rs"]
mod counting;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use gdbpool::{BoxFuture, ConnectionPool, ErrorKind, InteractionPool, Outcome, PoolConfig, PoolStatus};
use gdbpool_sim::{
    Answer, CancelMode, ConnectMode, Direction, RowSet, ScriptedServer, Sim, StartStep, StartUp, Step, Type,
};

use counting::{Counting, Counts};

const ANSWER: Duration = Duration::from_millis(2_000);
const CHECKOUT: Duration = Duration::from_millis(1_000);
const CLOSE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_millis(300);
const GRACE: Duration = Duration::from_millis(50);
const PING: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_millis(400);
/// What the pool's coarse clock may be behind by.
const TICK: Duration = Duration::from_millis(50);

fn bounded(config: PoolConfig) -> PoolConfig {
    config
        .size(1)
        .answer_timeout(Some(ANSWER))
        .checkout_timeout(CHECKOUT)
        .close_timeout(CLOSE)
        .connect_timeout(CONNECT)
        .cancel_grace(GRACE)
        .ping_timeout(PING)
        .settle_timeout(SETTLE)
        .connect_backoff(Duration::from_millis(1), Duration::from_millis(10))
}

/// No slot is on its way anywhere, and nobody waits.
fn is_at_rest(status: &PoolStatus) -> bool {
    status.leased + status.settling + status.connecting + status.closing + status.waiting == 0
}

// --- In the simulator -------------------------------------------------------------------------------------------------

/// One session, idle and warm.
struct Stage {
    sim: Sim,
    server: ScriptedServer,
    counts: Arc<Counts>,
    db: InteractionPool,
    pool: ConnectionPool,
}

/// What becomes of the cancel request, where there is one.
#[derive(Clone, Copy, Debug)]
enum Cancel {
    DialHangs,
    Hangs,
    IsLost,
}

const CANCELS: [Cancel; 3] = [Cancel::DialHangs, Cancel::Hangs, Cancel::IsLost];

type Begun = BoxFuture<'static, ()>;

impl Stage {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let server = scripted::server(&sim, 1);
        let number = |n: i32| vec![n.into()];
        let rows = |rows| Answer::Rows(RowSet::new(&[("n", Type::Int4)], rows));
        server.on("SELECT 1", rows(vec![number(1)]));
        server.on("SELECT n FROM t", rows(vec![number(1), number(2), number(3)]));
        server.on("UPDATE t SET n = 1", Answer::tag("UPDATE 1"));
        let some = RowSet::new(&[("n", Type::Int4)], vec![number(1), number(2)]);
        server.on("SELECT m FROM t", Answer::RowsThenStall(some, 1));
        let runtime = Counting::new(Arc::new(sim.runtime()));
        let counts = Arc::clone(&runtime.counts);
        let builder = InteractionPool::builder(runtime).pool(bounded(scripted::config("p", 1)));
        let db = sim.block_on(builder.open()).expect("open");
        let pool = db.pool("p").expect("a pool");
        let stage = Self {
            sim,
            server,
            counts,
            db,
            pool,
        };
        stage.works("before");
        stage
    }

    fn works(&self, what: &str) {
        let answer = self.sim.block_on(self.db.run("SELECT 1").scalar::<i32>().into_future());
        assert_eq!(answer.unwrap_or_else(|error| panic!("{what}: {error:?}")), 1, "{what}");
    }

    fn hinder_cancels(&self, cancel: Cancel) {
        match cancel {
            Cancel::DialHangs => self.sim.set_connect_mode(&self.server.endpoint(), ConnectMode::Hang),
            Cancel::Hangs => self.server.set_cancel_mode(CancelMode::Hang),
            Cancel::IsLost => self.server.set_cancel_mode(CancelMode::Lost),
        }
    }

    /// Every slot is back, and nothing is open that the pool does not count.
    fn all_back(&self, what: &str) {
        let status = self.pool.status();
        assert!(is_at_rest(&status), "{what}: {status}");
        assert_eq!(self.counts.streams.now(), status.size as usize, "{what}: {status}");
    }

    /// The network heals, and the pool works as before.
    fn heal(&self, what: &str) {
        self.sim.set_connect_mode(&self.server.endpoint(), ConnectMode::Accept);
        self.server.set_cancel_mode(CancelMode::Prompt);
        self.server.set_start_up(StartUp::Trust);
        // An answer may have been read to its end right before the silence: that session is idle, and speaks again.
        for session in self.server.sessions() {
            self.server.resume_session(session.ordinal);
        }
        let since = self.sim.now();
        self.works(what);
        let waited = self.sim.now() - since;
        assert!(waited <= TICK, "{what}: {waited:?}");
        assert!(
            self.server.violations().is_empty(),
            "{what}: {:?}",
            self.server.violations()
        );
    }

    /// Begins `work`, leaves it after 100 ms, and looks for the slot when the bound of settling has passed.
    fn leave(&self, what: &str, work: Begun) {
        let mut begun = self.sim.manual(work);
        let ended = begun.settle().is_ready();
        if !ended {
            self.sim.advance(Duration::from_millis(100));
        }
        drop(begun);
        self.sim.advance(SETTLE + TICK);
        self.all_back(what);
        self.heal(what);
    }
}

#[test]
fn start_ups_that_hang() {
    let steps = [
        StartStep::Accepted,
        StartStep::Requested,
        StartStep::Authenticated,
        StartStep::Reported,
        StartStep::Keyed,
    ];
    let hangs = steps.map(Some).into_iter().chain([None]);
    for (seed, step) in (0..).zip(hangs) {
        let what = format!("{step:?}");
        let stage = Stage::new(seed);
        stage.pool.retire();
        match step {
            Some(step) => stage.server.set_start_up(StartUp::Hang(step)),
            None => stage.sim.set_connect_mode(&stage.server.endpoint(), ConnectMode::Hang),
        }
        let since = stage.sim.now();
        let error = stage.sim.block_on(stage.pool.checkout()).expect_err("no session");
        assert!(
            matches!(error.kind(), ErrorKind::CheckoutTimeout(_)),
            "{what}: {error:?}"
        );
        assert_eq!(stage.sim.now() - since, CHECKOUT, "{what}");
        stage.sim.advance(CONNECT);
        stage.all_back(&what);
        stage.heal(&what);
    }
}

/// The server falls silent after each byte of its answer, and then does not mind being cancelled.
#[test]
fn answers_that_stop_at_each_byte() {
    let mut played = 0;
    // Longer than each answer: at its end nothing hangs.
    for bytes in 0..80 {
        for (cancel, at) in CANCELS
            .into_iter()
            .flat_map(|cancel| [(cancel, Step::Parse), (cancel, Step::Execute)])
        {
            let read = Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]; 3]);
            for (sql, answer) in [
                ("SELECT n FROM t", read),
                ("UPDATE t SET n = 1", Answer::tag("UPDATE 1")),
            ] {
                let what = format!("{sql} stalls after {bytes} bytes of {at:?}, cancel: {cancel:?}");
                let stage = Stage::new(bytes);
                stage.server.once(sql, answer.stall_at(bytes).at(at));
                stage.hinder_cancels(cancel);
                let db = stage.db.clone();
                stage.leave(&what, Box::pin(async move { drop(db.run(sql).await) }));
                played += 1;
            }
        }
    }
    println!("{played} answers that stop");
}

/// The session's connection swallows everything, or one direction of it does, from each step on.
#[test]
fn connections_that_swallow() {
    let directions: [&[Direction]; 3] = [
        &[Direction::ToServer],
        &[Direction::ToClient],
        &[Direction::ToServer, Direction::ToClient],
    ];
    for (seed, directions) in (0..).zip(directions) {
        for cancel in CANCELS {
            for (name, leaves) in leavings() {
                let what = format!("{name}, {directions:?}, cancel: {cancel:?}");
                let stage = Stage::new(seed);
                let (pool, server) = (stage.pool.clone(), stage.server.clone());
                let swallow = move || {
                    let control = server.session_control(0);
                    directions.iter().for_each(|direction| control.stall(*direction));
                };
                stage.hinder_cancels(cancel);
                stage.leave(&what, leaves(pool, Box::new(swallow)));
            }
        }
    }
}

type Swallow = Box<dyn FnOnce() + Send>;
type Leaving = fn(ConnectionPool, Swallow) -> Begun;

/// What a borrower was at when the connection went dead.
fn leavings() -> [(&'static str, Leaving); 6] {
    async fn lease(pool: &ConnectionPool) -> gdbpool::Lease {
        pool.checkout().await.expect("a lease")
    }
    [
        ("in the clean-up", |pool, swallow| {
            Box::pin(async move {
                let lease = lease(&pool).await;
                lease.query("SELECT 1", &[]).await.expect("a row");
                swallow();
            })
        }),
        ("in the roll-back", |pool, swallow| {
            Box::pin(async move {
                lease(&pool).await.batch("BEGIN").await.expect("begin");
                swallow();
            })
        }),
        ("at a prepare", |pool, swallow| {
            Box::pin(async move {
                let lease = lease(&pool).await;
                swallow();
                drop(lease.prepare("SELECT n FROM t").await);
            })
        }),
        ("at a statement", |pool, swallow| {
            Box::pin(async move {
                let lease = lease(&pool).await;
                lease.prepare("SELECT n FROM t").await.expect("prepare");
                swallow();
                drop(lease.query("SELECT n FROM t", &[]).await);
            })
        }),
        ("at a batch", |pool, swallow| {
            Box::pin(async move {
                let lease = lease(&pool).await;
                swallow();
                drop(lease.batch("UPDATE t SET n = 1").await);
            })
        }),
        ("at a discarded lease", |pool, swallow| {
            Box::pin(async move {
                let lease = lease(&pool).await;
                swallow();
                lease.discard();
            })
        }),
    ]
}

/// A call with a deadline gives its word in time, and does not claim what it cannot know.
#[test]
fn calls_with_a_deadline() {
    for cancel in CANCELS {
        for (sql, read, outcome) in [
            ("UPDATE t SET n = 1", false, Outcome::Unknown),
            ("SELECT n FROM t", true, Outcome::RolledBack),
        ] {
            let what = format!("{sql}, cancel: {cancel:?}");
            let stage = Stage::new(5);
            let order = || match read {
                true => stage.db.run(sql).read(),
                false => stage.db.run(sql),
            };
            // Known to the session, so that it is at the statement itself that the server falls silent.
            stage.sim.block_on(order().into_future()).expect("an answer");
            stage.server.stall_session(0);
            stage.hinder_cancels(cancel);
            let (since, span) = (stage.sim.now(), Duration::from_millis(100));
            let error = stage
                .sim
                .block_on(order().timeout(span).into_future())
                .expect_err("silence");
            assert!(matches!(error.kind(), ErrorKind::Timeout), "{what}: {error:?}");
            assert_eq!(error.outcome(), outcome, "{what}: {error:?}");
            let waited = stage.sim.now() - since;
            assert!(waited <= span + GRACE, "{what}: {waited:?}");
            stage.sim.advance(SETTLE + TICK);
            stage.all_back(&what);
            stage.heal(&what);
        }
    }
}

/// The session died while it was idle: the next caller finds out, and is served by another one.
/// Calls on a lease, and streams, have no deadline of their own: the pool's patience bounds them.
#[test]
fn calls_without_a_deadline() {
    for (streams, on_lease) in [(false, true), (true, true), (true, false)] {
        let what = format!("streams: {streams}, on a lease: {on_lease}");
        let stage = Stage::new(8);
        let since = stage.sim.now();
        let error = stage.sim.block_on(async {
            if !on_lease {
                let mut rows = stage.db.run("SELECT m FROM t").read().stream().await.expect("a stream");
                rows.next().await.expect("a row").expect("a row");
                return rows.next().await.expect("an end").expect_err("silence");
            }
            let lease = stage.pool.checkout().await.expect("a lease");
            if !streams {
                return lease.query("SELECT m FROM t", &[]).await.expect_err("silence");
            }
            let mut rows = lease.query_stream("SELECT m FROM t", &[]).await.expect("a stream");
            rows.next().await.expect("a row").expect("a row");
            rows.next().await.expect("an end").expect_err("silence")
        });
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{what}: {error:?}");
        assert_eq!(error.spent().first().map(|spent| spent.1), Some(ANSWER), "{what}");
        assert!(stage.sim.now() - since <= ANSWER + 2 * TICK, "{what}");
        stage.sim.advance(SETTLE + TICK);
        stage.all_back(&what);
        stage.works(&what);
    }
}

#[test]
fn pings_without_an_answer() {
    let stage = Stage::new(6);
    stage.sim.advance(Duration::from_secs(1));
    stage.server.stall_session(0);
    let since = stage.sim.now();
    stage.works("after a ping");
    assert_eq!(stage.sim.now() - since, PING);
    assert_eq!(stage.pool.status().pings_failed, 1);
    stage.sim.advance(CLOSE + TICK);
    stage.all_back("after a ping");
}

/// Goodbyes that are not answered.
#[test]
fn closes_without_an_answer() {
    let stage = Stage::new(7);
    stage.server.stall_session(0);
    stage.pool.retire();
    stage.sim.run_until_idle();
    assert_eq!(stage.pool.status().closing, 1, "{}", stage.pool.status());
    stage.sim.advance(CLOSE + TICK);
    stage.all_back("retired");
    stage.heal("retired");

    stage.server.stall_session(1);
    let lease = stage.sim.block_on(stage.pool.checkout()).expect("a lease");
    let since = stage.sim.now();
    let report = stage.sim.block_on(stage.pool.close(Duration::from_millis(500)));
    assert!(stage.sim.now() - since <= Duration::from_millis(500) + CLOSE);
    assert_eq!(
        (report.cut.len(), report.remaining),
        (1, 1),
        "the lease is still out: {report:?}"
    );
    drop(lease);
    stage.sim.run_until_idle();
    stage.all_back("closed");
}
