//! Chapters on leases: whatever a borrower leaves behind, the next one finds a clean session; COPY in and out.
//!
//! After the table is there. The pool `narrow` has one session, so that the next borrower gets the very same one.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};

use crate::guide::{Guide, Place};
use crate::{BoxError, Tour};

/// What the session of whoever asks looks like.
const LEFTOVERS: &str = "SELECT to_regclass('pg_temp.scratch') IS NOT NULL AS temp_table, \
    (SELECT count(*) FROM pg_listening_channels()) AS channels, \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks, \
    current_setting('work_mem') AS work_mem, pg_current_xact_id_if_assigned() IS NOT NULL AS in_transaction";

/// A transaction, a temporary table, a LISTEN, a lock and a setting, dropped without a word.
pub(crate) async fn leftovers(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("A lease is always clean: what one borrower leaves behind, the next one never sees");
    let pool = tour.db.pool("narrow")?;
    let lease = pool.checkout().await?;
    let template = leftovers_on(&lease).await?;
    lease
        .batch(
            "SET work_mem = '7MB'; CREATE TEMP TABLE scratch (n int); LISTEN tour; SELECT pg_try_advisory_lock(4711)",
        )
        .await?;
    lease.batch("BEGIN").await?;
    let lost = format!("UPDATE {} SET name = 'lost' WHERE id = $1", tour.table);
    lease.execute(&lost, &[&1i32]).await?;
    let left = leftovers_on(&lease).await?;
    let first = Place::of_lease("narrow", &lease);
    guide.step("lease 1, then dropped", &first, "open", &left, left != template);
    drop(lease);

    let lease = pool.checkout().await?;
    let found = leftovers_on(&lease).await?;
    let second = Place::of_lease("narrow", &lease);
    let expected = found == template && second.pid == first.pid;
    guide.step("lease 2, the same session", &second, "clean", &found, expected);
    let select = format!("SELECT name FROM {} WHERE id = $1", tour.table);
    let row = lease.query_one(&select, &[&1i32]).await?;
    let name: &str = row.try_get("name")?;
    guide.step(
        "the open transaction's update",
        &second,
        "rolled back",
        name,
        name != "lost",
    );
    Ok(())
}

async fn leftovers_on(lease: &gdbpool::Lease) -> Result<String, BoxError> {
    let row = lease.query_one(LEFTOVERS, &[]).await?;
    let (temp_table, in_transaction): (bool, bool) = (row.try_get("temp_table")?, row.try_get("in_transaction")?);
    let (channels, locks): (i64, i64) = (row.try_get("channels")?, row.try_get("locks")?);
    let work_mem: &str = row.try_get("work_mem")?;
    let yes_or_no = |flag| if flag { "yes" } else { "no" };
    Ok(format!(
        "transaction {}, temp table {}, channels {channels}, locks {locks}, work_mem {work_mem}",
        yes_or_no(in_transaction),
        yes_or_no(temp_table)
    ))
}

/// Bulk data in both directions.
pub(crate) async fn copy(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("COPY in and out, on a lease");
    let lease = tour.db.pool("primary")?.checkout().await?;
    let place = Place::of_lease("primary", &lease);

    let mut data = lease
        .copy_in(&format!("COPY {} (id, name) FROM STDIN", tour.table))
        .await?;
    for thousand in 1..=10 {
        let lines: String = (0..1000)
            .map(|n| format!("{}\tcopied {n}\n", thousand * 1000 + n))
            .collect();
        data.send(Bytes::from(lines)).await?;
    }
    let rows = data.finish().await?;
    guide.step(
        "copy_in(), finish()",
        &place,
        "committed",
        &format!("{rows} rows"),
        rows == 10_000,
    );

    let query = format!(
        "COPY (SELECT id, name FROM {} WHERE id >= 1000) TO STDOUT WITH (FORMAT csv)",
        tour.table
    );
    let text: BytesMut = lease.copy_out(&query).await?.try_collect().await?;
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    guide.step(
        "copy_out()",
        &place,
        "answered",
        &format!("{lines} lines, {} bytes", text.len()),
        lines == 10_000,
    );

    let mut data = lease
        .copy_in(&format!("COPY {} (id, name) FROM STDIN", tour.table))
        .await?;
    data.send(Bytes::from_static(b"20000\thalf-way\n")).await?;
    drop(data);
    let count = format!("SELECT count(*) FROM {} WHERE id = 20000", tour.table);
    let left: i64 = lease.query_one(&count, &[]).await?.try_get(0)?;
    guide.step(
        "copy_in(), dropped half-way",
        &place,
        "rolled back",
        &format!("{left} rows"),
        left == 0,
    );
    Ok(())
}
