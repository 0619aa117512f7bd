//! Nothing of ours is seen by another client on the same server connection, after any call, ended or dropped anywhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{SinkExt, StreamExt};
use gdbpool::{BoxFuture, Error, InteractionPool, Transaction};

use crate::stage::{Front, World, close, on_each_server};

/// Each call is dropped after each of its first polls, up to so many.
const POLLS: u32 = 7;

const SET_UP: &str = "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (n int, m mood); \
                      INSERT INTO t SELECT g, 'sad' FROM generate_series(1, 300) g";

/// What another client sees of its server connection, in one message: all of it has to be nothing.
const SEEN: &str = "SELECT (SELECT count(*) FROM pg_prepared_statements), \
    (SELECT count(*) FROM pg_cursors WHERE name <> ''), \
    (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'), \
    (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), \
    (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')), \
    current_setting('transaction_read_only'), \
    (SELECT xact_start = now() AND now() = statement_timestamp() FROM pg_stat_activity WHERE pid = pg_backend_pid())";

const NOTHING: &str = "0|0|0|0|0|0|off|t";

type Call = fn(InteractionPool) -> BoxFuture<'static, Result<(), Error>>;

const CALLS: [(&str, Call); 20] = [
    ("write", |db| {
        Box::pin(async move {
            drop(db.run("UPDATE t SET m = 'happy' WHERE n = $1").bind(1).await?);
            Ok(())
        })
    }),
    ("read", |db| {
        Box::pin(async move {
            drop(db.run("SELECT * FROM t WHERE n < $1").bind(9).read().await?);
            Ok(())
        })
    }),
    ("scalar", |db| {
        Box::pin(async move { db.run("SELECT count(*) FROM t").scalar::<i64>().await.map(drop) })
    }),
    ("refused", |db| {
        Box::pin(async move { db.run("SELECT 1 / n FROM t WHERE n = $1 - n").bind(2).await.map(drop) })
    }),
    ("failing", |db| {
        Box::pin(async move { db.run("SELECT 1 / (n - 7) FROM t").read().await.map(drop) })
    }),
    ("no SQL", |db| {
        Box::pin(async move { db.run("SELEC 1").await.map(drop) })
    }),
    ("stream", |db| {
        Box::pin(async move { some(db.run("SELECT * FROM t").stream().await?).await })
    }),
    ("read stream", |db| {
        Box::pin(async move { some(db.run("SELECT * FROM t").read().stream().await?).await })
    }),
    ("batch", |db| {
        Box::pin(async move { db.run("SELECT 1; UPDATE t SET n = n").batch().await.map(drop) })
    }),
    ("read batch", |db| {
        Box::pin(async move { db.run("SELECT 1; SELECT 2").read().batch().await.map(drop) })
    }),
    ("left open", |db| {
        Box::pin(async move { db.run("BEGIN; SELECT 1").batch().await.map(drop) })
    }),
    ("dry run", |db| {
        Box::pin(async move { db.run("SELECT $1::int4").bind(None::<i32>).dry_run().await.map(drop) })
    }),
    ("notify", |db| Box::pin(async move { db.notify("a", "b").await })),
    ("function", |db| Box::pin(async move { db.transact(work).await })),
    ("read function", |db| {
        Box::pin(async move { db.transact(look).read().await })
    }),
    ("failing function", |db| {
        Box::pin(async move { db.transact(fail).await })
    }),
    ("partial", |db| {
        Box::pin(async move {
            let mut pinned = db
                .run("SELECT n FROM t WHERE n = 1 FOR UPDATE")
                .one()
                .partial()
                .await?
                .transaction;
            db.run("UPDATE t SET m = 'sad' WHERE n = 1")
                .within(&mut pinned)
                .execute()
                .await?;
            let mut cursor = pinned.cursor("SELECT * FROM t", &[], 100).await?;
            drop(cursor.next().await?);
            pinned.commit().await.map(drop)
        })
    }),
    ("lease", |db| {
        Box::pin(async move {
            let lease = db.pool("main")?.checkout().await?;
            lease.query("SELECT * FROM t WHERE m = 'sad' AND n < $1", &[&5]).await?;
            lease.batch("BEGIN; SET LOCAL work_mem = '1MB'").await?;
            lease.execute("UPDATE t SET n = n WHERE n = $1", &[&1]).await.map(drop)
        })
    }),
    ("copy", |db| {
        Box::pin(async move {
            let lease = db.pool("main")?.checkout().await?;
            let mut copy = Box::pin(lease.copy_in("COPY t FROM STDIN").await?);
            copy.send(bytes::Bytes::from_static(b"1000\tsad\n")).await?;
            Pin::into_inner(copy).finish().await?;
            let mut out = lease.copy_out("COPY t TO STDOUT").await?;
            while out.next().await.transpose()?.is_some() {}
            Ok(())
        })
    }),
    ("raw", |db| {
        Box::pin(async move {
            let lease = db.pool("main")?.checkout().await?;
            let rows = lease.raw().query("SELECT m FROM t WHERE n < $1", &[&5]).await;
            rows.map(drop).map_err(Error::user)
        })
    }),
];

async fn some(mut rows: gdbpool::RowStream) -> Result<(), Error> {
    for _ in 0..3 {
        rows.next().await.transpose()?;
    }
    Ok(())
}

async fn work(tx: Transaction) -> Result<(), Error> {
    tx.execute("UPDATE t SET m = 'sad' WHERE n = $1", &[&2]).await?;
    let taken_back = tx
        .savepoint(|tx| async move { tx.execute("SELECT 1 / 0", &[]).await })
        .await;
    assert!(taken_back.is_err());
    tx.query("SELECT m FROM t WHERE n = $1", &[&2]).await.map(drop)
}

async fn look(tx: Transaction) -> Result<(), Error> {
    tx.query("SELECT m FROM t WHERE n = $1", &[&2]).await.map(drop)
}

async fn fail(tx: Transaction) -> Result<(), Error> {
    tx.execute("UPDATE t SET m = 'sad' WHERE n = $1", &[&2]).await?;
    tx.execute("UPDATE t SET n = 1 / 0", &[]).await.map(drop)
}

/// Polls a future so many times; tells whether it was ready by then.
struct UpTo(BoxFuture<'static, ()>, u32);

impl Future for UpTo {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.1 == 0 {
            return Poll::Ready(false);
        }
        self.1 -= 1;
        match self.0.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.1 == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[test]
fn no_other_client_sees_anything_of_ours() {
    on_each_server(Front::One, SET_UP, |world| async move {
        let db = world.open(world.config().transaction_pooler()).await;
        // What another client left behind is in nobody's way.
        world.other("PREPARE s0 AS SELECT 1");
        world.other("DEALLOCATE s0");
        for (name, call) in CALLS {
            for polls in (1..=POLLS).chain([u32::MAX]) {
                let running = db.clone();
                let dropped = UpTo(Box::pin(async move { drop(call(running).await) }), polls).await;
                world.at_rest(&db).await;
                let seen = world.other(SEEN);
                assert_eq!(seen, NOTHING, "{name}, dropped after {polls} polls ({dropped})");
            }
        }
        close(&db).await;
    });
}

#[test]
fn names_that_others_left_on_a_server_connection_are_in_nobodys_way() {
    on_each_server(Front::One, SET_UP, |world| async move {
        // As tokio-postgres names its own, in whatever process.
        let prepare: String = (0..2_000).map(|n| format!("PREPARE s{n} AS SELECT 1;")).collect();
        world.other(&prepare);
        assert_eq!(world.other("SELECT count(*) FROM pg_prepared_statements"), "2000");
        let (one, two) = (world.config().transaction_pooler(), world.config().transaction_pooler());
        let pools = [world.open(one).await, world.open(two).await];
        for _ in 0..3 {
            for db in &pools {
                let moods: Vec<gdbpool::Row> = db.run("SELECT m FROM t WHERE n < $1").bind(4).await.expect("rows");
                assert_eq!(moods.len(), 3);
                db.transact(work).await.expect("a function");
            }
        }
        assert_eq!(world.other("SELECT count(*) FROM pg_prepared_statements"), "2000");
        for db in &pools {
            close(db).await;
        }
    });
}

/// Behind three server connections, with more clients than that at once.
#[test]
fn sessions_and_server_connections_mix_freely() {
    on_each_server(Front::Three, SET_UP, |world: World| async move {
        let db = world.open(world.config().transaction_pooler()).await;
        let calls = (0..60).map(|n: i32| {
            let db = db.clone();
            async move {
                let read = db.run("SELECT n, m::text FROM t WHERE n = $1").bind(n + 1).read();
                let found = read.typed::<(i32, String)>().await.expect("a row");
                assert_eq!(found[0].0, n + 1);
                let sum = db.transact(move |tx| async move {
                    let rows = tx
                        .query("SELECT n, m FROM t WHERE n = $1 OR n = $2", &[&n, &(n + 1)])
                        .await?;
                    Ok(rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>())
                });
                assert_eq!(sum.await.expect("a sum"), if n == 0 { 1 } else { 2 * n + 1 });
            }
        });
        futures::future::join_all(calls).await;
        world.at_rest(&db).await;
        let left = Arc::new(world.other("SELECT count(*) FROM pg_prepared_statements"));
        assert_eq!(*left, "0");
        close(&db).await;
    });
}
