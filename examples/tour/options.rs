//! Chapter on what more a statement can be asked: typed rows, named parameters, batches, a dry run, a call on its own.
//!
//! After `interactions`, whose table it uses.

use crate::guide::{Guide, HERE, Place};
use crate::{BoxError, Tour};

pub(crate) async fn options(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("More of a statement: typed, named, several at once, dry, on its own");
    let (db, table) = (&tour.db, &tour.table);
    let primary = Place::on_pool("primary");

    let select = format!("SELECT id, name FROM {table} ORDER BY id LIMIT 2");
    let users: Vec<(i32, String)> = db.run(&select).typed().await?;
    guide.step(
        "typed::<(i32, String)>()",
        &primary,
        "committed",
        &format!("{users:?}"),
        users.len() == 2,
    );

    let named = format!("SELECT count(*) FROM {table} WHERE id >= :least AND name <> ':least'");
    let count: i64 = db.run(named).bind_named("least", 1i32).scalar().await?;
    guide.step(
        "bind_named(\"least\", 1)",
        &primary,
        "committed",
        &format!("{count} rows"),
        count > 0,
    );

    let sql = format!("SELECT name FROM {table} WHERE id = $1 AND name <> $2");
    let dry = db.run(&sql).bind(1i32).bind("O'Hara").dry_run().await?;
    let expected = dry.text().contains("'O''Hara'::");
    guide.step("dry_run()", &primary, "not executed", dry.text(), expected);

    let several = "CREATE TEMP TABLE scratch (n int); INSERT INTO scratch VALUES (1), (2); SELECT * FROM scratch";
    let results = db.run(several).batch().await?;
    let rows = results.last().map_or(0, |last| last.rows().len());
    guide.step(
        "batch()",
        &primary,
        "committed",
        &format!("{} statements", results.len()),
        rows == 2,
    );

    let under_way = db.run(format!("SELECT {HERE} FROM pg_sleep(0.05)")).one().spawn();
    let at_once = !under_way.is_finished();
    let row = under_way.await?;
    let place = guide.place(&row)?;
    guide.step("spawn()", &place, "committed", "began at once, awaited later", at_once);
    Ok(())
}
