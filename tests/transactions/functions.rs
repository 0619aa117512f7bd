//! Function interactions on real servers.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use gdbpool::{BadInput, Cancel, Error, ErrorKind, Isolation, Outcome, Phase, Transaction};

use super::{World, on_each_server, said};

const INSERT: &str = "INSERT INTO t VALUES ($1)";

#[derive(Debug, PartialEq)]
struct NotToday;

impl std::fmt::Display for NotToday {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not today")
    }
}

impl std::error::Error for NotToday {}

#[test]
fn ok_commits_and_everything_else_rolls_back() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let name = String::from("kept");
        let sum = db
            .transact(|tx| {
                let name = name.clone();
                async move {
                    tx.execute(INSERT, &[&1i32]).await?;
                    tx.execute(INSERT, &[&2i32]).await?;
                    let sum: i64 = tx.query_one("SELECT sum(n) FROM t", &[]).await?.get(0);
                    Ok((name, sum))
                }
            })
            .await
            .expect("committed");
        assert_eq!(sum, (String::from("kept"), 3));
        assert_eq!(world.rows(), "1 2");

        let error = db
            .run(|tx: Transaction| async move {
                tx.execute(INSERT, &[&3i32]).await?;
                Err::<(), _>(Error::user(NotToday))
            })
            .await
            .expect_err("its own decision");
        assert!(matches!(error.kind(), ErrorKind::User), "{error:?}");
        assert_eq!(error.downcast_ref(), Some(&NotToday));
        assert_eq!(said(&error), (None, Outcome::RolledBack));

        let panicking = db.transact(|tx| async move {
            tx.execute(INSERT, &[&4i32]).await?;
            assert!(tx.backend_pid() == 0, "a panic in a function");
            Ok(())
        });
        let panicked = AssertUnwindSafe(panicking.into_future()).catch_unwind().await;
        assert!(panicked.is_err());

        let error = db
            .transact(|tx| async move { tx.execute(INSERT, &[&1i32]).await })
            .await
            .expect_err("1 is there");
        assert_eq!(said(&error), (Some("23505"), Outcome::RolledBack));

        db.transact(|_| async { Ok(()) }).await.expect("nothing to commit");
        let error = db
            .transact(|_| async { Err::<(), _>(Error::user("nothing was sent")) })
            .await
            .expect_err("its own decision");
        assert_eq!(error.outcome(), Outcome::NotExecuted);
        assert_eq!(world.rows(), "1 2");
    });
}

#[test]
fn a_failure_that_the_function_keeps_to_itself_is_no_success() {
    on_each_server(async |world: World| {
        let error = world
            .db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&1i32]).await?;
                tx.execute(INSERT, &[&1i32]).await.expect_err("1 is there");
                Ok(())
            })
            .await
            .expect_err("an aborted transaction");
        assert!(matches!(error.kind(), ErrorKind::TransactionFailed), "{error:?}");
        assert_eq!(
            (error.outcome(), error.phase()),
            (Outcome::RolledBack, Phase::Committing)
        );
        assert_eq!(world.rows(), "");
        world.psql("CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
        let error = world
            .db
            .transact(|tx| async move {
                tx.batch("INSERT INTO late VALUES (1); INSERT INTO late VALUES (1)")
                    .await
            })
            .await
            .expect_err("a deferred constraint");
        assert_eq!(said(&error), (Some("23505"), Outcome::RolledBack));
        assert_eq!(error.phase(), Phase::Committing);
        assert_eq!(world.psql("SELECT count(*) FROM late"), "0");
    });
}

#[test]
fn the_transaction_is_the_one_asked_for() {
    on_each_server(async |world: World| {
        let show = "SELECT current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only') \
            || ' ' || current_setting('transaction_deferrable') || ' ' || pg_is_in_recovery()";
        let ask = |tx: Transaction| async move { Ok(tx.query_one(show, &[]).await?.get::<_, String>(0)) };
        let db = &world.db;
        assert_eq!(db.transact(ask).await.expect("run"), "read committed off off false");
        let serializable = db.transact(ask).isolation(Isolation::Serializable).read().deferrable();
        let said = serializable.on_pool("main").await.expect("run");
        assert_eq!(said, "serializable on on false");
        assert_eq!(
            db.transact(ask)
                .isolation(Isolation::RepeatableRead)
                .read()
                .await
                .expect("run"),
            "repeatable read on off true"
        );
        let error = db
            .transact(|tx| async move { tx.execute(INSERT, &[&1i32]).await })
            .read()
            .on_pool("main")
            .await
            .expect_err("read only");
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("25006"));
        // A standby knows no serializable transactions: BEGIN is refused, and nothing is run without it.
        let error = db
            .transact(|tx| async move { tx.query("SELECT pg_advisory_lock(1)", &[]).await })
            .isolation(Isolation::Serializable)
            .read()
            .await
            .expect_err("no serializable on a standby");
        assert_eq!(
            error.database().map(|report| report.code().code()),
            Some("0A000"),
            "{error:?}"
        );
        assert_eq!(error.outcome(), Outcome::NotExecuted);
    });
}

/// The server would let the first statement make the transaction one that writes, and version 15 a later one, too.
#[test]
fn a_function_that_only_reads_stays_in_its_mode() {
    on_each_server(async |world: World| {
        let in_functions = "CREATE FUNCTION leave() RETURNS void LANGUAGE plpgsql AS \
            $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); END $$";
        world.psql(in_functions);
        for (leaves, is_named) in [
            ("SET LOCAL transaction_read_only = off", true),
            ("SELECT 1; SET Transaction_Read_Only TO off", true),
            ("RESET transaction_read_only", true),
            ("SET TRANSACTION READ WRITE", true),
            ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE", true),
            ("SELECT set_config('transaction_read_only', NULL, true)", true),
            ("DO $$ BEGIN SET transaction_read_only = off; END $$", true),
            // A function has a snapshot, with which the server refuses it.
            ("SELECT leave()", false),
        ] {
            let function = world.db.transact(move |tx| async move {
                tx.batch(leaves).await?;
                tx.execute(INSERT, &[&1i32]).await
            });
            let error = function.read().on_pool("main").await.expect_err(leaves);
            let refused = matches!(error.kind(), ErrorKind::BadInput(BadInput::TransactionControl { .. }));
            assert_eq!(refused, is_named, "{leaves}: {error:?}");
            assert_ne!(error.outcome(), Outcome::Unknown, "{leaves}");
            assert_eq!(world.rows(), "", "{leaves}");
        }
        // What asks, and what says less, passes.
        for asks in [
            "SHOW transaction_read_only",
            "SELECT name, setting FROM pg_settings WHERE name = 'transaction_read_only'",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SELECT 'SET TRANSACTION READ WRITE'",
        ] {
            let function = world.db.transact(move |tx| async move { tx.batch(asks).await });
            function.read().on_pool("main").await.expect(asks);
        }
    });
}

#[test]
fn raw_transaction_control_is_refused_before_it_is_sent() {
    on_each_server(async |world: World| {
        for sql in [
            "COMMIT",
            "ROLLBACK",
            "BEGIN",
            "SELECT 1; end",
            "SAVEPOINT a",
            "PREPARE TRANSACTION 'a'",
        ] {
            let error = world
                .db
                .transact(|tx| async move {
                    tx.execute(INSERT, &[&1i32]).await?;
                    tx.batch(sql).await
                })
                .await
                .expect_err(sql);
            let ErrorKind::BadInput(BadInput::TransactionControl { .. }) = error.kind() else {
                panic!("{sql}: {error:?}");
            };
            assert_eq!(error.outcome(), Outcome::RolledBack, "{sql}");
        }
        assert_eq!(world.rows(), "");
    });
}

#[test]
fn a_savepoint_takes_back_its_own_work_only() {
    on_each_server(async |world: World| {
        let done = world
            .db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&1i32]).await?;
                let failed = tx.savepoint(|tx| async move {
                    tx.execute(INSERT, &[&2i32]).await?;
                    tx.savepoint(|tx| async move { tx.execute(INSERT, &[&3i32]).await })
                        .await?;
                    tx.execute(INSERT, &[&1i32]).await
                });
                let error = failed.await.expect_err("1 is there");
                assert_eq!(error.sqlstate().map(|state| state.code()), Some("23505"));
                tx.savepoint(|tx| async move { tx.execute(INSERT, &[&4i32]).await })
                    .await?;
                tx.execute(INSERT, &[&5i32]).await
            })
            .await;
        done.expect("committed");
        assert_eq!(world.rows(), "1 4 5");
    });
}

#[test]
fn a_handle_that_outlives_its_transaction_errs() {
    on_each_server(async |world: World| {
        let taken = Mutex::new(None);
        let keep = |tx: &Transaction| *taken.lock().expect("no panic") = Some(tx.clone());
        world
            .db
            .transact(|tx| {
                keep(&tx);
                async move { tx.execute(INSERT, &[&1i32]).await }
            })
            .await
            .expect("committed");
        let tx = taken.lock().expect("no panic").take().expect("a handle");
        let error = tx.execute(INSERT, &[&2i32]).await.expect_err("too late");
        assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotExecuted);
        assert_eq!(world.rows(), "1");
        // A call that is under way when the function ends is stopped with its transaction.
        let handed = &taken;
        let ended = world.db.transact(|tx| {
            *handed.lock().expect("no panic") = Some(tx.clone());
            async move {
                tx.execute(INSERT, &[&3i32]).await?;
                let mut slow = Box::pin(async move { tx.query("SELECT pg_sleep(60)", &[]).await });
                assert!(futures::poll!(slow.as_mut()).is_pending());
                Err::<(), _>(Error::user("enough"))
            }
        });
        ended.await.expect_err("its own decision");
        let tx = taken.lock().expect("no panic").take().expect("a handle");
        let error = tx.query("SELECT 1", &[]).await.expect_err("too late");
        assert!(matches!(error.kind(), ErrorKind::LeaseEnded), "{error:?}");
    });
}

#[test]
fn deadlines_cancels_and_drops_roll_back() {
    on_each_server(async |world: World| {
        let slow = |tx: Transaction| async move {
            tx.execute(INSERT, &[&1i32]).await?;
            tx.query("SELECT pg_sleep(60)", &[]).await
        };
        let late = world.db.transact(slow).timeout(Duration::from_millis(200)).await;
        let error = late.expect_err("a deadline");
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let cancel = Cancel::new();
        let mut stopped = Box::pin(world.db.transact(slow).cancel_on(&cancel).into_future());
        let at_work = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND wait_event = 'PgSleep'";
        futures::select_biased! {
            _ = (&mut stopped).fuse() => panic!("it sleeps"),
            () = world.until("it sleeps", || world.psql(at_work) == "1").fuse() => {}
        }
        cancel.cancel();
        let error = stopped.await.expect_err("cancelled");
        assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let mut dropped = Box::pin(world.db.transact(slow).into_future());
        futures::select_biased! {
            _ = (&mut dropped).fuse() => panic!("it sleeps"),
            () = world.until("it sleeps", || world.psql(at_work) == "1").fuse() => {}
        }
        drop(dropped);
        world.until("it was stopped", || world.psql(at_work) == "0").await;
        assert_eq!(world.rows(), "");
    });
}

#[test]
fn a_lost_session_before_commit_is_run_again() {
    on_each_server(async |world: World| {
        let runs = AtomicU32::new(0);
        let (runs, world) = (&runs, &world);
        let done = world.db.transact(|tx| async move {
            let run = runs.fetch_add(1, Ordering::SeqCst);
            tx.execute(INSERT, &[&1i32]).await?;
            if run < 2 {
                world.terminate(tx.backend_pid());
            }
            tx.execute(INSERT, &[&2i32]).await
        });
        done.await.expect("the third run");
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(world.rows(), "1 2");
        let error = world
            .db
            .transact(|tx| async move {
                world.terminate(tx.backend_pid());
                tx.execute(INSERT, &[&3i32]).await
            })
            .reruns(0)
            .await;
        // Killed before anything was sent, it may run on another session; that one is killed, too, and so on.
        let error = error.expect_err("every session is killed");
        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
        assert_eq!(world.rows(), "1 2");
    });
}

#[test]
fn it_runs_on_its_own_when_spawned() {
    on_each_server(async |world: World| {
        let name = String::from("7");
        let spawned = world
            .db
            .transact(move |tx| {
                let name = name.clone();
                async move {
                    let n: i32 = name.parse().map_err(Error::user)?;
                    tx.execute(INSERT, &[&n]).await
                }
            })
            .spawn();
        assert_eq!(spawned.await.expect("committed"), 1);
        assert_eq!(world.rows(), "7");
    });
}
