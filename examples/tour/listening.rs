//! Chapter on LISTEN and NOTIFY: events in order, many subscribers, and a plain mark where something may be missing.
//!
//! After `transactions`.

use gdbpool::{Cancel, ListenEvent};

use crate::guide::{Guide, Place};
use crate::{BoxError, Tour};

pub(crate) async fn listening(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Listening: one connection per pool, any number of channels and subscribers");
    let db = &tour.db;
    let channel = format!("{}: news", tour.table);
    let primary = Place::on_pool("primary");

    let cancel = Cancel::new();
    let mut subscription = db.listen_on(&*channel).cancel_on(&cancel).subscribe().await?;
    let (sender, queue) = async_channel::bounded(16);
    let queued = db.listen_on(&*channel).into_queue(sender).await?;
    let first = subscription.next().await;
    let subscribed = matches!(first, Some(ListenEvent::Subscribed));
    guide.step(
        "listen_on(..).subscribe()",
        &primary,
        "listening",
        &format!("{channel:?}"),
        subscribed,
    );

    for payload in ["id:1|name:Ann", "id:2|name:Bob"] {
        db.notify(&*channel, payload).await?;
    }
    for expected in ["Ann", "Bob"] {
        let Some(ListenEvent::Notification(news)) = subscription.next().await else {
            return Err("no notification came".into());
        };
        let name = news
            .pairs()
            .find(|(key, _)| *key == "name")
            .map(|(_, name)| name.to_owned());
        let result = format!("{:?}, in order", news.payload());
        guide.step(
            "notify(channel, payload)",
            &primary,
            "delivered",
            &result,
            name.as_deref() == Some(expected),
        );
    }
    let mut received = Vec::new();
    while received.len() < 3 {
        received.push(queue.recv().await?);
    }
    guide.step(
        "into_queue(sender)",
        &primary,
        "delivered",
        "to the second subscriber, too",
        queue.is_empty(),
    );

    let killed = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
        WHERE application_name = 'gdbpool-tour/primary' AND (query LIKE 'LISTEN%' OR query LIKE 'UNLISTEN%')";
    let ended = db.run(killed).await?.len();
    let lost = subscription.next().await;
    let back = subscription.next().await;
    let marked = matches!(lost, Some(ListenEvent::Gap { .. })) && matches!(back, Some(ListenEvent::Resumed));
    let result = format!("{ended} ended; the subscriber reads: Gap, Resumed");
    guide.step("its connection is killed", &primary, "listening", &result, marked);

    cancel.cancel();
    subscription.closed().await;
    queued.cancel();
    queued.closed().await;
    let quiet = subscription.next().await.is_none();
    guide.step(
        "cancel, closed().await",
        &primary,
        "ended",
        "nothing comes after",
        quiet,
    );
    Ok(())
}
