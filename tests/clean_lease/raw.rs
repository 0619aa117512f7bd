//! The raw client, and COPY by every door: what is done behind the library's back is cleaned up all the same.
//!
//! On real servers. Streams, sinks and statements of the raw client can outlive the lease.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt};
use gdbpool::{BoxFuture, CloseReason, Error, Lease, Runtime};

use super::runtimes::on_each;
use super::stage::{SERVERS, Stage, config, database};

const COPY_IN: &str = "COPY marks FROM STDIN";
const COPY_OUT: &str = "COPY (SELECT generate_series(1, 100000)) TO STDOUT";

async fn kept(runtime: Arc<dyn Runtime>, dsn: String) {
    let quick = config(&dsn).settle_timeout(Duration::from_millis(500));
    let stage = Stage::open_with(&runtime, quick, &dsn).await;
    let sessions = stage.one.status().connects;

    // Ended while the session settles: it is given on.
    let lease = stage.one.checkout().await.expect("a session");
    let mut sink = Box::pin(lease.raw().copy_in::<_, Bytes>(COPY_IN).await.expect("a copy"));
    sink.send("1\n1\n".into()).await.expect("data");
    drop(lease);
    drop(sink);
    assert_eq!(stage.is_clean(1, "a raw COPY sink dropped late").await, 0);
    assert_eq!(stage.one.status().connects, sessions + 1, "the session was kept");

    // Kept for good: the session is closed, and what is kept is of no use any more.
    let lease = stage.one.checkout().await.expect("a session");
    let mut sink = Box::pin(lease.raw().copy_in::<_, Bytes>(COPY_IN).await.expect("a copy"));
    sink.send("1\n1\n".into()).await.expect("data");
    drop(lease);
    assert_eq!(stage.is_clean(1, "a raw COPY sink kept").await, 0);
    let late = async {
        sink.send("1\n".into()).await?;
        sink.as_mut().finish().await
    };
    late.await.expect_err("the copy is over");
    assert_eq!(stage.is_clean(1, "a raw COPY sink used late").await, 0);

    for rows in [3, 200_000] {
        let lease = stage.one.checkout().await.expect("a session");
        let sql = format!("SELECT generate_series(1, {rows})::text");
        let none: [&str; 0] = [];
        let kept = lease.raw().query_raw(&sql, none).await.expect("rows");
        drop(lease);
        stage.is_clean(0, "a raw stream of rows kept unread").await;
        let late = kept.try_collect::<Vec<_>>().await;
        assert!(
            rows == 3 || late.is_err(),
            "{} rows came of a session that was closed",
            late.map_or(0, |r| r.len())
        );
        stage.is_clean(0, "a raw stream of rows read late").await;
    }
    let lease = stage.one.checkout().await.expect("a session");
    let mut kept = Box::pin(
        lease
            .raw()
            .simple_query_raw("BEGIN; SELECT generate_series(1, 200000)")
            .await
            .expect("rows"),
    );
    kept.next().await.expect("an answer").expect("an answer");
    drop(lease);
    stage.is_clean(0, "a raw simple query kept").await;
    drop(kept);
    assert!(stage.one.status().closes(CloseReason::SettleOverdue) > 0);
    stage.close().await;
}

#[test]
fn what_is_kept_of_the_raw_client_does_not_reach_the_next_borrower() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(kept(runtime, database(server))));
    }
}

async fn raw_requests(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    // Sent and dropped at once, unseen by the library.
    for sql in [
        "BEGIN; INSERT INTO marks VALUES (1)",
        "SET work_mem = '1MB'",
        "SELECT pg_sleep(0.05)",
        "LISTEN c",
    ] {
        for polls in 0..2 {
            let lease = stage.one.checkout().await.expect("a session");
            let mut request = Box::pin(lease.raw().batch_execute(sql));
            for _ in 0..polls {
                // On other threads than this one it may even be answered meanwhile.
                let _ = futures::poll!(request.as_mut());
            }
            drop(request);
            drop(lease);
            assert_eq!(stage.is_clean(1, sql).await, 0);
        }
    }
    // A statement that outlives its lease is closed in the midst of the next borrower's transaction.
    let lease = stage.one.checkout().await.expect("a session");
    let kept = lease.raw().prepare("SELECT 1 FROM marks").await.expect("a statement");
    drop(lease);
    let lease = stage.one.checkout().await.expect("a session");
    lease.batch("BEGIN; INSERT INTO marks VALUES (2)").await.expect("work");
    drop(kept);
    lease.query("SELECT 1", &[]).await.expect("work");
    lease.batch("COMMIT").await.expect("work");
    drop(lease);
    assert_eq!(stage.is_clean(2, "a raw statement dropped late").await, 1);
    // A read before: the raw client works in the template's mode.
    stage.db.run("SELECT 1").read().await.expect("a read");
    let lease = stage.one.checkout().await.expect("a session");
    lease
        .raw()
        .batch_execute("INSERT INTO marks VALUES (3)")
        .await
        .expect("a write");
    drop(lease);
    assert_eq!(stage.is_clean(3, "a raw write after a read").await, 1);
    assert_eq!(stage.one.status().connects, 2, "nothing of this costs a session");
    stage.close().await;
}

#[test]
fn raw_requests_are_drained() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(raw_requests(runtime, database(server))));
    }
}

type Copying = for<'a> fn(&'a Lease) -> BoxFuture<'a, Result<(), Error>>;

/// Copies that end early or go wrong; none of them leaves a row.
const COPIES: &[(&str, Copying)] = &[
    ("begun", |lease| {
        Box::pin(async move { lease.copy_in(COPY_IN).await.map(drop) })
    }),
    ("fed", |lease| {
        Box::pin(async move {
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.send("1\n1\n".into()).await
        })
    }),
    ("fed until it had to wait", |lease| {
        Box::pin(async move {
            let mut copy = lease.copy_in(COPY_IN).await?;
            let chunk = Bytes::from("1\n".repeat(50_000));
            for _ in 0..10 {
                copy.send(chunk.clone()).await?;
            }
            Ok(())
        })
    }),
    ("bad data", |lease| {
        Box::pin(async move {
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.send("1\nnot a number\n".into()).await?;
            copy.finish().await.expect_err("bad data");
            Ok(())
        })
    }),
    ("bad data in a transaction", |lease| {
        Box::pin(async move {
            lease.batch("BEGIN; SET work_mem = '1MB'").await?;
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.send("1\nnot a number\n".into()).await?;
            copy.close().await.expect_err("bad data");
            Ok(())
        })
    }),
    ("finished in a transaction", |lease| {
        Box::pin(async move {
            lease.batch("BEGIN").await?;
            let mut copy = lease.copy_in(COPY_IN).await?;
            copy.send("1\n".into()).await?;
            assert_eq!(copy.finish().await?, 1);
            Ok(())
        })
    }),
    ("out, begun", |lease| {
        Box::pin(async move { lease.copy_out(COPY_OUT).await.map(drop) })
    }),
    ("out, half read", |lease| {
        Box::pin(async move {
            let mut copy = lease.copy_out(COPY_OUT).await?;
            copy.next().await.expect("a chunk").map(drop)
        })
    }),
    ("out, read", |lease| {
        Box::pin(async move { lease.copy_out(COPY_OUT).await?.try_for_each(|_| async { Ok(()) }).await })
    }),
    ("in as a query", |lease| {
        Box::pin(async move { fails(lease.query(COPY_IN, &[]).await) })
    }),
    ("in as a statement", |lease| {
        Box::pin(async move { fails(lease.execute(COPY_IN, &[]).await) })
    }),
    ("in as a stream", |lease| {
        Box::pin(async move {
            match lease.query_stream(COPY_IN, &[]).await {
                Ok(rows) => fails(rows.try_collect::<Vec<_>>().await),
                Err(error) => fails::<()>(Err(error)),
            }
        })
    }),
    ("in as a batch", |lease| {
        Box::pin(async move { fails(lease.batch(COPY_IN).await) })
    }),
    ("in behind a BEGIN", |lease| {
        Box::pin(async move { fails(lease.batch(&format!("BEGIN; {COPY_IN}; COMMIT")).await) })
    }),
    ("out as a query", |lease| {
        Box::pin(async move { fails(lease.query(COPY_OUT, &[]).await) })
    }),
    ("out as a batch", |lease| {
        Box::pin(async move { fails(lease.batch(COPY_OUT).await) })
    }),
    ("in as out", |lease| {
        Box::pin(async move { fails(lease.copy_out(COPY_IN).await) })
    }),
    ("out as in", |lease| {
        Box::pin(async move { fails(lease.copy_in(COPY_OUT).await) })
    }),
    ("no copy as in", |lease| {
        Box::pin(async move { fails(lease.copy_in("INSERT INTO marks VALUES (7)").await) })
    }),
    ("no copy as out", |lease| {
        Box::pin(async move { fails(lease.copy_out("SELECT 1").await) })
    }),
    ("into nowhere", |lease| {
        Box::pin(async move { fails(lease.copy_in("COPY nowhere FROM STDIN").await) })
    }),
    ("refused", |lease| {
        Box::pin(async move {
            lease.batch("BEGIN READ ONLY").await?;
            fails(lease.copy_in(COPY_IN).await)
        })
    }),
];

fn fails<T>(result: Result<T, Error>) -> Result<(), Error> {
    assert!(result.is_err(), "it must not succeed");
    Ok(())
}

async fn copies(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    for (name, copying) in COPIES {
        let lease = stage.one.checkout().await.expect("a session");
        copying(&lease)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        drop(lease);
        assert_eq!(stage.is_clean(1, &format!("a copy, {name}")).await, 0);
    }
    for sql in [COPY_IN, COPY_OUT] {
        fails(stage.db.run(sql).await).expect("a COPY needs a lease");
        assert_eq!(stage.is_clean(1, &format!("{sql} as an interaction")).await, 0);
    }
    stage.close().await;
}

#[test]
fn copies_that_end_early_or_go_wrong_leave_nothing() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(copies(runtime, database(server))));
    }
}
