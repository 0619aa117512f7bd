//! Handles that are used beside, after or beyond their transaction, and ends that something else falls into.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, join};
use gdbpool::{BadInput, Error, ErrorKind, Outcome, PinnedTransaction, PoolConfig, Setup, Transaction};

use super::{World, on_each_server};

const INSERT: &str = "INSERT INTO t VALUES ($1)";
/// How often each race is run, on each server and runtime.
const TRIES: i32 = 100;

/// Each text is a new one: it has to be parsed first, and its end comes between that and its run.
fn insert(n: i32) -> String {
    format!("INSERT INTO t VALUES ({n})")
}

/// A pinned transaction in which `n` was inserted.
async fn pinned(world: &World, n: i32) -> PinnedTransaction {
    let insert = world.db.run(INSERT).bind(n).execute().partial();
    insert.await.expect("begun").transaction
}

/// Rows of late calls (odd) that were not committed by the transaction of the row before them (even).
fn strays(world: &World) -> String {
    world.psql(
        "SELECT coalesce(string_agg(late.n::text, ' '), '') FROM t late LEFT JOIN t own ON own.n = late.n - 1 \
         WHERE late.n % 2 = 1 AND own.xmin IS DISTINCT FROM late.xmin",
    )
}

/// A late call is part of its transaction, which was committed, or it says that it came too late and did nothing.
fn is_true_to(late: &Result<u64, Error>, is_there: bool) {
    match late {
        Ok(_) => assert!(is_there, "done in a transaction that was committed, and not there"),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
            match error.outcome() {
                Outcome::Committed => assert!(is_there, "{error:?}"),
                Outcome::RolledBack | Outcome::NotExecuted => assert!(!is_there, "{error:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_handle_beside_a_rollback_commits_nothing() {
    on_each_server(async |world: World| {
        for n in 0..TRIES {
            let mut pin = pinned(&world, 2 * n).await;
            let (handle, text) = (pin.handle(), insert(2 * n + 1));
            let (late, rolled_back) = if n % 2 == 0 {
                join!(handle.execute(&text, &[]), pin.rollback())
            } else {
                let (rolled_back, late) = join!(pin.rollback(), handle.execute(&text, &[]));
                (late, rolled_back)
            };
            rolled_back.expect("rolled back");
            if let Err(error) = late {
                assert_ne!(error.outcome(), Outcome::Committed, "{error:?}");
            }
            let error = handle.execute(&text, &[]).await.expect_err("too late");
            assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
        }
        world.is_left_clean().await;
        assert_eq!(world.rows(), "", "everything was rolled back");
    });
}

#[test]
fn a_handle_beside_a_commit_is_in_it_or_too_late() {
    on_each_server(async |world: World| {
        let mut told = Vec::new();
        for n in 0..TRIES {
            let mut pin = pinned(&world, 2 * n).await;
            let (handle, text) = (pin.handle(), insert(2 * n + 1));
            let (late, committed) = if n % 2 == 0 {
                join!(handle.execute(&text, &[]), pin.commit())
            } else {
                let (committed, late) = join!(pin.commit(), handle.execute(&text, &[]));
                (late, committed)
            };
            committed.expect("committed");
            told.push((2 * n + 1, late));
        }
        world.is_left_clean().await;
        assert_eq!(strays(&world), "");
        let rows = world.rows();
        for (n, late) in told {
            is_true_to(&late, rows.split(' ').any(|row| row == n.to_string()));
        }
        assert_eq!(world.psql("SELECT count(*) FROM t WHERE n % 2 = 0"), TRIES.to_string());
    });
}

#[test]
fn a_task_that_took_the_handle_along_is_in_it_or_too_late() {
    on_each_server(async |world: World| {
        let mut told = Vec::new();
        for n in 0..TRIES {
            let (sender, mut receiver) = futures::channel::mpsc::unbounded();
            let runtime = &world.runtime;
            let function = |tx: Transaction| {
                let sender = sender.clone();
                async move {
                    tx.execute(INSERT, &[&(2 * n)]).await?;
                    let (taken, text) = (tx.clone(), insert(2 * n + 1));
                    let mut late = Box::pin(async move { taken.execute(&text, &[]).await });
                    // Half of them have begun when they are taken along.
                    if n % 2 == 0 {
                        assert!(futures::poll!(late.as_mut()).is_pending());
                    }
                    runtime.spawn(Box::pin(async move {
                        let _ = sender.unbounded_send(late.await);
                    }));
                    Ok(())
                }
            };
            world.db.transact(function).reruns(0).await.expect("committed");
            told.push((2 * n + 1, receiver.next().await.expect("it ends, too")));
        }
        world.is_left_clean().await;
        assert_eq!(strays(&world), "");
        let rows = world.rows();
        for (n, late) in told {
            is_true_to(&late, rows.split(' ').any(|row| row == n.to_string()));
        }
    });
}

#[test]
fn a_setup_that_was_kept_reaches_nobody() {
    on_each_server(async |world: World| {
        let kept = Arc::new(Mutex::new(Vec::<Setup>::new()));
        let keeper = Arc::clone(&kept);
        let dsn = world.pair.primary.dsn_to(&world.database);
        let hooked = PoolConfig::new("hooked", &dsn).expect("a sound DSN").size(1);
        let hooked = hooked.on_connect(move |setup: Setup| {
            keeper
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(setup.clone());
            async move { setup.batch("SET my.tenant = 'acme'").await }
        });
        world.db.add_pool(hooked).expect("a new name");
        for n in [1, 2] {
            let open = world.db.run(INSERT).bind(n).on_pool("hooked").partial();
            let mut open = open.await.expect("begun").transaction;
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert!(!kept.is_empty(), "the function was called");
            for setup in kept {
                for sql in ["INSERT INTO t VALUES (66)", "ROLLBACK", "no SQL"] {
                    setup.batch(sql).await.expect_err(sql);
                    setup.query(sql, &[]).await.expect_err(sql);
                    let error = setup.execute(sql, &[]).await.expect_err(sql);
                    assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{sql}: {error:?}");
                }
            }
            let mine = world.db.run("SELECT count(*) FROM t").scalar::<i64>().within(&mut open);
            assert_eq!(mine.await.expect("an open transaction"), i64::from(n));
            open.commit().await.expect("committed");
        }
        assert_eq!(world.rows(), "1 2");
    });
}

#[test]
fn savepoints_that_are_joined_do_not_take_back_each_other() {
    on_each_server(async |world: World| {
        for round in 0..5 {
            let base = 10 * round;
            let rows = world
                .db
                .transact(|tx| async move {
                    tx.execute(INSERT, &[&base]).await?;
                    let (fails, stays) = join!(
                        tx.savepoint(|tx| async move {
                            tx.execute(INSERT, &[&(base + 1)]).await?;
                            tx.query("SELECT pg_sleep(0.01)", &[]).await?;
                            tx.savepoint(|tx| async move { tx.execute(INSERT, &[&(base + 2)]).await })
                                .await?;
                            tx.execute(INSERT, &[&base]).await
                        }),
                        tx.savepoint(|tx| async move { tx.execute(INSERT, &[&(base + 5)]).await }),
                    );
                    let error = fails.expect_err("it is there");
                    assert_eq!(error.sqlstate().map(|state| state.code()), Some("23505"));
                    // Refused while the other one is open, or done in its turn; but never done and taken back.
                    let Err(error) = stays else { return stays };
                    let ErrorKind::BadInput(BadInput::Conflict { .. }) = error.kind() else {
                        return Err(error);
                    };
                    tx.savepoint(|tx| async move { tx.execute(INSERT, &[&(base + 5)]).await })
                        .await
                })
                .timeout(Duration::from_secs(20))
                .await;
            assert_eq!(rows.expect("committed"), 1);
        }
        assert_eq!(world.rows(), "0 5 10 15 20 25 30 35 40 45");
    });
}

#[test]
fn its_lease_time_does_not_end_a_commit_that_is_under_way() {
    on_each_server(async |world: World| {
        world.psql(
            "CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             EXECUTE FUNCTION nap()",
        );
        let dsn = world.pair.primary.dsn_to(&world.database);
        let patient = PoolConfig::new("patient", &dsn).expect("a sound DSN").size(1);
        let patient = patient.cancel_grace(Duration::from_secs(5));
        world.db.add_pool(patient).expect("a new name");
        let pin = async |n: i32, pool: &'static str| {
            let insert = world.db.run(INSERT).bind(n).on_pool(pool).partial();
            let opened = insert.lease_time(Duration::from_secs(1)).await;
            opened.expect("begun").transaction
        };
        let open = pin(1, "patient").await;
        open.commit().await.expect("the server committed");
        assert_eq!(world.rows(), "1");
        // With the usual grace its answer may be given up first; then nobody knows.
        let committed = pin(2, "main").await.commit().await;
        world.is_left_clean().await;
        match &committed {
            Ok(_) => assert_eq!(world.rows(), "1 2"),
            Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}"),
        }
    });
}

#[test]
fn a_function_that_may_run_once_runs_once() {
    on_each_server(async |world: World| {
        let runs = AtomicU32::new(0);
        let (runs, world) = (&runs, &world);
        let error = world
            .db
            .transact(|tx| async move {
                runs.fetch_add(1, Ordering::SeqCst);
                world.terminate(tx.backend_pid());
                tx.execute(INSERT, &[&1i32]).await
            })
            .reruns(0)
            .await
            .expect_err("its session was killed");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        assert!(
            matches!(error.outcome(), Outcome::NotExecuted | Outcome::RolledBack),
            "{error:?}"
        );
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{error:?}");
        assert_eq!(world.rows(), "");
    });
}

#[test]
fn a_body_in_standard_sql_is_no_transaction_control() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let body = "CREATE FUNCTION one() RETURNS int BEGIN ATOMIC SELECT 1; END";
        let seven = "CREATE FUNCTION seven() RETURNS int BEGIN ATOMIC SELECT 6; SELECT CASE WHEN true THEN 7 END; END";
        let sum = db
            .transact(|tx| async move {
                tx.execute(body, &[]).await?;
                tx.batch(seven).await?;
                Ok(tx.query_one("SELECT one() + seven()", &[]).await?.get::<_, i32>(0))
            })
            .await;
        assert_eq!(sum.expect("committed"), 8);
        let mut open = db
            .run("SELECT 1")
            .on_pool("main")
            .partial()
            .await
            .expect("begun")
            .transaction;
        let two = "CREATE FUNCTION two() RETURNS int BEGIN ATOMIC SELECT 2; END";
        db.run(two).execute().within(&mut open).await.expect("within");
        open.commit().await.expect("committed");
        assert_eq!(world.psql("SELECT one() + two() + seven()"), "10");
    });
}
