//! What arrives: every channel, every subscriber, in order, over one connection.

use std::time::Duration;

use gdbpool::ListenEvent;

use crate::{next, on_each_server, payload};

#[test]
fn many_channels_and_subscribers_share_one_connection() {
    on_each_server(true, |world| async move {
        let long = "x".repeat(63);
        let odd = [
            "Upper Case",
            "quo\"te",
            "semi; colon",
            "--",
            "ünï",
            "select",
            "'",
            "$1",
            &long,
        ];
        let plain: Vec<String> = (0..40).map(|at| format!("c{at}")).collect();
        let channels: Vec<&str> = odd.into_iter().chain(plain.iter().map(String::as_str)).collect();
        let mut subscriptions = Vec::new();
        for channel in &channels {
            for _ in 0..3 {
                let mut subscription = world.db.listen_on(*channel).subscribe().await.expect("a subscription");
                assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
                subscriptions.push(subscription);
            }
        }
        for (at, channel) in channels.iter().enumerate() {
            world.notify(channel, &at.to_string()).await;
        }
        // The pool's one session, and the listener's; the self-test's is gone by then.
        world
            .until("one connection carries all", || world.sessions() == 2)
            .await;
        for (at, subscription) in subscriptions.iter_mut().enumerate() {
            let ListenEvent::Notification(notification) = next(subscription).await else {
                panic!("no notification");
            };
            assert_eq!(notification.channel(), channels[at / 3]);
            assert_eq!(notification.payload(), (at / 3).to_string());
            assert!(notification.backend_pid() > 0);
        }
        assert_eq!(
            world.db.pool("main").expect("a pool").status().size,
            1,
            "no slot is taken"
        );
        drop(subscriptions);
        world
            .until("the connection ends with the last one", || world.sessions() == 1)
            .await;
    });
}

#[test]
fn the_notifications_of_a_batch_come_in_its_order() {
    on_each_server(true, |world| async move {
        let listen = world.db.listen_on("batch").capacity(6_000);
        let mut subscription = listen.subscribe().await.expect("a subscription");
        assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
        let big = "y".repeat(1_000);
        world.psql(&format!(
            "SELECT pg_notify('batch', n || '{big}') FROM generate_series(1, 5000) n"
        ));
        for number in 1..=5_000 {
            assert_eq!(payload(&mut subscription).await, format!("{number}{big}"));
        }
    });
}

#[test]
fn the_self_test_passes_and_leaves_nothing() {
    on_each_server(true, |world| async move {
        let mut subscription = world.db.listen_on("c").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
        world
            .until("the private channel is left", || {
                world.last_request("main").starts_with("UNLISTEN \"gdbpool_self")
            })
            .await;
        world.notify("c", "").await;
        assert_eq!(payload(&mut subscription).await, "");
    });
}

#[test]
fn a_queue_of_the_users_own_is_fed_by_several_channels() {
    on_each_server(true, |world| async move {
        let (sender, events) = async_channel::bounded(16);
        let a = world
            .db
            .listen_on("a")
            .into_queue(sender.clone())
            .await
            .expect("a subscription");
        let b = world
            .db
            .listen_on("b")
            .into_queue(sender)
            .await
            .expect("a subscription");
        for _ in 0..2 {
            assert_eq!(events.recv().await, Ok(ListenEvent::Subscribed));
        }
        world.notify("a", "k:1|l:2").await;
        world.notify("b", "k:3").await;
        let mut read = Vec::new();
        for _ in 0..2 {
            let ListenEvent::Notification(notification) = events.recv().await.expect("an event") else {
                panic!("no notification");
            };
            read.extend(notification.pairs().map(|(k, v)| format!("{k}={v}")));
        }
        assert_eq!(read, ["k=1", "l=2", "k=3"]);
        a.cancel();
        a.closed().await;
        world.notify("a", "late").await;
        world.notify("b", "on time").await;
        let ListenEvent::Notification(notification) = events.recv().await.expect("an event") else {
            panic!("no notification");
        };
        assert_eq!(notification.payload(), "on time");
        drop(events);
        b.closed().await;
        world
            .until("nobody reads: the connection ends", || world.sessions() == 1)
            .await;
    });
}

#[test]
fn a_subscription_begun_while_the_server_is_away_begins_when_it_is_back() {
    on_each_server(false, |world| async move {
        world.proxy.refuse(true);
        let listen = world.db.listen_on("c").on_pool("ear");
        let mut subscription = listen.subscribe().await.expect("a subscription that waits");
        world.proxy.refuse(false);
        assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
        world.notify("c", "1").await;
        assert_eq!(payload(&mut subscription).await, "1");
        let pause = world.runtime.now() + Duration::from_millis(300);
        world.runtime.sleep_until(pause).await;
        world.notify("c", "2").await;
        assert_eq!(payload(&mut subscription).await, "2", "heartbeats are no events");
    });
}
