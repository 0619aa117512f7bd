//! Promise: whoever reads the events sees what happens around the pools, in order: also what became of work whose future was
//! dropped. Whoever reads too slowly is told how much is missing, and nobody waits for a reader.

#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{FutureExt as _, StreamExt as _, poll};
use gdbpool::{Abandoned, CloseReason, Events, InteractionPool, PoolConfig, PoolEvent, Runtime};
use gdbpool_sim::{Answer, ScriptedServer, Sim, Type};

use runtimes::{on_each, until};
use support::{Cluster, Server, fresh_database, shared_cluster};

/// A pool "main" of one session on a database of its own, with a table `t (n int)`.
struct World {
    runtime: Arc<dyn Runtime>,
    cluster: &'static Cluster,
    database: String,
    db: InteractionPool,
    events: Events,
}

fn on_each_server<F>(change: fn(PoolConfig) -> PoolConfig, body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let cluster = &shared_cluster(server).primary;
        on_each(|runtime| {
            Box::pin(async move {
                let dsn = fresh_database(cluster);
                let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
                cluster.psql_in(&database, "CREATE TABLE t (n int)");
                let config = PoolConfig::new("main", &dsn).expect("a sound DSN").size(1);
                let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(change(config));
                let db = builder.open().await.expect("sound settings");
                let events = db.events();
                let world = World {
                    runtime,
                    cluster,
                    database,
                    db,
                    events,
                };
                body(world).await;
            })
        });
    }
}

impl World {
    async fn next(&mut self) -> PoolEvent {
        self.events.next().await.expect("the pool is open")
    }

    async fn connected(&mut self) -> i32 {
        match self.next().await {
            PoolEvent::Connected { pool, pid, took, .. } => {
                assert_eq!(&*pool, "main");
                assert!(took > Duration::ZERO);
                pid
            }
            other => panic!("{other}"),
        }
    }

    async fn closed(&mut self) -> (i32, CloseReason) {
        match self.next().await {
            PoolEvent::SessionClosed { pid, reason, .. } => (pid, reason),
            other => panic!("{other}"),
        }
    }

    async fn abandoned(&mut self) -> (Option<i32>, u32, Abandoned) {
        match self.next().await {
            PoolEvent::Abandoned { pid, at, outcome, .. } => {
                assert_eq!(at.file(), file!());
                (pid, at.line(), outcome)
            }
            other => panic!("{other}"),
        }
    }

    fn psql(&self, sql: &str) -> String {
        self.cluster.psql_in(&self.database, sql)
    }

    fn rows(&self) -> String {
        self.psql("SELECT count(*) FROM t")
    }

    /// Runs `work` until the server is at it, then drops it.
    async fn drop_in_the_middle(&self, work: impl Future) {
        let mut work = Box::pin(work.fuse());
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                    AND wait_event = 'PgSleep'";
        until(&*self.runtime, "the statement runs", || {
            assert!((&mut work).now_or_never().is_none(), "it ended");
            self.psql(busy) == "1"
        })
        .await;
    }

    async fn end(mut self) {
        self.db.close(Duration::from_secs(20)).await;
        let mut said = Vec::new();
        drop(self.db);
        // The end of the stream is seen when the last of the pool's tasks is gone.
        while let Some(event) = self.events.next().await {
            said.push(event.to_string());
        }
        assert!(said.iter().any(|event| event == "main: closed"), "{said:?}");
    }
}

#[test]
fn sessions_come_and_go() {
    on_each_server(
        |config| config.hold_warning(Some(Duration::from_millis(20))),
        |mut world| async move {
            let pool = world.db.pool("main").expect("the pool");
            let line = line!() + 1;
            let lease = pool.checkout().await.expect("a session");
            let pid = world.connected().await;
            assert_eq!(pid, lease.backend_pid());
            match world.next().await {
                PoolEvent::OverlongHold { holder, .. } => {
                    assert_eq!((holder.at.file(), holder.at.line()), (file!(), line));
                    assert!(holder.held >= Duration::from_millis(20));
                }
                other => panic!("{other}"),
            }
            lease.discard();
            assert_eq!(world.closed().await, (pid, CloseReason::Discarded));

            drop(pool.checkout().await.expect("a session"));
            let pid = world.connected().await;
            world.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
            assert_eq!(world.closed().await, (pid, CloseReason::ClosedByServer));

            drop(pool.checkout().await.expect("a session"));
            let pid = world.connected().await;
            pool.retire();
            assert_eq!(world.closed().await, (pid, CloseReason::Epoch));
            drop(pool);
            world.end().await;
        },
    );
}

#[test]
fn a_failed_connect_is_told() {
    on_each_server(
        |config| config.on_connect_sql("SELECT * FROM nowhere"),
        |mut world| async move {
            let pool = world.db.pool("main").expect("the pool");
            let timed_out = pool.checkout_within(Duration::from_millis(100)).await.map(drop);
            let error = timed_out.expect_err("no session");
            match world.next().await {
                PoolEvent::ConnectFailed { error, .. } => {
                    assert_eq!(error.sqlstate().map(|state| state.code()), Some("42P01"), "{error:?}");
                }
                other => panic!("{other} ({error})"),
            }
            drop(pool);
            world.end().await;
        },
    );
}

/// What becomes of a statement whose future is dropped is in the event, and is what the table says.
#[test]
fn dropped_work_is_told_with_its_outcome() {
    on_each_server(
        |config| config,
        |mut world| async move {
            let insert = "INSERT INTO t SELECT 1 FROM pg_sleep(3600)";
            let pid: i32 = world
                .db
                .run("SELECT pg_backend_pid()")
                .scalar()
                .await
                .expect("a number");
            world.connected().await;
            let db = world.db.clone();
            let line = line!() + 1;
            world.drop_in_the_middle(async { db.run(insert).await.map(drop) }).await;
            assert_eq!(world.abandoned().await, (Some(pid), line, Abandoned::Cancelled));
            assert_eq!(world.rows(), "0");

            let pool = db.pool("main").expect("the pool");
            let lease = pool.checkout().await.expect("a session");
            lease.batch("BEGIN; INSERT INTO t VALUES (1)").await.expect("a row");
            world.drop_in_the_middle(lease.batch("SELECT pg_sleep(3600)")).await;
            drop(lease);
            assert_eq!(world.abandoned().await.2, Abandoned::RolledBack);
            assert_eq!(world.rows(), "0");

            // The session is lost before anybody can know.
            let lease = pool.checkout().await.expect("a session");
            let work = lease.batch("INSERT INTO t SELECT 1 FROM pg_sleep(3600)");
            world.drop_in_the_middle(work).await;
            world.psql(&format!("SELECT pg_terminate_backend({pid}, 60000)"));
            until(&*world.runtime, "the end is seen", || {
                pool.status().closes(CloseReason::ClosedByServer) == 1
            })
            .await;
            drop(lease);
            let (mut told, mut closed) = (None, None);
            for _ in 0..2 {
                match world.next().await {
                    PoolEvent::Abandoned { outcome, .. } => told = Some(outcome),
                    PoolEvent::SessionClosed { reason, .. } => closed = Some(reason),
                    other => panic!("{other}"),
                }
            }
            assert_eq!(
                (told, closed),
                (Some(Abandoned::Unknown), Some(CloseReason::ClosedByServer))
            );
            assert_eq!(pool.status().abandoned_work, 3);

            // A caller that leaves the queue.
            let lease = pool.checkout().await.expect("a session");
            world.connected().await;
            let line = line!() + 1;
            let mut waiter = Box::pin(pool.checkout());
            assert!(poll!(&mut waiter).is_pending());
            drop(waiter);
            assert_eq!(world.abandoned().await, (None, line, Abandoned::NotExecuted));
            drop(lease);
            drop((db, pool));
            world.end().await;
        },
    );
}

/// With time to end in, the dropped statement ends, well or not.
#[test]
fn dropped_work_that_is_left_alone_is_told() {
    on_each_server(
        |config| {
            config
                .cancel_after(Duration::from_secs(60))
                .settle_timeout(Duration::from_secs(120))
        },
        |mut world| async move {
            let db = world.db.clone();
            world
                .drop_in_the_middle(async { db.run("INSERT INTO t SELECT 1 FROM pg_sleep(0.3)").await.map(drop) })
                .await;
            world.connected().await;
            assert_eq!(world.abandoned().await.2, Abandoned::Completed);
            assert_eq!(world.rows(), "1");
            world
                .drop_in_the_middle(async {
                    db.run("INSERT INTO t SELECT 1 / (n - 1) FROM t, pg_sleep(0.3)")
                        .await
                        .map(drop)
                })
                .await;
            assert_eq!(world.abandoned().await.2, Abandoned::Failed);
            assert_eq!(world.rows(), "1");
            drop(db);
            world.end().await;
        },
    );
}

/// One session that has `SELECT 1` in its cache, in virtual time.
fn simulated(capacity: usize, change: fn(PoolConfig) -> PoolConfig) -> (Sim, ScriptedServer, InteractionPool) {
    let sim = Sim::new(5);
    let server = scripted::server(&sim, 1);
    server.on("SELECT 1", Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]]));
    server.on("SELECT never", Answer::Never);
    let config = change(scripted::config("main", 1).size(1));
    let builder = InteractionPool::builder(sim.runtime()).pool(config).events(capacity);
    let db = sim.block_on(builder.open()).expect("sound settings");
    (sim, server, db)
}

#[test]
fn an_overdue_settling_is_told() {
    let (sim, _server, db) = simulated(16, |config| {
        let long = Duration::from_secs(3_600);
        config.cancel_after(long).settle_timeout(Duration::from_secs(1))
    });
    sim.block_on(async {
        db.run("SELECT 1").await.expect("a row");
        let mut events = db.events();
        let runtime = sim.runtime();
        let call = db.run("SELECT never").into_future();
        let pause = runtime.sleep_until(runtime.now() + Duration::from_millis(100));
        // Dropped with what is left of the race.
        assert!(matches!(select(call, pause).await, Either::Right(_)));
        let mut told = Vec::new();
        while told.len() < 3 {
            told.push(match events.next().await.expect("the pool is open") {
                PoolEvent::SettleOverdue { .. } => "overdue",
                PoolEvent::SessionClosed { reason, .. } => reason.as_str(),
                PoolEvent::Abandoned {
                    outcome: Abandoned::Unknown,
                    ..
                } => "abandoned",
                other => panic!("{other}"),
            });
        }
        told.sort_unstable();
        assert_eq!(told, ["abandoned", "overdue", "settle_overdue"]);
    });
}

#[test]
fn a_slow_reader_loses_the_oldest_and_is_told() {
    let (sim, _server, db) = simulated(4, |config| config);
    sim.block_on(async {
        let pool = db.pool("main").expect("the pool");
        let (mut slow, mut quick) = (db.events(), pool.events());
        let (mut seen, mut pids) = (0u64, Vec::new());
        for _ in 0..5 {
            pool.checkout().await.expect("a session").discard();
            while let Some(event) = quick.next().now_or_never() {
                seen += 1;
                if let Some(PoolEvent::Connected { pid, .. }) = event {
                    pids.push(pid);
                }
            }
        }
        // Five sessions, of which the last may not have said goodbye yet.
        assert!(seen >= 9 && pids.len() == 5, "{seen} events, sessions {pids:?}");
        let Some(PoolEvent::Lagged(lost)) = slow.next().await else {
            panic!("nothing is said to be missing")
        };
        let mut rest = 0;
        while let Some(event) = slow.next().now_or_never() {
            assert!(!matches!(event, Some(PoolEvent::Lagged(_))));
            rest += 1;
        }
        while quick.next().now_or_never().is_some() {
            seen += 1;
        }
        assert_eq!((lost + rest, rest), (seen, 4), "every event was read or counted");
    });
}

#[test]
fn a_reader_of_one_pool_sees_that_pool_only_and_the_end() {
    let (sim, _server, db) = simulated(64, |config| config);
    scripted::server(&sim, 2);
    sim.block_on(async {
        db.add_pool(scripted::config("other", 2).size(1))
            .expect("sound settings");
        let (main, other) = (db.pool("main").expect("there"), db.pool("other").expect("there"));
        let (all, only) = (db.events(), other.events());
        for pool in [&main, &other] {
            drop(pool.checkout().await.expect("a session"));
        }
        drop((main, other));
        db.close(Duration::from_secs(5)).await;
        drop(db);
        let all: Vec<PoolEvent> = all.collect().await;
        let only: Vec<PoolEvent> = only.collect().await;
        assert!(all.iter().any(|event| event.pool() == Some("main")));
        assert!(only.iter().all(|event| event.pool() == Some("other")));
        let of_other = all.iter().filter(|event| event.pool() == Some("other"));
        assert_eq!(of_other.count(), only.len());
        // Connected, the pool's end, and the session's.
        assert_eq!(only.len(), 3, "{only:?}");
    });
}
