//! Operations that run transactions: functions, pinned transactions and cursors.
//!
//! Data for `polls` and `wire_events`, as in `ops`.

use futures::{SinkExt, TryStreamExt};
use gdbpool::{Error, Partial};

use super::ops::{COPY_IN, COPY_OUT, INSERT, PoolOp, RETURNING, ROWS, Row};

/// The commit as it is sent.
pub(crate) const COMMIT_ID: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()";

/// Operations that take a session, run a transaction on it, and give it back.
pub(crate) const OF_TRANSACTIONS: &[(&str, Row, PoolOp)] = &[
    ("transact", Row::Committed, |site, mark| {
        Box::pin(async move {
            let insert = site.db.transact(|tx| async move { tx.execute(INSERT, &[&mark]).await });
            assert_eq!(insert.await?, 1);
            Ok(())
        })
    }),
    ("transact, several statements", Row::Committed, |site, mark| {
        Box::pin(async move {
            let work = site.db.transact(|tx| async move {
                tx.query(ROWS, &[]).await?;
                tx.batch("SET LOCAL work_mem = '1MB'").await?;
                tx.query_one(RETURNING, &[&mark]).await.map(drop)
            });
            work.await
        })
    }),
    ("transact, its own decision", Row::Never, |site, mark| {
        Box::pin(async move {
            let work = site.db.transact(|tx| async move {
                tx.execute(INSERT, &[&mark]).await?;
                Err::<(), _>(Error::user("no"))
            });
            work.await.expect_err("its own decision");
            Ok(())
        })
    }),
    ("transact, read", Row::Never, |site, _| {
        Box::pin(async move {
            let work = site.db.transact(|tx| async move { tx.query(ROWS, &[]).await });
            work.read().await.map(drop)
        })
    }),
    ("transact, a savepoint", Row::Committed, |site, mark| {
        Box::pin(async move {
            let work = site.db.transact(|tx| async move {
                let taken_back = tx.savepoint(|tx| async move {
                    tx.query(ROWS, &[]).await?;
                    Err::<(), _>(Error::user("no"))
                });
                taken_back.await.expect_err("its own decision");
                tx.savepoint(|tx| async move { tx.execute(INSERT, &[&mark]).await })
                    .await
            });
            work.await.map(drop)
        })
    }),
    ("transact, spawned", Row::Committed, |site, mark| {
        Box::pin(async move {
            let work = site
                .db
                .transact(move |tx| async move { tx.execute(INSERT, &[&mark]).await })
                .spawn();
            work.await.map(drop)
        })
    }),
    ("transact, copies and streams", Row::Committed, |site, mark| {
        Box::pin(async move {
            let work = site.db.transact(|tx| async move {
                let rows = tx.query_stream(ROWS, &[]).await?.try_collect::<Vec<_>>().await?;
                assert_eq!(rows.len(), 30);
                let mut copy = tx.copy_in(COPY_IN).await?;
                copy.send(format!("{mark}\n").into()).await?;
                assert_eq!(copy.finish().await?, 1);
                tx.copy_out(COPY_OUT).await?.try_for_each(|_| async { Ok(()) }).await
            });
            work.await
        })
    }),
    ("partial, within and commit", Row::Committed, |site, mark| {
        Box::pin(async move {
            let Partial { mut transaction, .. } = site.db.run(ROWS).partial().await?;
            site.db
                .run(INSERT)
                .bind(mark)
                .execute()
                .within(&mut transaction)
                .await?;
            let read = site.db.transact(|tx| async move { tx.query(ROWS, &[]).await });
            read.within(&mut transaction).await?;
            transaction.commit().await.map(drop)
        })
    }),
    ("partial, rolled back", Row::Never, |site, mark| {
        Box::pin(async move {
            let open = site.db.run(INSERT).bind(mark).execute().partial().await?;
            open.transaction.rollback().await
        })
    }),
    ("partial, dropped", Row::Never, |site, mark| {
        Box::pin(async move {
            let open = site.db.transact(|tx| async move { tx.execute(INSERT, &[&mark]).await });
            open.partial().await.map(drop)
        })
    }),
    ("partial, a cursor", Row::Never, |site, _| {
        Box::pin(async move {
            let mut open = site.db.run("SELECT 1").partial().await?.transaction;
            let mut cursor = open.cursor(ROWS, &[], 31).await?;
            assert_eq!(cursor.next().await?.map_or(0, |rows| rows.len()), 30);
            cursor.close().await?;
            open.commit().await.map(drop)
        })
    }),
];
