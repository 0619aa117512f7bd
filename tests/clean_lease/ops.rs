//! Every public operation that awaits, small, so that it can be dropped wherever it awaits.
//!
//! Data for `polls` (real servers) and `wire_events` (scripted server): the same operations, the same SQL.

use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt};
use gdbpool::types::ToSql;
use gdbpool::{BoxFuture, ConnectionPool, Error, InteractionPool, Lease, ListenEvent};

/// The pool of one session, and the handle it belongs to.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) db: InteractionPool,
    pub(crate) one: ConnectionPool,
}

/// What becomes of the row with the operation's mark when the operation ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// It is committed; dropped early, it may be.
    Committed,
    /// It never is.
    Never,
    /// It may be: the operation runs out of time by itself.
    Perhaps,
}

pub(crate) type Doing<'a> = BoxFuture<'a, Result<(), Error>>;
pub(crate) type LeaseOp = for<'a> fn(&'a Lease, i64) -> Doing<'a>;
pub(crate) type PoolOp = for<'a> fn(&'a Site, i64) -> Doing<'a>;

pub(crate) const INSERT: &str = "INSERT INTO marks SELECT $1::int8 FROM pg_sleep(0.001)";
pub(crate) const RETURNING: &str = "INSERT INTO marks VALUES ($1) RETURNING mark";
pub(crate) const ROWS: &str = "SELECT n::int4 FROM generate_series(1, 30) AS n";
pub(crate) const READ_BATCH: &str = "SET LOCAL work_mem = '1MB'; SELECT 1";
pub(crate) const FUNCTION: &str = "SELECT leave_a_setting()";
pub(crate) const COPY_IN: &str = "COPY marks FROM STDIN";
pub(crate) const COPY_OUT: &str = "COPY (SELECT generate_series(1, 30)) TO STDOUT";
/// Only on real servers: the type is looked up in several round trips.
pub(crate) const LOOK_UP: &str = "SELECT mood FROM moods";

fn everything(mark: i64) -> String {
    format!(
        "SET work_mem = '1MB'; CREATE TEMP TABLE scratch (n int); LISTEN c; SELECT pg_advisory_lock(1); \
         DECLARE held CURSOR WITH HOLD FOR SELECT 1; PREPARE p AS SELECT 1; INSERT INTO marks VALUES ({mark})"
    )
}

/// Operations of a lease, which outlives them.
pub(crate) const OF_A_LEASE: &[(&str, Row, LeaseOp)] = &[
    ("query", Row::Committed, |lease, mark| {
        Box::pin(async move { lease.query(RETURNING, &[&mark]).await.map(drop) })
    }),
    ("query, rows", Row::Never, |lease, _| {
        Box::pin(async move { lease.query(ROWS, &[]).await.map(|rows| assert_eq!(rows.len(), 30)) })
    }),
    ("query_one", Row::Committed, |lease, mark| {
        Box::pin(async move { lease.query_one(RETURNING, &[&mark]).await.map(drop) })
    }),
    ("query_opt", Row::Committed, |lease, mark| {
        Box::pin(async move { lease.query_opt(RETURNING, &[&mark]).await.map(drop) })
    }),
    ("execute", Row::Committed, |lease, mark| {
        Box::pin(async move { lease.execute(INSERT, &[&mark]).await.map(drop) })
    }),
    ("batch", Row::Committed, |lease, mark| {
        Box::pin(async move { lease.batch(&everything(mark)).await })
    }),
    ("batch in a transaction left open", Row::Never, |lease, mark| {
        Box::pin(async move { lease.batch(&format!("BEGIN; {}", everything(mark))).await })
    }),
    ("a transaction", Row::Committed, |lease, mark| {
        Box::pin(async move {
            lease.batch("BEGIN").await?;
            lease.execute(INSERT, &[&mark]).await?;
            lease.batch("SAVEPOINT a; SET LOCAL work_mem = '2MB'").await?;
            lease.batch("COMMIT").await
        })
    }),
    ("a failed transaction", Row::Never, |lease, mark| {
        Box::pin(async move {
            lease.batch("BEGIN; SET work_mem = '1MB'").await?;
            lease.execute(INSERT, &[&mark]).await?;
            lease.batch("SELECT 1/0").await.expect_err("division by zero");
            lease.execute(INSERT, &[&mark]).await.expect_err("a failed transaction");
            Ok(())
        })
    }),
    ("query_stream, read", Row::Never, |lease, _| {
        Box::pin(async move {
            let rows = lease.query_stream(ROWS, &[]).await?.try_collect::<Vec<_>>().await?;
            assert_eq!(rows.len(), 30);
            Ok(())
        })
    }),
    ("query_stream, read in part", Row::Never, |lease, _| {
        Box::pin(async move {
            let mut rows = lease.query_stream(ROWS, &[]).await?;
            rows.try_next().await.map(drop)
        })
    }),
    ("query_stream, a write", Row::Committed, |lease, mark| {
        Box::pin(async move {
            lease
                .query_stream(RETURNING, &[&mark])
                .await?
                .try_collect::<Vec<_>>()
                .await
                .map(drop)
        })
    }),
    ("prepare", Row::Never, |lease, _| {
        Box::pin(async move { lease.prepare(ROWS).await })
    }),
    ("prepare and look up a type", Row::Never, |lease, _| {
        Box::pin(async move { lease.prepare(LOOK_UP).await })
    }),
    ("a function", Row::Never, |lease, _| {
        Box::pin(async move { lease.query(FUNCTION, &[]).await.map(drop) })
    }),
    ("copy_in", Row::Committed, |lease, mark| {
        Box::pin(async move {
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.send(format!("{mark}\n").into()).await?;
            assert_eq!(copy.finish().await?, 1);
            Ok(())
        })
    }),
    ("copy_in, closed as a sink", Row::Committed, |lease, mark| {
        Box::pin(async move {
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.feed(format!("{mark}\n").into()).await?;
            copy.flush().await?;
            copy.close().await
        })
    }),
    ("copy_out", Row::Never, |lease, _| {
        Box::pin(async move { lease.copy_out(COPY_OUT).await?.try_for_each(|_| async { Ok(()) }).await })
    }),
    ("several at once", Row::Committed, |lease, mark| {
        Box::pin(async move {
            let values: &[&(dyn ToSql + Sync)] = &[&mark];
            let (inserted, rows, prepared) = futures::join!(
                lease.execute(INSERT, values),
                lease.query(ROWS, &[]),
                lease.prepare("SELECT 1")
            );
            inserted.and(rows.map(drop)).and(prepared)
        })
    }),
];

/// Operations that take a session and give it back.
pub(crate) const OF_THE_POOL: &[(&str, Row, PoolOp)] = &[
    ("checkout", Row::Never, |site, _| {
        Box::pin(async move { site.one.checkout().await.map(drop) })
    }),
    ("checkout and use", Row::Committed, |site, mark| {
        Box::pin(async move { site.one.checkout().await?.batch(&everything(mark)).await })
    }),
    ("checkout_within", Row::Never, |site, _| {
        Box::pin(async move { site.one.checkout_within(Duration::from_secs(60)).await.map(drop) })
    }),
    ("listen", Row::Never, |site, _| {
        Box::pin(async move {
            let mut subscription = site.db.listen_on("d").subscribe().await?;
            assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
            subscription.cancel();
            subscription.closed().await;
            Ok(())
        })
    }),
    ("notify", Row::Never, |site, _| {
        Box::pin(async move { site.db.notify("d", "news").await })
    }),
    ("run, rows", Row::Never, |site, _| {
        Box::pin(async move { site.db.run(ROWS).await.map(drop) })
    }),
    ("run, one", Row::Committed, |site, mark| {
        Box::pin(async move { site.db.run(RETURNING).bind(mark).one().await.map(drop) })
    }),
    ("run, opt", Row::Committed, |site, mark| {
        Box::pin(async move { site.db.run(RETURNING).args(&[&mark]).opt().await.map(drop) })
    }),
    ("run, scalar", Row::Committed, |site, mark| {
        Box::pin(async move {
            let returned = site.db.run(RETURNING).bind(mark).scalar::<i64>().await?;
            assert_eq!(returned, mark);
            Ok(())
        })
    }),
    ("run, execute", Row::Committed, |site, mark| {
        Box::pin(async move { site.db.run(INSERT).bind(mark).execute().await.map(drop) })
    }),
    ("run, stream", Row::Never, |site, _| {
        Box::pin(async move {
            let rows = site.db.run(ROWS).stream().await?.try_collect::<Vec<_>>().await?;
            assert_eq!(rows.len(), 30);
            Ok(())
        })
    }),
    ("run, stream of a write", Row::Committed, |site, mark| {
        Box::pin(async move {
            let mut rows = site.db.run(RETURNING).bind(mark).stream().await?;
            while let Some(row) = rows.next().await {
                row?;
            }
            Ok(())
        })
    }),
    ("run, read", Row::Never, |site, _| {
        Box::pin(async move { site.db.run(ROWS).read().await.map(drop) })
    }),
    ("run, read and then write", Row::Committed, |site, mark| {
        Box::pin(async move {
            site.db.run(ROWS).read().await?;
            site.db.run(INSERT).bind(mark).execute().await.map(drop)
        })
    }),
    ("run, read as a stream", Row::Never, |site, _| {
        Box::pin(async move {
            site.db
                .run(ROWS)
                .read()
                .stream()
                .await?
                .try_collect::<Vec<_>>()
                .await
                .map(drop)
        })
    }),
    ("run, a function", Row::Never, |site, _| {
        Box::pin(async move { site.db.run(FUNCTION).scalar::<i64>().await.map(drop) })
    }),
    ("run, typed", Row::Committed, |site, mark| {
        Box::pin(async move {
            let returned = site.db.run(RETURNING).bind(mark).typed::<(i64,)>().await?;
            assert_eq!(returned, [(mark,)]);
            Ok(())
        })
    }),
    ("run, bound by name", Row::Committed, |site, mark| {
        Box::pin(async move {
            let named = RETURNING.replace("$1", ":mark");
            site.db.run(named).bind_named("mark", mark).one().await.map(drop)
        })
    }),
    ("run, batch", Row::Committed, |site, mark| {
        Box::pin(async move { site.db.run(everything(mark)).batch().await.map(drop) })
    }),
    ("run, batch that leaves a transaction open", Row::Never, |site, mark| {
        Box::pin(async move {
            let left_open = site.db.run(format!("BEGIN; {}", everything(mark))).batch().await;
            let error = left_open.expect_err("it is left open");
            assert!(matches!(error.kind(), gdbpool::ErrorKind::LeftOpen), "{error:?}");
            Ok(())
        })
    }),
    ("run, read as a batch", Row::Never, |site, _| {
        Box::pin(async move {
            let results = site.db.run(READ_BATCH).read().batch().await?;
            assert_eq!(results.len(), 2);
            Ok(())
        })
    }),
    ("run, dry", Row::Never, |site, mark| {
        Box::pin(async move {
            let dry = site.db.run(RETURNING).bind(mark).dry_run().await?;
            assert!(dry.text().contains(&format!("'{mark}'::pg_catalog.int8")), "{dry}");
            Ok(())
        })
    }),
    // A dropped handle lets the call go on.
    ("run, spawned", Row::Committed, |site, mark| {
        Box::pin(async move {
            let handle = site.db.run(RETURNING).bind(mark).scalar::<i64>().spawn();
            assert_eq!(handle.await?, mark);
            Ok(())
        })
    }),
    ("run, under a deadline", Row::Perhaps, |site, mark| {
        Box::pin(async move {
            // A millisecond is what the statement itself takes.
            let run = site
                .db
                .run(INSERT)
                .bind(mark)
                .timeout(Duration::from_millis(2))
                .execute()
                .await;
            drop(run);
            Ok(())
        })
    }),
    ("run, cancelled", Row::Perhaps, |site, mark| {
        Box::pin(async move {
            let cancel = gdbpool::Cancel::new();
            let run = site.db.run(INSERT).bind(mark).cancel_on(&cancel).execute();
            // In the midst of whatever it does at its second poll.
            let canceller = async {
                futures::pending!();
                cancel.cancel();
            };
            let (run, ()) = futures::join!(run.into_future(), canceller);
            drop(run);
            Ok(())
        })
    }),
];
