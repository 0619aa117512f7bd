//! The library needs no executor but what a user writes: here one from the standard library alone.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a runtime is where the real world enters"
)]

#[path = "support/bare_runtime.rs"]
mod bare_runtime;
#[macro_use]
#[path = "support/runtime_checks.rs"]
mod runtime_checks;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use gdbpool::{ErrorKind, InteractionPool, PoolConfig};

use bare_runtime::{BareRuntime, block_on};
use runtime_checks::Check;
use support::{Server, fresh_database, shared_cluster};

check_runtime!(bare);

fn bare(check: Check) {
    block_on(check(Arc::new(BareRuntime::new())));
}

/// What a user does with the library, with nothing but a thread that waits.
#[test]
fn the_public_calls_work() {
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        let dsn = fresh_database(&pair.primary);
        pair.standby.catch_up(&pair.primary);
        let on_standby = dsn.replace(
            &format!("port={}", pair.primary.port()),
            &format!("port={}", pair.standby.port()),
        );
        block_on(async {
            let primary = PoolConfig::new("primary", &dsn).expect("a DSN");
            let standby = PoolConfig::new("standby", &on_standby).expect("a DSN");
            let db = InteractionPool::builder(BareRuntime::new())
                .pool(primary.size(3).min_size(1).default_write())
                .pool(standby.size(2).default_read())
                .open()
                .await
                .expect("open");
            statements(&db).await;
            leases(&db).await;
            for report in db.close(Duration::from_secs(5)).await {
                assert_eq!((report.cut.len(), report.remaining), (0, 0), "{report:?}");
            }
            let error = db.run("SELECT 1").await.expect_err("the pool is closed");
            assert!(matches!(error.kind(), ErrorKind::PoolClosed), "{error:?}");
        });
    }
}

async fn statements(db: &InteractionPool) {
    db.run("CREATE TABLE t (n int PRIMARY KEY)")
        .execute()
        .await
        .expect("a table");
    let insert = "INSERT INTO t SELECT generate_series(1, $1)";
    assert_eq!(db.run(insert).bind(1_000).execute().await.expect("rows"), 1_000);
    let sum = db.run("SELECT sum(n) FROM t WHERE n < $1").args(&[&4i32]);
    assert_eq!(sum.scalar::<i64>().await.expect("a sum"), 6);
    let on_standby = db.run("SELECT pg_is_in_recovery()").read();
    assert!(
        on_standby.scalar::<bool>().await.expect("an answer"),
        "reads go to the standby"
    );
    let rows = db.run("SELECT n FROM t ORDER BY n").stream().await.expect("a stream");
    let seen: Vec<i32> = rows
        .map_ok(|row| row.get::<_, i32>(0))
        .try_collect()
        .await
        .expect("rows");
    assert_eq!(seen, (1..=1_000).collect::<Vec<_>>());
    assert!(
        db.run("SELECT n FROM t WHERE n = 0")
            .opt()
            .await
            .expect("no row")
            .is_none()
    );
    let slow = db.run("SELECT pg_sleep(60)").timeout(Duration::from_millis(50));
    let error = slow.await.expect_err("it takes too long");
    assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
}

async fn leases(db: &InteractionPool) {
    let pool = db.pool("primary").expect("a pool");
    let lease = pool.checkout().await.expect("a lease");
    lease
        .batch("BEGIN; CREATE TEMP TABLE scratch (n int)")
        .await
        .expect("a batch");
    let added = lease.execute("INSERT INTO scratch SELECT n FROM t", &[]).await;
    assert_eq!(added.expect("rows"), 1_000);
    let rows = lease.query("SELECT n FROM scratch WHERE n <= $1", &[&2i32]).await;
    assert_eq!(rows.expect("rows").len(), 2);
    let mut stream = lease
        .query_stream("SELECT n FROM scratch", &[])
        .await
        .expect("a stream");
    assert!(stream.next().await.expect("a row").is_ok());
    drop(stream);
    drop(lease);
    // Dropped in the middle of an answer and of a transaction: nothing of it is left for anybody.
    let leases = futures::future::join_all((0..3).map(|_| pool.checkout())).await;
    for lease in leases {
        let found = lease
            .expect("a lease")
            .query_one("SELECT to_regclass('scratch') IS NULL", &[])
            .await;
        assert!(found.expect("an answer").get::<_, bool>(0));
    }
}
