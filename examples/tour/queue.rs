//! Chapters on the queue: more callers than sessions, a change of size, the pools' reports.
//!
//! After all calls that the reports count; the pool `narrow` is removed here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::FuturesUnordered;

use crate::guide::{Guide, Place};
use crate::{BoxError, Tour};

const CALLERS: usize = 20;

/// How long a session may take to say goodbye.
const SHRINK_TIMEOUT: Duration = Duration::from_secs(5);

/// Twenty callers for two sessions: served in the order in which they asked.
pub(crate) async fn twenty_callers(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Callers are served in the order they asked, and a pool can be resized under way");
    let pool = tour.db.pool("narrow")?;
    pool.resize(0, 2)?;
    let status = pool.status();
    let result = format!("at most {} sessions", status.max);
    guide.step(
        "resize(0, 2)",
        &Place::on_pool("narrow"),
        "done",
        &result,
        status.max == 2,
    );

    let served = Mutex::new(Vec::new());
    let callers: FuturesUnordered<_> = (0..CALLERS)
        .map(|caller| {
            let (pool, served) = (&pool, &served);
            async move {
                let lease = pool.checkout().await?;
                let place = Place::of_lease("narrow", &lease);
                served
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((caller, place));
                lease.execute("SELECT pg_sleep(0.02)", &[]).await.map(drop)
            }
        })
        .collect();
    callers.try_collect::<()>().await?;

    let served = served.into_inner().unwrap_or_else(PoisonError::into_inner);
    let order: Vec<String> = served.iter().map(|(caller, _)| caller.to_string()).collect();
    let mut sessions: BTreeMap<Place, usize> = BTreeMap::new();
    for (_, place) in &served {
        *sessions.entry(place.clone()).or_default() += 1;
    }
    for (place, count) in &sessions {
        let result = format!("{count} of {CALLERS} callers");
        guide.step("checkout()", place, "done", &result, true);
    }
    let overtakes = pool.status().overtakes;
    let in_order = served.iter().map(|(caller, _)| *caller).eq(0..CALLERS);
    let note = format!("served: {}; overtakes: {overtakes}", order.join(" "));
    guide.note(&note, in_order && overtakes == 0 && sessions.len() == 2);

    pool.resize(0, 1)?;
    let deadline = tour.now() + SHRINK_TIMEOUT;
    while pool.status().size > 1 && tour.now() < deadline {
        tour.pause(Duration::from_millis(5)).await;
    }
    let size = pool.status().size;
    let result = format!("{size} session left");
    guide.step("resize(0, 1)", &Place::on_pool("narrow"), "done", &result, size == 1);
    Ok(())
}

/// Each pool's report, and a pool that is taken out.
pub(crate) async fn reports(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("What each pool reports");
    for status in tour.db.status() {
        let expected = status.overtakes == 0 && status.waiting == 0 && status.leased == 0;
        guide.note(&status.to_string(), expected);
    }
    let report = tour.db.remove_pool("narrow", Duration::from_secs(5)).await?;
    let result = format!("{} leases cut, {} sessions remain", report.cut.len(), report.remaining);
    let expected = report.cut.is_empty() && report.remaining == 0;
    guide.step(
        "remove_pool(\"narrow\")",
        &Place::on_pool("narrow"),
        "done",
        &result,
        expected,
    );
    Ok(())
}
