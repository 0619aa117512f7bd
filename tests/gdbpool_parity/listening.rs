//! The rows about listening.

use gdbpool::{Cancel, ListenEvent, Notification, Subscription};

use super::{INSERT, World, fresh_id, on_each_server};

/// The next notification.
async fn next(subscription: &mut Subscription) -> Notification {
    match subscription.next().await {
        Some(ListenEvent::Notification(notification)) => notification,
        other => panic!("{other:?} instead of a notification"),
    }
}

async fn subscribe(world: &World, channel: &str) -> Subscription {
    let mut subscription = world.db.listen_on(channel).subscribe().await.expect("a subscription");
    assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
    subscription
}

/// A channel that no other test has.
fn fresh_channel() -> String {
    format!("channel {}", fresh_id())
}

#[test]
fn listen_on() {
    on_each_server(async |world| {
        // The rules of the table.
        let (sender, events) = async_channel::bounded(64);
        let cancel = Cancel::new();
        let queue = world
            .db
            .listen_on("test_values_insert")
            .on_pool("main")
            .cancel_on(&cancel);
        let queue = queue.into_queue(sender).await.expect("a subscription");
        assert_eq!(events.recv().await, Ok(ListenEvent::Subscribed));
        let mut updates = subscribe(&world, "test_values_update").await;
        let id = fresh_id();
        world.db.run(INSERT).bind(id).execute().await.expect("inserted");
        let update = "UPDATE test_values SET val1 = 0 WHERE id = $1";
        world.db.run(update).bind(id).execute().await.expect("updated");
        let Ok(ListenEvent::Notification(inserted)) = events.recv().await else {
            panic!("no notification");
        };
        assert_eq!(inserted.channel(), "test_values_insert");
        assert_eq!(next(&mut updates).await.channel(), "test_values_update");
        cancel.cancel();
        queue.closed().await;
        while events.try_recv().is_ok() {}
        world.db.run(INSERT).bind(fresh_id()).execute().await.expect("inserted");
        assert!(events.recv().await.is_err(), "nothing comes after the end");
    });
}

#[test]
fn one_listener_per_channel() {
    on_each_server(async |world| {
        let (a, b) = (fresh_channel(), fresh_channel());
        let ear = format!("ear {}", fresh_id());
        let db = world.open([world.pool(&ear)]).await;
        let mut all = Vec::new();
        for channel in [&a, &a, &b, &a, &b] {
            let mut subscription = db.listen_on(channel).subscribe().await.expect("a subscription");
            assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
            all.push((channel, subscription));
        }
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{ear}'");
        world
            .until("one connection carries all", || world.psql(&count) == "1")
            .await;
        for (at, channel) in [&a, &b, &a].into_iter().enumerate() {
            world.db.notify(channel, at.to_string()).await.expect("sent");
        }
        for (channel, subscription) in &mut all {
            let expected: &[&str] = if **channel == a { &["0", "2"] } else { &["1"] };
            for payload in expected {
                assert_eq!(next(subscription).await.payload(), *payload);
            }
        }
        drop(all);
        world
            .until("it ends with the last of them", || world.psql(&count) == "0")
            .await;
        world.close(&db).await;
    });
}

#[test]
fn payload_unmarshaller() {
    on_each_server(async |world| {
        let channel = fresh_channel();
        let mut subscription = subscribe(&world, &channel).await;
        world
            .db
            .notify(&channel, "table:test_values|event:insert|at:12:30")
            .await
            .expect("sent");
        let notification = next(&mut subscription).await;
        let pairs: Vec<_> = notification.pairs().collect();
        assert_eq!(pairs, [("table", "test_values"), ("event", "insert"), ("at", "12:30")]);
        let mut inserts = subscribe(&world, "test_values_insert").await;
        world.db.run(INSERT).bind(fresh_id()).execute().await.expect("inserted");
        let notification = next(&mut inserts).await;
        let pairs: Vec<_> = notification.pairs().collect();
        assert_eq!(pairs, [("table", "test_values"), ("event", "insert")]);
        #[cfg(feature = "json")]
        {
            world.db.notify(&channel, "[1, 2, 3]").await.expect("sent");
            let numbers = next(&mut subscription).await.json::<Vec<u8>>();
            assert_eq!(numbers.ok(), Some(vec![1, 2, 3]));
        }
    });
}
