//! Chapters on `run`: which pool serves it, the forms of values and answers, reads that may not write.
//!
//! After the pools are open; `answers` makes the table that later chapters use.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::try_join_all;

use crate::guide::{Guide, HERE, Place, Role};
use crate::{BoxError, Tour};

const READS: usize = 8;

/// How long a standby may take to replay what the primary wrote.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(20);

/// A write goes to the default write pool, reads are spread over the default read set, and `on_pool` decides itself.
pub(crate) async fn named_pools(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Named pools: writes go to the default write pool, reads are balanced over the read set");
    let replica_role = if tour.nodes.has_standby {
        Role::Standby
    } else {
        Role::Primary
    };
    let here = format!("SELECT {HERE}, current_setting('server_version') AS version");

    let row = tour.db.run(&*here).one().await?;
    let place = guide.place(&row)?;
    let version: &str = row.try_get("version")?;
    let expected = place.pool == "primary" && place.role == Some(Role::Primary);
    guide.step(
        "run(sql)",
        &place,
        "committed",
        &format!("PostgreSQL {version}"),
        expected,
    );

    let reads = (0..READS).map(|_| tour.db.run(&*here).read().one().into_future());
    let mut served: BTreeMap<Place, usize> = BTreeMap::new();
    for row in try_join_all(reads).await? {
        *served.entry(guide.place(&row)?).or_default() += 1;
    }
    for (place, count) in &served {
        let expected = place.pool.starts_with("replica-") && place.role == Some(replica_role);
        let result = format!("{count} of {READS} at once");
        guide.step(".read()", place, "answered", &result, expected);
    }
    let pools: Vec<&str> = served.keys().map(|place| &*place.pool).collect();
    let both = ["replica-a", "replica-b"].iter().all(|name| pools.contains(name));
    guide.note("both pools of the read set had a share", both);

    let row = tour.db.run(&*here).read().on_pool("replica-b").one().await?;
    let place = guide.place(&row)?;
    let expected = place.pool == "replica-b";
    guide.step(
        ".read().on_pool(\"replica-b\")",
        &place,
        "answered",
        "as named",
        expected,
    );
    Ok(())
}

/// Values by `bind` and `args`; answers as a count, a row, perhaps a row, a value, all rows, a stream.
pub(crate) async fn answers(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Values in, answers out");
    let (db, table) = (&tour.db, &tour.table);
    let lease = db.pool("primary")?.checkout().await?;
    lease
        .batch(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, name text NOT NULL, made_by int)"
        ))
        .await?;
    let place = Place::of_lease("primary", &lease);
    guide.step("a lease, batch()", &place, "committed", &format!("table {table}"), true);
    drop(lease);

    let insert = format!(
        "INSERT INTO {table} SELECT n, 'guest ' || n, pg_catalog.pg_backend_pid() FROM generate_series(1, $1) AS n"
    );
    let inserted = db.run(insert).bind(5i32).execute().await?;
    let select = format!("SELECT {HERE}, name, made_by FROM {table} WHERE id = $1");
    let row = db.run(&*select).bind(1i32).one().await?;
    let writer = Place {
        pid: row.try_get("made_by")?,
        ..Place::on_pool("primary")
    };
    guide.step(
        ".bind(5).execute()",
        &writer,
        "committed",
        &format!("{inserted} rows"),
        inserted == 5,
    );
    let place = guide.place(&row)?;
    let name: &str = row.try_get("name")?;
    guide.step(".bind(1).one()", &place, "committed", name, name == "guest 1");

    let update =
        format!("UPDATE {table} SET name = $1, made_by = pg_catalog.pg_backend_pid() WHERE id = $2 RETURNING {HERE}");
    let row = db.run(update).args(&[&"Ann", &2i32]).opt().await?;
    let found = row.ok_or("the row to update is not there")?;
    let place = guide.place(&found)?;
    guide.step(".args(&[&\"Ann\", &2]).opt()", &place, "committed", "Some(row)", true);
    let none = db.run(&*select).bind(99i32).opt().await?;
    guide.step(
        ".bind(99).opt()",
        &Place::on_pool("primary"),
        "committed",
        "None",
        none.is_none(),
    );

    replayed(tour).await?;
    let rows = db
        .run(format!("SELECT {HERE}, name FROM {table} ORDER BY id"))
        .read()
        .await?;
    let place = guide.place(rows.first().ok_or("the table is empty")?)?;
    let names: Vec<&str> = rows.iter().map(|row| row.try_get("name")).collect::<Result<_, _>>()?;
    let expected = names.len() == 5 && names.get(1) == Some(&"Ann");
    guide.step(".read() (all rows)", &place, "answered", &names.join(", "), expected);

    let pid: i32 = db
        .run("SELECT pg_backend_pid()")
        .read()
        .on_pool("replica-a")
        .scalar()
        .await?;
    let place = Place {
        pid: Some(pid),
        ..Place::on_pool("replica-a")
    };
    guide.step(".read().scalar::<i32>()", &place, "answered", &pid.to_string(), pid > 0);
    stream(tour, guide).await
}

/// Rows as the server sends them.
async fn stream(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    let numbers = format!("SELECT {HERE}, n FROM generate_series(1, 100000) AS n");
    let mut rows = tour.db.run(numbers).read().stream().await?;
    let (mut place, mut sum) = (None, 0i64);
    while let Some(row) = rows.try_next().await? {
        sum += i64::from(row.try_get::<_, i32>("n")?);
        if place.is_none() {
            place = Some(guide.place(&row)?);
        }
    }
    let place = place.ok_or("the stream was empty")?;
    let expected = sum == 5_000_050_000 && place.pid == Some(rows.backend_pid());
    guide.step(
        ".read().stream()",
        &place,
        "answered",
        &format!("100,000 rows, sum {sum}"),
        expected,
    );
    Ok(())
}

/// Waits until the standby has what the primary wrote.
async fn replayed(tour: &Tour<'_>) -> Result<(), BoxError> {
    let written: String = tour.db.run("SELECT pg_current_wal_lsn()::text").scalar().await?;
    let replayed = "SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    let deadline = tour.now() + REPLAY_TIMEOUT;
    for pool in ["replica-a", "replica-b"] {
        let replay = || tour.db.run(replayed).bind(written.clone()).read().on_pool(pool);
        while !replay().scalar::<bool>().await? {
            if tour.now() > deadline {
                return Err(format!("the standby has not replayed the tour's table in {REPLAY_TIMEOUT:?}").into());
            }
            tour.pause(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// The server refuses to change rows for a `.read()`, on a primary just as on a standby.
pub(crate) async fn refused_write(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("A read cannot change rows, wherever it runs: the server refuses it");
    let update = format!("UPDATE {} SET name = 'changed' WHERE id = $1", tour.table);
    for pool in ["replica-a", "primary"] {
        let result = tour.db.run(&*update).bind(1i32).read().on_pool(pool).execute().await;
        let what = format!("UPDATE, .read().on_pool(\"{pool}\")");
        guide.refusal(&what, result, |error| {
            error.sqlstate().is_some_and(|state| state.code() == "25006")
        });
    }
    Ok(())
}
