//! What became of a statement that failed, on real servers: effects are counted with a sequence, which no rollback undoes.

use std::time::Duration;

use futures::StreamExt;
use gdbpool::{Cancel, ErrorKind, Outcome, Phase};

use super::{World, on_each_server, said, same};

const HOUR: Duration = Duration::from_secs(3_600);

/// Draws a number, then sleeps: a write that can be caught in the act.
const SLOW_WRITE: &str =
    "WITH drawn AS (INSERT INTO t VALUES (nextval('s')) RETURNING n) SELECT n, pg_sleep(3600) FROM drawn";

#[test]
fn the_server_refuses() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        db.run("INSERT INTO t VALUES (1, 'one')").await.expect("insert");
        let error = db
            .run("INSERT INTO t SELECT n FROM generate_series(3, 1, -1) n")
            .await
            .expect_err("1 is there");
        assert!(matches!(error.kind(), ErrorKind::Database), "{error:?}");
        assert_eq!(said(&error), (Some("23505"), Outcome::RolledBack));
        assert_eq!((error.phase(), error.is_retryable()), (Phase::Executing, false));
        let report = error.database().expect("the server's words");
        assert_eq!((report.table(), report.constraint()), (Some("t"), Some("t_pkey")));
        assert_eq!(world.psql("SELECT count(*) FROM t"), "1");
        for (sql, state) in [("SELECT * FROM nowhere", "42P01"), ("SELEC 1", "42601")] {
            let error = db.run(sql).await.expect_err(sql);
            assert_eq!(
                (said(&error), error.phase()),
                ((Some(state), Outcome::NotExecuted), Phase::Preparing)
            );
        }
        let error = db
            .run("SELECT 1 / (n - 1) FROM t")
            .read()
            .on_pool("main")
            .await
            .expect_err("a division by zero");
        assert_eq!(said(&error), (Some("22012"), Outcome::RolledBack));
    });
}

#[test]
fn what_commits_on_its_way_is_not_called_rolled_back() {
    on_each_server(same, async |world: World| {
        let half = "CREATE PROCEDURE half() LANGUAGE plpgsql AS \
                    $$ BEGIN INSERT INTO t VALUES (1); COMMIT; PERFORM 1 / 0; END $$";
        world.db.run(half).await.expect("a procedure");
        let error = world.db.run("CALL half()").await.expect_err("a division by zero");
        assert_eq!(said(&error), (Some("40003"), Outcome::Unknown));
        assert_eq!(error.database().map(|report| report.code().code()), Some("22012"));
        let lease = world.db.pool("main").expect("there").checkout().await.expect("a lease");
        let text = "BEGIN; INSERT INTO t VALUES (2); COMMIT; SELECT 1 / 0";
        let error = lease.batch(text).await.expect_err("a division by zero");
        assert_eq!(said(&error), (Some("40003"), Outcome::Unknown));
        let error = lease
            .batch("INSERT INTO t VALUES (3); SELECT 1 / 0")
            .await
            .expect_err("a division by zero");
        assert_eq!(said(&error), (Some("22012"), Outcome::RolledBack));
        assert_eq!(world.psql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2");
    });
}

#[test]
fn a_session_that_died_unnoticed_is_replaced() {
    on_each_server(same, async |world: World| {
        for round in 1..=10 {
            let pid = world.backend("main").await;
            world.terminate(pid);
            let drawn: i64 = world
                .db
                .run("SELECT nextval('s')")
                .scalar()
                .await
                .expect("another session");
            assert_eq!(drawn, round, "it was run once");
            assert_ne!(world.backend("main").await, pid);
        }
    });
}

#[test]
fn a_write_whose_session_dies_is_unknown_and_never_sent_again() {
    on_each_server(same, async |world: World| {
        let work = async {
            let pid = world.running("nextval").await;
            world.terminate(pid);
            pid
        };
        let (result, pid) = futures::join!(world.db.run(SLOW_WRITE).into_future(), work);
        let error = result.expect_err("the session died");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        assert_eq!(said(&error), (Some("40003"), Outcome::Unknown));
        assert_eq!((error.backend_pid(), error.is_retryable()), (Some(pid), false));
        assert_eq!(
            error.database().map(|report| report.code().code()),
            Some("57P01"),
            "{error:?}"
        );
        // The next one works, and then every session that could run it again has been seen.
        assert_ne!(world.backend("main").await, pid);
        assert_eq!(
            world.psql("SELECT last_value, is_called FROM s"),
            "1|t",
            "it was sent once"
        );
    });
}

#[test]
fn a_read_whose_session_dies_is_sent_again() {
    on_each_server(same, async |world: World| {
        let first = world.backend("main").await;
        let read = "SELECT pg_backend_pid(), CASE WHEN pg_backend_pid() = $1 THEN pg_sleep(3600)::text END";
        let work = async {
            let pid = world.running("pg_sleep").await;
            assert_eq!(pid, first);
            world.terminate(pid);
        };
        let order = world.db.run(read).bind(first).read().on_pool("main").scalar::<i32>();
        let (second, ()) = futures::join!(order.into_future(), work);
        assert_ne!(second.expect("sent again"), first);
    });
}

#[test]
fn a_stream_is_not_sent_again_after_its_first_row() {
    on_each_server(same, async |world: World| {
        let rows = "SELECT n, repeat('x', 1000), CASE WHEN n = 2000 THEN pg_sleep(3600)::text END FROM generate_series(1, 3000) n";
        let order = world.db.run(rows).read().on_pool("main");
        let mut stream = order.stream().await.expect("a stream");
        assert_eq!(stream.next().await.expect("a row").expect("a row").get::<_, i32>(0), 1);
        let mut next = 2;
        let read_on = async {
            loop {
                match stream.next().await {
                    Some(Ok(row)) => assert_eq!(row.get::<_, i32>(0), next),
                    Some(Err(error)) => return error,
                    None => panic!("all rows came"),
                }
                next += 1;
            }
        };
        let work = async {
            let pid = world.running("repeat").await;
            world.terminate(pid);
        };
        let (error, ()) = futures::join!(read_on, work);
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        assert_eq!((error.outcome(), error.phase()), (Outcome::RolledBack, Phase::Reading));
        assert!(stream.next().await.is_none(), "a failed stream has ended");
    });
}

#[test]
fn a_write_past_its_deadline_is_cancelled_and_rolled_back() {
    let patient = |config: gdbpool::PoolConfig| config.cancel_grace(Duration::from_secs(60));
    on_each_server(patient, async |world: World| {
        let before = world.backend("main").await;
        // Parsed before, so that the deadline strikes the statement itself; nothing is called off by a false condition.
        let write = "WITH drawn AS (INSERT INTO t SELECT nextval('s') WHERE $1::float8 > 0 RETURNING n) SELECT pg_sleep($1) FROM drawn";
        assert_eq!(world.db.run(write).bind(0f64).execute().await.ok(), Some(0));
        let order = world.db.run(write).bind(3_600f64).timeout(Duration::from_millis(500));
        let error = order.await.expect_err("it takes an hour");
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
        assert_eq!(said(&error), (Some("57014"), Outcome::RolledBack));
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
        assert_eq!(
            world.psql("SELECT last_value, is_called FROM s"),
            "1|t",
            "it was sent once"
        );
        assert_eq!(world.backend("main").await, before, "the session was not lost by it");

        let cancel = Cancel::new();
        let call_off = async {
            world.running("nextval").await;
            cancel.cancel();
        };
        let order = world.db.run(SLOW_WRITE).cancel_on(&cancel).timeout(HOUR);
        let (result, ()) = futures::join!(order.into_future(), call_off);
        let error = result.expect_err("it was called off");
        assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
        assert_eq!(said(&error), (Some("57014"), Outcome::RolledBack));
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
        assert_eq!(world.backend("main").await, before, "the session was not lost by it");
    });
}
