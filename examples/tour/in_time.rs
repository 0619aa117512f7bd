//! Chapters on ending early: a dropped statement, a cancelled one, one that runs out of time.
//!
//! After the table is there. On the pool `narrow`, where whoever comes next needs the very session.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, join, select};
use gdbpool::{Cancel, ErrorKind, Outcome};

use crate::guide::{Guide, HERE};
use crate::{BoxError, Tour};

const SOON: Duration = Duration::from_millis(100);

/// How long the slow statements would take.
const SLOW: Duration = Duration::from_secs(3);

/// Somebody loses interest after 100 ms in a statement of 3 s; the neighbour does not wait for the rest.
pub(crate) async fn dropped(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("A dropped statement does not hurt the neighbour");
    let here = || tour.db.run(format!("SELECT {HERE}")).on_pool("narrow").one();
    // The pool has one session: it will be the same in all three calls.
    let first = guide.place(&here().await?)?;
    let slow = tour.db.run("SELECT pg_sleep(3)").on_pool("narrow").execute();
    let ended = within(tour, SOON, slow.into_future()).await;
    let result = "a statement of 3 s, dropped after 100 ms";
    guide.step(
        "run(\"SELECT pg_sleep(3)\")",
        &first,
        "dropped",
        result,
        ended.is_none(),
    );

    let start = tour.now();
    let next = guide.place(&here().await?)?;
    let waited = tour.now() - start;
    let result = format!("after {:.1} ms, not 2,900", waited.as_secs_f64() * 1e3);
    let expected = next == first && waited < SLOW / 2;
    guide.step("the next one, same session", &next, "committed", &result, expected);
    Ok(())
}

/// A read that is cancelled, and a write whose time is up.
pub(crate) async fn stopped(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Stopped on purpose: the error says what became of the work");
    let cancel = Cancel::new();
    let call = tour.db.run("SELECT pg_sleep(3)").read().on_pool("narrow");
    let call = call.cancel_on(&cancel).execute();
    let canceller = async {
        tour.pause(SOON).await;
        cancel.cancel();
    };
    let (result, ()) = join(call.into_future(), canceller).await;
    guide.refusal("a read, .cancel_on(&cancel)", result, |error| {
        matches!(error.kind(), ErrorKind::Cancelled) && error.outcome() == Outcome::RolledBack
    });

    let update = format!(
        "UPDATE {} SET name = 'too late' WHERE id = $1 AND pg_sleep(3)::text = ''",
        tour.table
    );
    let result = tour
        .db
        .run(update)
        .bind(1i32)
        .on_pool("narrow")
        .timeout(SOON)
        .execute()
        .await;
    guide.refusal("a write, .timeout(100 ms)", result, |error| {
        matches!(error.kind(), ErrorKind::Timeout) && error.outcome() == Outcome::RolledBack
    });

    let select = format!("SELECT {HERE}, name FROM {} WHERE id = $1", tour.table);
    let row = tour.db.run(select).bind(1i32).on_pool("narrow").one().await?;
    let place = guide.place(&row)?;
    let name: &str = row.try_get("name")?;
    guide.step("that row, after both", &place, "committed", name, name != "too late");
    Ok(())
}

/// The future's output, if it comes in time; else the future is dropped.
async fn within<F: Future>(tour: &Tour<'_>, span: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(tour.pause(span))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
