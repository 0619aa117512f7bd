//! The same in front of real servers: a proxy swallows everything from each step on, until it is told to go on.
//!
//! Beside the simulated part. It looks at the pool until its slots are back, and never at a clock.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join_all, select};
use gdbpool::{BoxFuture, ConnectionPool, ErrorKind, InteractionPool, Lease, PoolConfig, Runtime};

use crate::counting::Counting;
use crate::runtimes::{on_each, until};
use crate::support::{Cluster, Proxy, Server, shared_cluster};
use crate::{CHECKOUT, TICK, bounded, is_at_rest};

/// One pool of one session behind a proxy of its own.
struct Behind {
    runtime: Counting,
    proxy: Proxy,
    db: InteractionPool,
    pool: ConnectionPool,
}

impl Behind {
    async fn open(runtime: &Arc<dyn Runtime>, cluster: &Cluster) -> Self {
        let proxy = Proxy::to_port(cluster.port());
        let runtime = Counting::new(Arc::clone(runtime));
        let config = PoolConfig::new("p", &cluster.dsn_at(proxy.port())).expect("a DSN");
        // A real machine may be busy: longer bounds where a sound step could meet them.
        let config = bounded(config)
            .connect_timeout(CHECKOUT)
            .ping_after(Some(Duration::from_millis(1)));
        let builder = InteractionPool::builder(runtime.clone()).pool(config.checkout_timeout(2 * CHECKOUT));
        let db = builder.open().await.expect("open");
        let pool = db.pool("p").expect("a pool");
        let behind = Self {
            runtime,
            proxy,
            db,
            pool,
        };
        behind.works("before").await;
        behind
    }

    async fn works(&self, what: &str) {
        // After an outage the first tries may still meet its end.
        let mut last = None;
        for _ in 0..10 {
            match self.db.run("SELECT 1").scalar::<i32>().await {
                Ok(answer) => return assert_eq!(answer, 1, "{what}"),
                Err(error) => last = Some(error),
            }
        }
        panic!("{what}: {last:?}");
    }

    async fn lease(&self) -> Lease {
        self.pool.checkout().await.expect("a lease")
    }

    /// Unused sessions become old enough to be pinged, also by the coarse clock.
    async fn age(&self) {
        self.runtime.sleep_until(self.runtime.now() + 2 * TICK).await;
    }

    /// Polls `work` until the proxy has swallowed for a while, and leaves it.
    async fn leave(&self, work: impl Future) {
        let while_ = self.runtime.sleep_until(self.runtime.now() + Duration::from_millis(50));
        select(Box::pin(work), while_).await;
    }

    /// While the peer is still silent every slot comes back; then it speaks again.
    async fn recovers(self, what: &str) {
        let rests = || is_at_rest(&self.pool.status());
        until(&self.runtime, &format!("every slot is back ({what})"), rests).await;
        let left = || self.runtime.counts.streams.now() == self.pool.status().size as usize;
        until(&self.runtime, &format!("no connection is left ({what})"), left).await;
        self.proxy.resume();
        self.works(what).await;
        self.db.close(Duration::from_secs(5)).await;
    }

    /// The pool tries its session, and nobody answers. On a busy machine the pool's coarse clock is late, and a session passes
    /// for a young one that needs no ping: then it is used, and gets older again.
    async fn finds_nobody(&self) {
        for _ in 0..20 {
            self.age().await;
            if self.pool.checkout().await.is_err() {
                return;
            }
        }
        panic!("a session that nobody tried");
    }
}

async fn at_connect(behind: Behind) {
    behind.pool.retire();
    behind.proxy.pause();
    let error = behind.pool.checkout().await.expect_err("no session");
    assert!(matches!(error.kind(), ErrorKind::CheckoutTimeout(_)), "{error:?}");
    behind.recovers("connect").await;
}

async fn at_ping(behind: Behind) {
    behind.proxy.pause();
    behind.finds_nobody().await;
    behind.recovers("ping").await;
}

async fn at_prepare(behind: Behind) {
    let lease = behind.lease().await;
    behind.proxy.pause();
    behind.leave(lease.prepare("SELECT 2")).await;
    drop(lease);
    behind.recovers("prepare").await;
}

async fn at_execute(behind: Behind) {
    let lease = behind.lease().await;
    lease.prepare("SELECT 2").await.expect("prepare");
    behind.proxy.pause();
    behind.leave(lease.query("SELECT 2", &[])).await;
    drop(lease);
    behind.recovers("execute").await;
}

async fn at_rows(behind: Behind) {
    let rows = behind.db.run("SELECT generate_series(1, 1000000)").read().stream();
    let mut rows = rows.await.expect("rows");
    rows.next().await.expect("a row").expect("a good row");
    behind.proxy.pause();
    behind.leave(rows.by_ref().for_each(|_| async {})).await;
    drop(rows);
    behind.recovers("rows").await;
}

async fn at_clean_up(behind: Behind) {
    let lease = behind.lease().await;
    lease.batch("SET search_path = nowhere").await.expect("set");
    behind.proxy.pause();
    drop(lease);
    behind.recovers("clean-up").await;
}

async fn at_roll_back(behind: Behind) {
    let lease = behind.lease().await;
    lease.batch("BEGIN").await.expect("begin");
    behind.proxy.pause();
    drop(lease);
    behind.recovers("roll-back").await;
}

async fn at_cancel(behind: Behind) {
    let lease = behind.lease().await;
    lease.prepare("SELECT pg_sleep(60)").await.expect("prepare");
    let mut sleep = Box::pin(lease.query("SELECT pg_sleep(60)", &[]));
    behind.leave(&mut sleep).await;
    behind.proxy.pause();
    drop(sleep);
    drop(lease);
    behind.recovers("cancel").await;
}

async fn at_retire(behind: Behind) {
    behind.proxy.pause();
    behind.pool.retire();
    behind.recovers("retire").await;
}

/// The server ends the session, and the end never arrives.
async fn half_open(behind: Behind, cluster: &Cluster) {
    let pid = behind.lease().await.backend_pid();
    let settled = || behind.pool.status().idle == 1;
    until(&behind.runtime, "the session is idle", settled).await;
    behind.proxy.pause();
    cluster.psql(&format!("SELECT pg_terminate_backend({pid})"));
    behind.finds_nobody().await;
    behind.recovers("half open").await;
}

async fn at_close(behind: Behind) {
    let lease = behind.lease().await;
    behind.proxy.pause();
    behind.leave(lease.query("SELECT 2", &[])).await;
    drop(lease);
    let reports = behind.db.close(Duration::from_millis(50)).await;
    assert_eq!((reports[0].cut.len(), reports[0].remaining), (0, 0), "{reports:?}");
    let left = || behind.runtime.counts.streams.now() == 0;
    until(&behind.runtime, "no connection is left", left).await;
}

/// All steps at once, each behind a proxy of its own.
async fn every_step(runtime: Arc<dyn Runtime>, cluster: &'static Cluster) {
    let steps: [fn(Behind) -> BoxFuture<'static, ()>; 10] = [
        |behind| Box::pin(at_cancel(behind)),
        |behind| Box::pin(at_clean_up(behind)),
        |behind| Box::pin(at_close(behind)),
        |behind| Box::pin(at_connect(behind)),
        |behind| Box::pin(at_execute(behind)),
        |behind| Box::pin(at_ping(behind)),
        |behind| Box::pin(at_prepare(behind)),
        |behind| Box::pin(at_retire(behind)),
        |behind| Box::pin(at_roll_back(behind)),
        |behind| Box::pin(at_rows(behind)),
    ];
    let all = join_all(steps.map(|step| {
        let runtime = Arc::clone(&runtime);
        async move { step(Behind::open(&runtime, cluster).await).await }
    }));
    all.await;
    half_open(Behind::open(&runtime, cluster).await, cluster).await;
}

#[test]
fn a_proxy_that_swallows_everything() {
    for server in [Server::V15, Server::V18] {
        let cluster = &shared_cluster(server).primary;
        on_each(|runtime| Box::pin(every_step(runtime, cluster)));
    }
}
