//! Chapters on transactions: functions that are one, and transactions that stay open between calls.
//!
//! After `options`; the same table.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gdbpool::{Error, ErrorKind, Isolation, Outcome, Partial, Transaction};

use crate::guide::{Guide, HERE, Place};
use crate::{BoxError, Tour};

/// A function is one transaction: `Ok` commits, all else rolls back, and a conflict runs it again.
pub(crate) async fn functions(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("A function is one transaction");
    let (db, table) = (&tour.db, &tour.table);
    let insert = &*format!("INSERT INTO {table} (id, name) VALUES ($1, $2)");

    let here = format!("SELECT {HERE}");
    let row = db
        .run(|tx: Transaction| {
            let here = here.clone();
            async move {
                tx.execute(insert, &[&101i32, &"function"]).await?;
                tx.query_one(&here, &[]).await
            }
        })
        .await?;
    let place = guide.place(&row)?;
    guide.step(
        "run(|tx: Transaction| ...)",
        &place,
        "committed",
        "two statements",
        true,
    );

    let failed = db
        .transact(|tx| async move {
            tx.execute(insert, &[&102i32, &"never"]).await?;
            Err::<(), _>(Error::user("not today"))
        })
        .await;
    guide.refusal("its own Err", failed, |error| {
        matches!(error.kind(), ErrorKind::User) && error.outcome() == Outcome::RolledBack
    });

    let kept = db
        .transact(|tx| async move {
            let twice = tx.savepoint(|tx| async move { tx.execute(insert, &[&101i32, &"twice"]).await });
            let taken_back = twice.await.is_err();
            tx.execute(insert, &[&103i32, &"savepoint"]).await?;
            Ok(taken_back)
        })
        .await?;
    guide.step(
        "savepoint()",
        &place,
        "committed",
        "what failed in it was taken back",
        kept,
    );

    let runs = &AtomicU32::new(0);
    let again = db.transact(|tx| async move {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        tx.execute(insert, &[&(103 + run as i32), &"again"]).await?;
        if run == 1 {
            // What the server says to one of two that cannot be put in an order.
            tx.batch("DO $$ BEGIN RAISE EXCEPTION 'a conflict' USING ERRCODE = '40001'; END $$")
                .await?;
        }
        Ok(run)
    });
    let run = again.isolation(Isolation::Serializable).await?;
    guide.step("a conflict", &place, "committed", &format!("on run {run}"), run == 2);

    let silent = db.transact(|tx| async move {
        // A failure that nobody looks at is still one: PostgreSQL can only roll back.
        drop(tx.execute(insert, &[&101i32, &"taken"]).await);
        Ok(())
    });
    guide.refusal("a failure kept quiet", silent.await, |error| {
        matches!(error.kind(), ErrorKind::TransactionFailed) && error.outcome() == Outcome::RolledBack
    });
    Ok(())
}

/// A pinned transaction keeps its connection between calls, for a while.
pub(crate) async fn pinned(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("A transaction that stays open between calls is pinned to its connection");
    let (db, table) = (&tour.db, &tour.table);
    let lock = format!("SELECT id, {HERE} FROM {table} WHERE id = 101 FOR UPDATE");
    let Partial {
        result: row,
        mut transaction,
    } = db.run(&lock).one().partial().await?;
    let place = guide.place(&row)?;
    guide.step(
        "partial()",
        &place,
        "open",
        "a row is locked",
        place.pid == Some(transaction.backend_pid()),
    );

    let update = format!("UPDATE {table} SET name = 'pinned' WHERE id = $1 RETURNING {HERE}");
    let row = db.run(&update).bind(101i32).one().within(&mut transaction).await?;
    let there = guide.place(&row)?;
    guide.step(
        "within(&mut transaction)",
        &there,
        "open",
        "the same connection",
        there == place,
    );

    let mut cursor = transaction.cursor(&format!("SELECT id FROM {table}"), &[], 2).await?;
    let mut batches = 0;
    while let Some(rows) = cursor.next().await? {
        batches += usize::from(!rows.is_empty());
    }
    guide.step(
        "cursor(sql, &[], 2)",
        &place,
        "open",
        &format!("{batches} batches"),
        batches > 1,
    );
    let receipt = transaction.commit().await?;
    let written = receipt.transaction_id().is_some();
    guide.step("commit()", &place, "committed", "with a receipt", written);

    let short = db.run(&lock).one().partial().lease_time(Duration::from_millis(50));
    let mut forgotten = short.await?.transaction;
    tour.pause(Duration::from_millis(150)).await;
    let late = db.run("SELECT 1").within(&mut forgotten).await;
    guide.refusal("its lease time is over", late, |error| {
        matches!(error.kind(), ErrorKind::PinExpired { .. })
    });
    let free = db
        .run(format!("SELECT id FROM {table} WHERE id = 101 FOR UPDATE NOWAIT"))
        .await?;
    guide.step(
        "the row",
        &Place::on_pool("primary"),
        "committed",
        "is not locked any more",
        free.len() == 1,
    );
    Ok(())
}
