//! Open transactions, panics, forgotten guards, tasks that took a handle along: what borrowers do to a session by accident.
//!
//! On real servers. What they leave on purpose is in `leftovers`, what the raw client can do in `raw`.

use std::error::Error as StdError;
use std::mem;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::channel::oneshot;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt, join};
use gdbpool::types::{IsNull, ToSql, Type, to_sql_checked};
use gdbpool::{CloseReason, ErrorKind, Lease, Runtime, TimeoutCause};

use super::runtimes::{on_each, until};
use super::stage::{SERVERS, Stage, at_once, config, database};

/// Texts that end in a transaction, or in a failed one, after they wrote mark 1.
const OPEN: &[&str] = &[
    "BEGIN; INSERT INTO marks VALUES (1)",
    "BEGIN; INSERT INTO marks VALUES (1); SELECT 1/0",
    "BEGIN; INSERT INTO marks VALUES (1); SAVEPOINT a; SELECT 1/0",
    "BEGIN; INSERT INTO marks VALUES (1); LOCK TABLE marks; SELECT pg_advisory_xact_lock(9); SELECT pg_advisory_lock(9)",
    "BEGIN; INSERT INTO marks VALUES (1); SET LOCAL work_mem = '1MB'; SET ROLE guest; LISTEN c; PREPARE p AS SELECT 1",
    "BEGIN; INSERT INTO marks VALUES (1); DECLARE c CURSOR FOR SELECT 1; CREATE TEMP TABLE t (n int) ON COMMIT DROP",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT count(*) FROM marks",
    "SET work_mem = '1MB'; COMMIT; SET work_mem = '2MB'; SELECT 1/0",
    "BEGIN; COMMIT AND CHAIN; INSERT INTO marks VALUES (1)",
];

async fn open_transactions(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    for sql in OPEN {
        let lease = stage.one.checkout().await.expect("a session");
        let _ = lease.batch(sql).await;
        drop(lease);
        assert_eq!(stage.is_clean(1, sql).await, 0, "{sql} was committed");
        // Statement by statement; an error reaches the caller before its ReadyForQuery does.
        let lease = stage.one.checkout().await.expect("a session");
        for statement in sql.split("; ") {
            let _ = lease.execute(statement, &[]).await;
        }
        drop(lease);
        assert_eq!(stage.is_clean(1, sql).await, 0, "{sql} was committed");
        let lease = stage.one.checkout().await.expect("a session");
        let _ = lease.raw().batch_execute(sql).await;
        drop(lease);
        assert_eq!(stage.is_clean(1, sql).await, 0, "{sql} was committed");
    }
    for sql in [
        "BEGIN",
        "START TRANSACTION READ ONLY",
        "SELECT 1/0",
        "SAVEPOINT a",
        "COMMIT",
        "nonsense",
        "",
    ] {
        let _ = stage.db.run(sql).await;
        stage.is_clean(0, sql).await;
        let _ = stage.db.run(sql).read().execute().await;
        stage.is_clean(0, sql).await;
    }
    let status = stage.one.status();
    assert_eq!(status.connects, 2, "nothing of this costs a session: {status}");
    stage.close().await;
}

#[test]
fn open_transactions_are_rolled_back() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(open_transactions(runtime, database(server))));
    }
}

/// A value that panics when it is encoded, with half of the request written.
#[derive(Debug)]
struct Grenade;

impl ToSql for Grenade {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.extend_from_slice(b"half of it");
        blow_up()
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A panic without a word on the screen.
fn blow_up() -> ! {
    resume_unwind(Box::new("as planned"))
}

async fn panics(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    for round in 0..3 {
        let holding = async {
            let lease = stage.one.checkout().await.expect("a session");
            lease
                .batch("BEGIN; INSERT INTO marks VALUES (1); SET work_mem = '1MB'")
                .await
                .expect("work");
            if round == 1 {
                let rows = lease
                    .query_stream("SELECT generate_series(1, 100000)", &[])
                    .await
                    .expect("rows");
                rows.take(round).for_each(|_| async { blow_up() }).await;
            }
            blow_up()
        };
        let panic: Result<(), _> = AssertUnwindSafe(holding).catch_unwind().await;
        assert!(panic.is_err());
        assert_eq!(stage.is_clean(1, "a panic").await, 0);
    }
    let (done, ended) = oneshot::channel::<()>();
    let one = stage.one.clone();
    runtime.spawn(Box::pin(async move {
        let lease = one.checkout().await.expect("a session");
        lease
            .batch("BEGIN; INSERT INTO marks VALUES (1); LISTEN c")
            .await
            .expect("work");
        // Dropped by the panic, too, and after the lease.
        let (_lease, _done) = (lease, done);
        blow_up()
    }));
    assert!(ended.await.is_err(), "the task has panicked");
    assert_eq!(stage.is_clean(1, "a task that panicked").await, 0);
    for read in [false, true] {
        let sql = "INSERT INTO marks SELECT 1 WHERE $1::text IS NOT NULL";
        let run = stage.db.run(sql).bind(Grenade);
        let panic = AssertUnwindSafe(if read { run.read() } else { run }.into_future())
            .catch_unwind()
            .await;
        assert!(panic.is_err());
        assert_eq!(stage.is_clean(1, "a value that panicked").await, 0);
        let lease = stage.one.checkout().await.expect("a session");
        let panic = AssertUnwindSafe(lease.execute(sql, &[&Grenade])).catch_unwind().await;
        assert!(panic.is_err());
        drop(lease);
        assert_eq!(stage.is_clean(1, "a value that panicked on a lease").await, 0);
    }
    stage.close().await;
}

#[test]
fn panics_leave_nothing() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(panics(runtime, database(server))));
    }
}

async fn tasks_with_handles(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    for (sql, read) in [
        ("SELECT generate_series(1, 5000)", 5_000),
        ("SELECT generate_series(1, 200000)", 3),
    ] {
        let mut rows = stage.db.run(sql).stream().await.expect("rows");
        let (done, ended) = oneshot::channel();
        runtime.spawn(Box::pin(async move {
            let mut count = 0;
            while count < read && rows.try_next().await.expect("a row").is_some() {
                count += 1;
            }
            drop(rows);
            let _ = done.send(count);
        }));
        // The next borrower is in the queue meanwhile.
        let (_, count) = join!(stage.is_clean(0, "a stream in a task"), ended);
        assert_eq!(count, Ok(read));
    }
    let lease = stage.one.checkout().await.expect("a session");
    let (begun, go_on) = oneshot::channel();
    runtime.spawn(Box::pin(async move {
        lease.batch("BEGIN; INSERT INTO marks VALUES (1)").await.expect("work");
        let _ = begun.send(());
        let _ = lease.query("SELECT pg_sleep(0.02)", &[]).await;
    }));
    go_on.await.expect("the task has begun");
    assert_eq!(stage.is_clean(1, "a lease in a task").await, 0);
    let status = stage.one.status();
    assert_eq!(status.connects, 2, "nothing of this costs a session: {status}");
    stage.close().await;
}

#[test]
fn tasks_that_took_a_handle_along_leave_nothing() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(tasks_with_handles(runtime, database(server))));
    }
}

async fn forgotten_leases(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    let lease = stage.one.checkout().await.expect("a session");
    lease
        .batch("BEGIN; INSERT INTO marks VALUES (1); SELECT pg_advisory_lock(1)")
        .await
        .expect("work");
    mem::forget(lease);
    let refused = stage
        .one
        .checkout_within(Duration::from_millis(20))
        .await
        .expect_err("it is out");
    match refused.kind() {
        ErrorKind::CheckoutTimeout(report) => assert_eq!(report.cause, TimeoutCause::AllLeased),
        other => panic!("{other:?}"),
    }
    let rows = stage
        .db
        .run("SELECT generate_series(1, 200000)")
        .on_pool("watch")
        .stream();
    mem::forget(rows.await.expect("rows"));
    // Nothing else breaks: with room for more, all goes on.
    stage.one.resize(0, 2).expect("bounds");
    let lease = stage.one.checkout().await.expect("another session");
    lease.batch("SET work_mem = '1MB'; BEGIN").await.expect("work");
    drop(lease);
    until(&*runtime, "the other session is idle", || stage.one.status().idle == 1).await;
    assert_eq!(stage.one.status().leased, 1);
    let lease = stage.one.checkout().await.expect("the other session");
    assert!(!stage.is_planted(&lease).await);
    drop(lease);
    let report = stage.one.close(Duration::ZERO).await;
    assert_eq!(report.cut.len(), 1, "the forgotten lease is named: {report:?}");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND (state <> 'active' OR wait_event_type = 'Client')";
    // What is left is the other forgotten session and this one; the cut one is gone with its lock.
    loop {
        let (count, locks) = join!(
            stage.db.run(sessions).on_pool("watch").scalar::<i64>().into_future(),
            stage
                .db
                .run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
                .on_pool("watch")
                .scalar::<i64>()
                .into_future(),
        );
        if (count.expect("a look"), locks.expect("a look")) == (1, 0) {
            break;
        }
    }
    stage.db.close(Duration::ZERO).await;
}

#[test]
fn a_forgotten_lease_costs_its_slot_and_nothing_else() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(forgotten_leases(runtime, database(server))));
    }
}

async fn forgotten_futures(runtime: Arc<dyn Runtime>, dsn: String) {
    // What is forgotten unread stops the session's driver: only the deadline ends that.
    let short = Duration::from_millis(200);
    let quick = config(&dsn).settle_timeout(short).close_timeout(short);
    let stage = Stage::open_with(&runtime, quick, &dsn).await;
    let many = "SELECT generate_series(1, 200000)";
    for sql in [
        many,
        "SELECT pg_sleep(30)",
        "INSERT INTO marks SELECT 1 FROM pg_sleep(30)",
    ] {
        let lease = stage.one.checkout().await.expect("a session");
        lease.prepare(sql).await.expect("prepare");
        // The future lives on, so it borrows what lives as long.
        let lease: &'static Lease = Box::leak(Box::new(lease));
        let mut query = Box::pin(lease.query(sql, &[]));
        assert!(futures::poll!(query.as_mut()).is_pending());
        mem::forget(query);
        // With the query the lease is forgotten, too: others go on, and the pool can give it up.
        stage.one.resize(0, 4).expect("bounds");
        let report = stage.one.drain(Duration::ZERO).await;
        assert!(!report.cut.is_empty(), "{report:?}");
    }
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE datname = current_database() AND application_name <> 'watch'";
    stage.db.run(end).on_pool("watch").await.expect("an end of what sleeps");
    stage.db.close(Duration::ZERO).await;

    let quick = config(&dsn).settle_timeout(short);
    let stage = Stage::open_with(&runtime, quick, &dsn).await;
    for rows in [1, 200_000] {
        let lease = stage.one.checkout().await.expect("a session");
        let sql = format!("SELECT generate_series(1, {rows})");
        mem::forget(lease.query_stream(&sql, &[]).await.expect("rows"));
        drop(lease);
        stage.is_clean(1, "a forgotten stream").await;
        let lease = stage.one.checkout().await.expect("a session");
        mem::forget(
            lease
                .copy_out("COPY (SELECT generate_series(1, 200000)) TO STDOUT")
                .await
                .expect("a copy"),
        );
        drop(lease);
        stage.is_clean(1, "a forgotten copy out").await;
        let lease = stage.one.checkout().await.expect("a session");
        let mut copy = lease.copy_in("COPY marks FROM STDIN").await.expect("a copy");
        copy.send("1\n".into()).await.expect("data");
        mem::forget(copy);
        drop(lease);
        assert_eq!(stage.is_clean(1, "a forgotten copy in").await, 0);
    }
    assert!(stage.one.status().closes(CloseReason::SettleOverdue) > 0);
    stage.close().await;
}

#[test]
fn forgotten_futures_and_streams_cost_no_more_than_a_session() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(forgotten_futures(runtime, database(server))));
    }
}

#[test]
fn a_lease_can_be_dropped_outside_any_executor() {
    for server in SERVERS {
        on_each(|runtime| {
            Box::pin(async move {
                let stage = Stage::open(&runtime, &database(server)).await;
                let lease = stage.one.checkout().await.expect("a session");
                lease.batch("BEGIN; INSERT INTO marks VALUES (1)").await.expect("work");
                let mut query = Box::pin(async move { lease.query("SELECT pg_sleep(5)", &[]).await });
                assert!(futures::poll!(query.as_mut()).is_pending());
                let elsewhere = std::thread::scope(|scope| scope.spawn(move || drop(query)).join());
                elsewhere.expect("no panic");
                assert_eq!(stage.is_clean(1, "a drop on a bare thread").await, 0);
                // Never polled at all: nothing was ever asked for.
                drop(stage.one.checkout());
                drop(stage.db.run("INSERT INTO marks VALUES (1)").into_future());
                assert_eq!(stage.is_clean(1, "futures that were never polled").await, 0);
                let lease = at_once(stage.one.checkout()).expect("an idle session is there at once");
                drop(lease);
                stage.close().await;
            })
        });
    }
}
