//! Cancelled calls never hit another client, and a pooler that dies under load makes no outcome a lie.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use gdbpool::{InteractionPool, Outcome, PoolConfig};

use crate::runtimes::on_each;
use crate::stage::{Front, SERVERS, close, on_each_server, start};
use crate::support::{Cluster, ClusterOptions};

/// Two pools through one pooler: one drops what it asked for, the other must never notice.
#[test]
fn a_cancel_hits_nobody_else() {
    on_each_server(Front::Three, "CREATE TABLE t (n int)", |world| async move {
        let pooled = |name: &str| {
            let dsn = world.pooler.dsn_to(&world.database);
            PoolConfig::new(name, &dsn)
                .expect("a sound DSN")
                .size(3)
                .transaction_pooler()
        };
        let builder = InteractionPool::builder(Arc::clone(&world.runtime));
        let db = builder
            .pool(pooled("main"))
            .pool(pooled("other"))
            .open()
            .await
            .expect("sound settings");
        let over = AtomicBool::new(false);
        let bystander = async |n: i32| {
            let mut calls = 0;
            while !over.load(Ordering::Acquire) || calls < 20 {
                let call = db
                    .run("SELECT $1::int4, pg_sleep(0.002)")
                    .bind(n)
                    .on_pool("other")
                    .read();
                let row = call
                    .one()
                    .await
                    .unwrap_or_else(|error| panic!("a bystander was hit: {error:?}"));
                assert_eq!(row.get::<_, i32>(0), n);
                calls += 1;
            }
        };
        let droppers = async {
            let dropper = async |of: u64| {
                for round in 0..12u64 {
                    let sql = "INSERT INTO t SELECT 1 FROM pg_sleep(30)";
                    let call = db
                        .run(sql)
                        .execute()
                        .timeout(Duration::from_millis(3 + 7 * ((round + of) % 4)));
                    call.await.expect_err("it takes half a minute");
                }
            };
            join_all((0..2).map(dropper)).await;
            over.store(true, Ordering::Release);
        };
        join(droppers, join_all((0..2).map(bystander))).await;
        world.at_rest(&db).await;
        assert_eq!(
            world.direct("SELECT count(*) FROM t"),
            "0",
            "each was cancelled, or never began"
        );
        let stats = db.stats();
        assert!(format!("{stats:?}").contains("main"), "{stats:?}");
        close(&db).await;
    });
}

/// What each write was told to have become.
#[derive(Debug, Default)]
struct Told {
    committed: BTreeSet<i32>,
    undone: BTreeSet<i32>,
    unknown: BTreeSet<i32>,
}

#[test]
fn a_pooler_that_dies_makes_no_outcome_a_lie() {
    for server in SERVERS {
        let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::new(server))));
        let pooler = &*Box::leak(Box::new(start(cluster, Front::Three)));
        on_each(move |runtime| {
            Box::pin(async move {
                cluster.psql("DROP TABLE IF EXISTS t; CREATE TABLE t (n int PRIMARY KEY)");
                let config = PoolConfig::new("main", &pooler.dsn_to("postgres")).expect("a sound DSN");
                let config = config
                    .size(6)
                    .connect_backoff(Duration::from_millis(1), Duration::from_millis(20));
                let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config.transaction_pooler());
                let db = builder.open().await.expect("sound settings");
                let (next, killed) = (AtomicU32::new(0), AtomicBool::new(false));
                let writer = async |kind: u32| {
                    let mut told = Told::default();
                    while !killed.load(Ordering::Acquire) {
                        let n = i32::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few");
                        let done = match kind % 3 {
                            0 => db.run("INSERT INTO t VALUES ($1)").bind(n).execute().await.map(drop),
                            1 => {
                                let function = db.transact(move |tx| async move {
                                    tx.execute("INSERT INTO t VALUES ($1)", &[&n]).await
                                });
                                function.reruns(0).await.map(drop)
                            }
                            _ => db.run(format!("INSERT INTO t VALUES ({n})")).batch().await.map(drop),
                        };
                        let set = match done.map_err(|error| error.outcome()) {
                            Ok(()) | Err(Outcome::Committed) => &mut told.committed,
                            Err(Outcome::NotExecuted | Outcome::RolledBack) => &mut told.undone,
                            Err(_) => &mut told.unknown,
                        };
                        set.insert(n);
                    }
                    told
                };
                let killer = async {
                    for round in 1..=4 {
                        let wanted = next.load(Ordering::Relaxed) + 150;
                        crate::runtimes::until(&*runtime, "there is load", || next.load(Ordering::Relaxed) > wanted)
                            .await;
                        pooler.kill();
                        if round < 4 {
                            pooler.start_again();
                        }
                    }
                    killed.store(true, Ordering::Release);
                    pooler.start_again();
                };
                let (told, ()) = join(join_all((0..6).map(writer)), killer).await;
                // What still runs on a server connection whose pooler is gone ends by itself.
                crate::runtimes::until(&*runtime, "nothing runs", || {
                    let busy =
                        "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()";
                    cluster.psql(busy) == "0"
                })
                .await;
                let there: BTreeSet<i32> = cluster
                    .psql("SELECT n FROM t")
                    .lines()
                    .map(|n| n.parse().expect("a number"))
                    .collect();
                for told in &told {
                    assert!(
                        told.committed.is_subset(&there),
                        "said to be committed, and is not: {told:?}"
                    );
                    assert!(
                        told.undone.is_disjoint(&there),
                        "said to be undone, and is there: {told:?}"
                    );
                }
                let committed: usize = told.iter().map(|told| told.committed.len()).sum();
                assert!(committed > 100, "{committed}");
                close(&db).await;
            })
        });
    }
}
