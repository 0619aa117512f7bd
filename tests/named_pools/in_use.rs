//! Pools that are changed while they are used, on real servers.

use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use gdbpool::{BoxFuture, CloseReason, ConnectionPool, ErrorKind, InteractionPool, Outcome, PoolConfig, Runtime};

use crate::runtimes::{on_each, until};
use crate::support::{Pair, Server, shared_cluster};

const PATIENCE: Duration = Duration::from_secs(60);

/// Pool "main" on the primary, and three pools on the standby that reads are balanced over.
struct World {
    runtime: Arc<dyn Runtime>,
    db: InteractionPool,
}

fn on_each_server(body: fn(World) -> BoxFuture<'static, ()>) {
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| Box::pin(async move { body(World::new(runtime, pair).await).await }));
    }
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, pair: &'static Pair) -> Self {
        let config = |name, dsn: String| {
            PoolConfig::new(name, &dsn)
                .expect("a sound DSN")
                .ping_after(None)
                .size(2)
        };
        let mut builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config("main", pair.primary.dsn()));
        for name in ["r1", "r2", "r3"] {
            builder = builder.pool(config(name, pair.standby.dsn()).default_read());
        }
        let db = builder.open().await.expect("sound settings");
        Self { runtime, db }
    }

    fn pool(&self, name: &str) -> ConnectionPool {
        self.db.pool(name).expect("the pool")
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.runtime, what, condition).await;
    }

    /// Runs reads until every pool of the set has served one.
    async fn read_everywhere(&self, names: &[&str]) {
        let before: Vec<u64> = names.iter().map(|name| self.pool(name).status().checkouts).collect();
        let all_used = || {
            let after = names.iter().map(|name| self.pool(name).status().checkouts);
            before.iter().zip(after).all(|(before, after)| after > *before)
        };
        let deadline = self.runtime.now() + PATIENCE;
        while !all_used() {
            assert!(self.runtime.now() < deadline, "not all of {names:?} are used");
            let standby: bool = self
                .db
                .run("SELECT pg_is_in_recovery()")
                .read()
                .scalar()
                .await
                .expect("a read");
            assert!(standby);
        }
    }

    async fn end(self) {
        for report in self.db.close(PATIENCE).await {
            assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
        }
    }
}

#[test]
fn the_whole_read_set_is_used() {
    on_each_server(|world| {
        Box::pin(async move {
            world.read_everywhere(&["r1", "r2", "r3"]).await;
            assert_eq!(world.pool("main").status().checkouts, 0);
            let primary: bool = world
                .db
                .run("SELECT pg_is_in_recovery()")
                .scalar()
                .await
                .expect("a write");
            assert!(!primary);
            world.end().await;
        })
    });
}

#[test]
fn a_pool_is_removed_while_it_is_in_use() {
    on_each_server(|world| {
        Box::pin(async move {
            let removed = world.pool("r2");
            let line = line!() + 1;
            let lease = removed.checkout().await.expect("a session");
            let runs = lease.query("SELECT pg_sleep(3600)", &[]);
            let removal = async {
                world.until("it holds a session", || removed.status().leased == 1).await;
                world
                    .db
                    .remove_pool("r2", Duration::from_millis(50))
                    .await
                    .expect("it is there")
            };
            let (result, report) = futures::join!(runs, removal);
            let error = result.expect_err("it was cut");
            assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
            assert_eq!((&*report.pool, report.cut.len()), ("r2", 1), "{report:?}");
            assert_eq!((report.cut[0].at.file(), report.cut[0].at.line()), (file!(), line));
            assert!(report.cut[0].held >= Duration::from_millis(50), "{report:?}");
            // New interactions go elsewhere, and the name is unknown; the handle says that it is closed.
            world.read_everywhere(&["r1", "r3"]).await;
            assert!(world.db.pool("r2").is_err());
            let error = removed.checkout().await.map(drop).expect_err("it is closed");
            assert!(matches!(error.kind(), ErrorKind::PoolClosed), "{error:?}");
            drop(lease);
            world
                .until("the last session is gone", || removed.status().size == 0)
                .await;

            // A lease that comes back in time is not cut.
            let removed = world.pool("r3");
            let lease = removed.checkout().await.expect("a session");
            let removal = world.db.remove_pool("r3", PATIENCE);
            let work = async {
                world.until("it is being closed", || removed.status().is_closed).await;
                lease.query("SELECT 1", &[]).await.expect("it works on");
                drop(lease);
            };
            let (report, ()) = futures::join!(removal, work);
            let report = report.expect("it is there");
            assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
            world.read_everywhere(&["r1"]).await;
            world.end().await;
        })
    });
}

#[test]
fn a_pool_grows_under_its_waiters_and_shrinks_as_they_go() {
    on_each_server(|world| {
        Box::pin(async move {
            let pool = world.pool("main");
            let mut leases = vec![
                pool.checkout().await.expect("a session"),
                pool.checkout().await.expect("a session"),
            ];
            let mut waiters: Vec<_> = (0..4).map(|_| Box::pin(pool.checkout())).collect();
            for waiter in &mut waiters {
                assert!(poll!(waiter).is_pending());
            }
            pool.resize(0, 5).expect("sound bounds");
            for waiter in waiters.drain(..3) {
                leases.push(waiter.await.expect("there is room"));
            }
            let status = pool.status();
            assert_eq!((status.max, status.leased, status.waiting), (5, 5, 1), "{status}");

            // Smaller than what is out: nothing waits for that, and nobody new is served before it has come down.
            pool.resize(0, 1).expect("sound bounds");
            let last = leases.pop().expect("five leases");
            drop(leases);
            world.until("the surplus is closed", || pool.status().size == 1).await;
            let status = pool.status();
            assert_eq!((status.leased, status.waiting), (1, 1), "{status}");
            assert_eq!(status.closes(CloseReason::Resized), 4, "{status}");
            drop(last);
            drop(waiters.remove(0).await.expect("its turn"));

            pool.resize(3, 4).expect("sound bounds");
            world
                .until("the new minimum is there", || pool.status().idle == 3)
                .await;
            pool.resize(0, 2).expect("sound bounds");
            world
                .until("idle surplus is closed at once", || pool.status().size == 2)
                .await;
            world.end().await;
        })
    });
}

#[test]
fn retired_sessions_are_replaced() {
    on_each_server(|world| {
        Box::pin(async move {
            let pool = world.pool("main");
            let (held, idle) = (
                pool.checkout().await.expect("a session"),
                pool.checkout().await.expect("a session"),
            );
            let old = [held.backend_pid(), idle.backend_pid()];
            drop(idle);
            world.until("one is idle", || pool.status().idle == 1).await;
            pool.retire();
            world.until("the idle one is gone", || pool.status().size == 1).await;
            held.query("SELECT 1", &[]).await.expect("the held one works on");
            let new = pool.checkout().await.expect("a session");
            assert!(!old.contains(&new.backend_pid()));
            drop(held);
            world
                .until("the held one is gone, too", || pool.status().size == 1)
                .await;
            assert_eq!(pool.status().closes(CloseReason::Epoch), 2);
            drop(new);
            world.end().await;
        })
    });
}

#[test]
fn closing_reports_what_it_cut() {
    on_each_server(|world| {
        Box::pin(async move {
            let pool = world.pool("main");
            let line = line!() + 1;
            let lease = pool.checkout().await.expect("a session");
            let second = pool.checkout().await.expect("a session");
            let mut waiting = Box::pin(pool.checkout());
            assert!(poll!(&mut waiting).is_pending());
            let reports = world.db.close(Duration::from_millis(50)).await;
            let names: Vec<&str> = reports.iter().map(|report| &*report.pool).collect();
            assert_eq!(names, ["main", "r1", "r2", "r3"]);
            let cut: Vec<u32> = reports[0].cut.iter().map(|holder| holder.at.line()).collect();
            assert_eq!(cut, [line, line + 1], "the longest first: {reports:?}");
            assert!(
                reports[1..]
                    .iter()
                    .all(|report| report.cut.is_empty() && report.remaining == 0)
            );
            let error = waiting.await.map(drop).expect_err("the pool is closed");
            assert!(matches!(error.kind(), ErrorKind::PoolClosed), "{error:?}");
            for lease in [lease, second] {
                let error = lease.execute("SELECT 1", &[]).await.expect_err("it was cut");
                assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
                assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
            }
            // Closing what is closed waits with it, and finds nothing more.
            for report in world.db.close(PATIENCE).await {
                assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
            }
            let error = world.db.run("SELECT 1").await.expect_err("all is closed");
            assert!(matches!(error.kind(), ErrorKind::PoolClosed), "{error:?}");
        })
    });
}
