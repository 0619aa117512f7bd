//! The same on real servers: whatever is tried inside a transaction, the rows say what became of it.

use std::sync::Arc;
use std::time::Duration;

use gdbpool::{Error, InteractionPool, Isolation, Outcome, Partial, PoolConfig, Runtime, Transaction};

use super::runtimes::{on_each, until};
use super::stage::said;
use super::support::{Cluster, Proxy, Server, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// `t` is what is written to; the rest are ways to end a transaction from inside.
const SET_UP: &str = "CREATE TABLE t (n int); CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); \
    CREATE TABLE doomed (n int); \
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \
    $f$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $f$; \
    CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON doomed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die(); \
    CREATE PROCEDURE ends_it() LANGUAGE plpgsql AS $f$ BEGIN COMMIT; END $f$; \
    CREATE PROCEDURE undoes_it() LANGUAGE plpgsql AS $f$ BEGIN ROLLBACK; END $f$; \
    CREATE FUNCTION calls_it() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN CALL ends_it(); RETURN 1; END $f$; \
    CREATE FUNCTION sums() RETURNS bigint LANGUAGE sql AS 'SELECT sum(n) FROM t'; GRANT ALL ON ALL TABLES IN SCHEMA public TO app";

#[derive(Clone)]
struct World {
    runtime: Arc<dyn Runtime>,
    cluster: &'static Cluster,
    database: String,
    db: InteractionPool,
}

impl World {
    async fn new(runtime: Arc<dyn Runtime>, server: Server, port: Option<&Proxy>) -> Self {
        let cluster = &shared_cluster(server).primary;
        let dsn = fresh_database(cluster);
        let database = dsn.rsplit("dbname=").next().expect("a database").to_owned();
        cluster.psql_in(&database, SET_UP);
        let dsn = port.map_or(dsn, |proxy| {
            format!("{} dbname={database}", without_database(&cluster.dsn_at(proxy.port())))
        });
        let config = PoolConfig::new("main", &dsn).expect("a sound DSN").size(2);
        let config = config.connect_backoff(Duration::from_millis(5), Duration::from_millis(50));
        let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
        Self {
            db: builder.open().await.expect("sound settings"),
            runtime,
            cluster,
            database,
        }
    }

    fn count(&self) -> usize {
        let count = self.cluster.psql_in(&self.database, "SELECT count(*) FROM t");
        count.parse().expect("a number")
    }

    /// No backend of this database is at work any more; then the rows are final.
    async fn at_rest(&self) {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'";
        until(&*self.runtime, "nothing is at work", || {
            self.cluster.psql_in(&self.database, busy) == "0"
        })
        .await;
    }

    /// Holds what a call said against the rows, and takes them away.
    async fn judge<T: std::fmt::Debug>(&self, result: &Result<T, Error>, case: &str) -> Outcome {
        self.at_rest().await;
        let rows = self.count();
        super::stage::judge(result, rows, case);
        self.cluster.psql_in(&self.database, "TRUNCATE t");
        said(result)
    }
}

fn without_database(dsn: &str) -> String {
    let words = dsn.split_whitespace().filter(|word| !word.starts_with("dbname="));
    words.collect::<Vec<_>>().join(" ")
}

fn on_each_server<F>(body: impl Fn(World) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in SERVERS {
        on_each(|runtime| {
            Box::pin(async move {
                let world = World::new(runtime, server, None).await;
                body(world.clone()).await;
                for report in world.db.close(Duration::from_secs(20)).await {
                    assert!(report.cut.is_empty() && report.remaining == 0, "{report:?}");
                }
            })
        });
    }
}

async fn insert(tx: &Transaction) -> Result<u64, Error> {
    tx.execute("INSERT INTO t VALUES ($1)", &[&1i32]).await
}

/// Ways to get transaction control past a look at the text, and whether one works at all.
const SMUGGLED: [&[&str]; 16] = [
    &["COMMIT"],
    &["/* ; */ -- \n COMMIT"],
    &["SELECT 1;;/**/end"],
    &["ROLLBACK AND CHAIN"],
    &["COMMIT; BEGIN"],
    &["ABORT"],
    &["PREPARE TRANSACTION 'a'"],
    &["DO $$ BEGIN COMMIT; END $$"],
    &["DO $$ BEGIN ROLLBACK; END $$"],
    &["CALL ends_it()"],
    &["CALL undoes_it()"],
    &["SELECT calls_it()"],
    &["DO $$ BEGIN EXECUTE 'COMMIT'; END $$"],
    // With backslashes that escape, what looks like a string to us is none.
    &[
        "SET standard_conforming_strings = off",
        "SELECT '\\' || ' ; COMMIT; SELECT 1 --'",
    ],
    &[
        "SET standard_conforming_strings = off",
        "SELECT '\\' || ' ; ROLLBACK; SELECT 1 --'",
    ],
    &[
        "SET standard_conforming_strings = off",
        "SELECT '\\' || ' ; COMMIT; BEGIN; SELECT 1 --'",
    ],
];

#[test]
fn transaction_control_cannot_be_smuggled_in() {
    on_each_server(async |world: World| {
        for statements in SMUGGLED {
            for swallow in [false, true] {
                let case = format!("{statements:?}, swallowed: {swallow}");
                let work = |tx: Transaction| async move {
                    insert(&tx).await?;
                    for sql in statements {
                        match tx.batch(sql).await {
                            Err(error) if !swallow => return Err(error),
                            _ => {}
                        }
                    }
                    Ok(())
                };
                let function = world.db.transact(work).reruns(0).await;
                let refused = "transaction control";
                let outcome = world.judge(&function, &case).await;
                // Refused before it was sent and swallowed, it is as if it had not been there.
                let unsent = swallow
                    && statements.len() == 1
                    && !statements[0].contains("DO")
                    && !statements[0].contains("CALL")
                    && !statements[0].contains("calls_it");
                assert_eq!(function.is_ok(), unsent, "{refused}, {case}: {function:?}");
                assert!(outcome != Outcome::NotExecuted, "{case}: {function:?}");
                let pinned = async {
                    let open = world.db.transact(work).partial().await?.transaction;
                    open.commit().await.map(|_| ())
                };
                let pinned = pinned.await;
                world.judge(&pinned, &case).await;
                assert_eq!(pinned.is_ok(), unsent, "{refused}, {case}: {pinned:?}");
            }
        }
    });
}

#[test]
fn what_fails_at_commit_is_rolled_back_and_a_killed_commit_is_unknown_or_true() {
    on_each_server(async |world: World| {
        let late = world.db.transact(|tx| async move {
            insert(&tx).await?;
            tx.batch("INSERT INTO late VALUES (1), (1)").await
        });
        let late = late.await;
        assert_eq!(world.judge(&late, "a deferred constraint").await, Outcome::RolledBack);
        for reruns in [0, 2] {
            let doomed = world.db.transact(|tx| async move {
                insert(&tx).await?;
                tx.batch("INSERT INTO doomed VALUES (1)").await
            });
            let doomed = doomed.reruns(reruns).await;
            let outcome = world
                .judge(&doomed, "a deferred trigger that kills its own backend")
                .await;
            assert_eq!(outcome, Outcome::Unknown, "COMMIT had left: {doomed:?}");
        }
        let Partial { mut transaction, .. } = world.db.run("INSERT INTO t VALUES (1)").partial().await.expect("begun");
        transaction
            .handle()
            .batch("INSERT INTO doomed VALUES (1)")
            .await
            .expect("inserted");
        let pinned = transaction.commit().await;
        assert_eq!(world.judge(&pinned, "the same, pinned").await, Outcome::Unknown);
    });
}

#[test]
fn a_conflict_at_commit_is_rolled_back() {
    on_each_server(async |world: World| {
        // Both read what the other writes; the second COMMIT cannot be put in an order.
        let open = |tx: Transaction| async move {
            tx.query("SELECT sums()", &[]).await?;
            Ok(())
        };
        let serializable = || world.db.transact(open).isolation(Isolation::Serializable).partial();
        let mut first = serializable().await.expect("begun").transaction;
        let mut second = serializable().await.expect("begun").transaction;
        first
            .handle()
            .batch("INSERT INTO t VALUES (1)")
            .await
            .expect("inserted");
        second
            .handle()
            .batch("INSERT INTO t VALUES (2)")
            .await
            .expect("inserted");
        first.commit().await.expect("the first one");
        world.cluster.psql_in(&world.database, "TRUNCATE late");
        let result = second.commit().await;
        let error = result.as_ref().expect_err("no order");
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("40001"), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        assert!(error.is_retryable());
        world.at_rest().await;
        assert_eq!(world.count(), 1, "the first one's row only");
    });
}

#[test]
fn a_backend_killed_at_each_step_is_rolled_back() {
    on_each_server(async |world: World| {
        for step in 0..3 {
            let world = &world;
            let kill = move |tx: &Transaction, at| {
                if at == step {
                    let sql = format!("SELECT pg_terminate_backend({}, 60000)", tx.backend_pid());
                    world.cluster.psql_in(&world.database, &sql);
                }
            };
            let work = world.db.transact(|tx| async move {
                tx.query("SELECT 1", &[]).await?;
                kill(&tx, 0);
                insert(&tx).await?;
                kill(&tx, 1);
                tx.query("SELECT 2", &[]).await?;
                kill(&tx, 2);
                Ok(())
            });
            let result = work.reruns(0).await;
            let outcome = world.judge(&result, &format!("killed at step {step}")).await;
            let error = result.expect_err("killed");
            // The last one may be met by COMMIT, before the end of the session is known.
            assert!(
                outcome == Outcome::RolledBack || (step == 2 && outcome == Outcome::Unknown),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_link_cut_around_commit_is_judged_by_the_rows() {
    let mut counts = [0u32; 3];
    for server in SERVERS {
        let proxy = Proxy::to_port(shared_cluster(server).primary.port());
        let outcomes = smol::block_on(async {
            let world = World::new(Arc::new(gdbpool::Smol::new()), server, Some(&proxy)).await;
            let mut outcomes = Vec::new();
            for round in 0..30u64 {
                let cut = async {
                    // From before the first statement to well after the answer, in real time.
                    let at = world.runtime.now() + Duration::from_micros(round * 40);
                    world.runtime.sleep_until(at).await;
                    proxy.cut();
                };
                let work = world.db.transact(|tx| async move { insert(&tx).await });
                let (result, ()) = futures::join!(work.reruns(0).into_future(), cut);
                outcomes.push(world.judge(&result, &format!("cut in round {round}")).await);
            }
            // Held back on its way, and then cut: whether COMMIT had arrived is not known here.
            for _ in 0..5 {
                let hold = &proxy;
                let work = world.db.transact(|tx| async move {
                    insert(&tx).await?;
                    hold.pause();
                    Ok(())
                });
                let result = work.reruns(0).timeout(Duration::from_millis(100)).await;
                proxy.cut();
                proxy.resume();
                outcomes.push(world.judge(&result, "held back and cut").await);
            }
            world.db.close(Duration::from_secs(5)).await;
            outcomes
        });
        for outcome in outcomes {
            counts[match outcome {
                Outcome::Committed => 0,
                Outcome::Unknown => 2,
                _ => 1,
            }] += 1;
        }
    }
    println!(
        "links cut around COMMIT: {} committed, {} undone, {} unknown, none false",
        counts[0], counts[1], counts[2]
    );
    assert!(counts[2] > 0);
}
