//! Promise: `stats()` counts what happened, exactly, over all pools, and prints it.

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, poll};
use gdbpool::{CloseReason, ErrorKind, InteractionPool, PoolConfig, Runtime, Stats};

use runtimes::{on_each, until};
use support::{Server, shared_cluster};

fn on_each_server<F>(body: impl Fn(Arc<dyn Runtime>, InteractionPool) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                let config = |name, dsn: String| PoolConfig::new(name, &dsn).expect("a sound DSN").size(1);
                let main = config("main", pair.primary.dsn()).max_waiters(1).ping_after(None);
                let replica = config("replica", pair.standby.dsn()).default_read();
                let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(main).pool(replica);
                let db = builder.open().await.expect("sound settings");
                body(runtime, db.clone()).await;
                db.close(Duration::from_secs(20)).await;
            })
        });
    }
}

#[test]
fn what_happened_is_counted() {
    on_each_server(|runtime, db| async move {
        let pool = db.pool("main").expect("the pool");
        let of_main = |number: fn(&gdbpool::PoolStatus) -> u64| number(db.stats().pool("main").expect("it is there"));

        let lease = pool.checkout().await.expect("a session");
        let mut waiter = Box::pin(pool.checkout());
        assert!(poll!(&mut waiter).is_pending());
        let full = pool.checkout().now_or_never().expect("at once").map(drop);
        assert!(matches!(full.expect_err("one waits").kind(), ErrorKind::QueueFull));
        drop(waiter);
        let late = pool.checkout_within(Duration::from_millis(1)).await.map(drop);
        assert!(matches!(
            late.expect_err("it is held").kind(),
            ErrorKind::CheckoutTimeout(_)
        ));
        {
            let mut work = Box::pin(lease.batch("SELECT pg_sleep(3600)"));
            assert!(poll!(&mut work).is_pending());
        }
        drop(lease);
        until(&*runtime, "it settles", || pool.status().idle == 1).await;
        drop(pool.checkout().await.expect("a session"));
        until(&*runtime, "it settles", || pool.status().idle == 1).await;
        db.run("SELECT 1").read().await.expect("a read");

        let stats: Stats = db.stats();
        let main = stats.pool("main").expect("it is there");
        let counted = [
            main.checkouts,
            main.waits,
            main.connects,
            main.timeouts,
            main.queue_full,
            main.abandoned,
        ];
        // The first checkout waited for its connect; then one left the queue, and one was late.
        assert_eq!(counted, [4, 3, 1, 1, 1, 2], "{stats}");
        assert_eq!((main.abandoned_work, main.shed, main.turned_away), (1, 0, 0), "{stats}");
        assert!(main.cancels >= 1, "{stats}");
        assert_eq!(stats.pools.len(), 2);
        assert_eq!(stats.total(|pool| pool.checkouts), 5);
        assert_eq!(stats.total(|pool| pool.connects), 2);
        assert_eq!(stats.retries, 0);
        assert!(stats.pool("other").is_none());
        let text = stats.to_string();
        for part in [
            "main: 1 of 1 sessions",
            "1 timed out",
            "1 refused",
            "1 abandoned",
            "2 pools: 2 sessions",
            "replica: ",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }

        db.run("SELECT pg_terminate_backend(pg_backend_pid())")
            .await
            .expect_err("it ends itself");
        until(&*runtime, "the end is counted", || {
            of_main(|main| main.closes(CloseReason::ClosedByServer)) == 1
        })
        .await;
        db.run("SELECT 1").on_pool("main").await.expect("another session");
        assert_eq!(of_main(|main| main.connects), 2);
    });
}

/// A read whose session is lost is sent again, and that is counted.
#[test]
fn retries_are_counted() {
    on_each_server(|_, db| async move {
        let once = "SELECT pg_terminate_backend(pg_backend_pid())";
        let error = db.run(once).read().await.expect_err("it ends every session it runs on");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        let stats = db.stats();
        // Once, and twice again.
        assert_eq!(stats.retries, 2, "{stats}");
        assert_eq!(stats.pool("replica").map(|pool| pool.connects), Some(3), "{stats}");
        assert!(stats.to_string().ends_with("2 retries"), "{stats}");
    });
}
