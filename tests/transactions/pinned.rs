//! Pinned transactions on real servers.

use std::time::Duration;

use gdbpool::{BadInput, Error, ErrorKind, Outcome, Partial};

use super::{World, on_each_server};

const INSERT: &str = "INSERT INTO t VALUES ($1)";

#[test]
fn it_stays_on_its_connection_until_it_is_committed() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let Partial {
            result,
            mut transaction,
        } = db.run(INSERT).bind(1i32).execute().partial().await.expect("begun");
        assert_eq!(result, 1);
        let pid = transaction.backend_pid();
        for _ in 0..3 {
            let here = db
                .run("SELECT pg_backend_pid()")
                .scalar::<i32>()
                .within(&mut transaction);
            assert_eq!(here.await.expect("a process id"), pid);
            let elsewhere = db.run("SELECT pg_backend_pid()").on_pool("main").scalar::<i32>();
            assert_ne!(elsewhere.await.expect("a process id"), pid);
        }
        let rows = db
            .run("SELECT n FROM t WHERE n = :n")
            .bind_named("n", 1i32)
            .within(&mut transaction);
        assert_eq!(rows.await.expect("its own row").len(), 1);
        let added = db
            .transact(|tx| async move { tx.execute(INSERT, &[&2i32]).await })
            .within(&mut transaction)
            .await;
        assert_eq!(added.expect("added"), 1);
        let taken_back = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&3i32]).await?;
                Err::<(), _>(Error::user("no"))
            })
            .within(&mut transaction)
            .await;
        taken_back.expect_err("its own decision");
        assert_eq!(world.rows(), "", "nobody else sees it yet");
        let receipt = transaction.commit().await.expect("committed");
        assert!(receipt.transaction_id().is_some());
        assert_eq!(world.rows(), "1 2");

        let Partial { result, transaction } = db
            .transact(|tx| async move { tx.execute(INSERT, &[&4i32]).await })
            .partial()
            .await
            .expect("begun");
        assert_eq!(result, 1);
        transaction.rollback().await.expect("rolled back");
        let dropped = db.run(INSERT).bind(5i32).partial().await.expect("begun");
        drop(dropped);
        let read = db.run("SELECT 1").read().partial().await.expect("begun");
        let receipt = read.transaction.commit().await.expect("committed");
        assert_eq!(receipt.transaction_id(), None, "it wrote nothing");
        assert_eq!(world.rows(), "1 2");
    });
}

#[test]
fn a_partial_interaction_that_fails_leaves_nothing_open() {
    on_each_server(async |world: World| {
        let db = &world.db;
        db.run(INSERT).bind(1i32).await.expect("insert");
        let error = db.run(INSERT).bind(1i32).partial().await.expect_err("1 is there");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let error = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&2i32]).await?;
                Err::<(), _>(Error::user("no"))
            })
            .partial()
            .await
            .expect_err("its own decision");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let mut open = db.run(INSERT).bind(3i32).partial().await.expect("begun").transaction;
        let error = db.run("COMMIT").within(&mut open).await.expect_err("not by SQL");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::TransactionControl { .. })),
            "{error:?}"
        );
        let twice = db.run("SELECT 1").within(&mut open).partial().await;
        let error = twice.expect_err("either");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::Conflict { .. })),
            "{error:?}"
        );
        drop(open);
        assert_eq!(world.rows(), "1");
    });
}

#[test]
fn its_lease_time_ends_it() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let short = db
            .run(INSERT)
            .bind(1i32)
            .partial()
            .lease_time(Duration::from_millis(150));
        let mut transaction = short.await.expect("begun").transaction;
        let pid = transaction.backend_pid();
        let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
        // Nobody comes by: the pool ends it by itself.
        world.until("it was rolled back", || world.psql(&state) == "idle").await;
        let here = file!();
        let error = db.run("SELECT 1").within(&mut transaction).await.expect_err("expired");
        let ErrorKind::PinExpired { at, lease_time } = error.kind() else {
            panic!("{error:?}");
        };
        assert_eq!(*lease_time, Duration::from_millis(150));
        assert_eq!(at.file(), here);
        assert!(error.to_string().contains(here), "{error}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let error = transaction.commit().await.expect_err("expired");
        assert!(matches!(error.kind(), ErrorKind::PinExpired { .. }), "{error:?}");
        assert_eq!(world.rows(), "");
    });
}

#[test]
fn its_lost_session_is_reported_and_never_replaced() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let mut transaction = db.run(INSERT).bind(1i32).partial().await.expect("begun").transaction;
        world.terminate(transaction.backend_pid());
        for _ in 0..2 {
            let error = db
                .run(INSERT)
                .bind(2i32)
                .within(&mut transaction)
                .await
                .expect_err("lost");
            assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
            assert!(
                matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted),
                "{error:?}"
            );
        }
        let error = transaction.commit().await.expect_err("lost");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        assert_eq!(world.rows(), "");
    });
}

#[test]
fn a_cursor_gives_its_rows_in_batches() {
    on_each_server(async |world: World| {
        let db = &world.db;
        let mut open = db
            .run("SELECT 1")
            .on_pool("main")
            .partial()
            .await
            .expect("begun")
            .transaction;
        let sql = "SELECT n FROM generate_series(1, $1) n";
        for total in [0, 1, 9, 10, 11, 25i32] {
            let mut cursor = open.cursor(sql, &[&total], 10).await.expect("a cursor");
            let mut seen = Vec::new();
            while let Some(batch) = cursor.next().await.expect("rows") {
                assert!((1..=10).contains(&batch.len()));
                seen.extend(batch.iter().map(|row| row.get::<_, i32>(0)));
            }
            assert!(cursor.next().await.expect("nothing more").is_none());
            assert_eq!(seen, (1..=total).collect::<Vec<_>>());
        }
        let cursor = open
            .cursor("SELECT 'other columns', 2", &[], 1)
            .await
            .expect("a cursor");
        cursor.close().await.expect("closed");
        let error = open.cursor("SELECT 1", &[], 0).await.expect_err("no rows");
        assert!(
            matches!(error.kind(), ErrorKind::BadInput(BadInput::OutOfBounds { .. })),
            "{error:?}"
        );
        open.commit().await.expect("committed");
    });
}
