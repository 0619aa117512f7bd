//! Slow readers: what is dropped is counted, told where it was lost, and hurts nobody else.

use futures::FutureExt;
use gdbpool::{GapCause, ListenEvent};

use crate::{next, on_each_server, payload};

#[test]
fn what_a_slow_reader_loses_lies_inside_a_gap_and_is_counted() {
    on_each_server(false, |world| async move {
        for capacity in [1, 2, 5] {
            let mut slow = world
                .db
                .listen_on("c")
                .capacity(capacity)
                .subscribe()
                .await
                .expect("a subscription");
            let mut quick = world.db.listen_on("c").subscribe().await.expect("a subscription");
            assert_eq!(next(&mut quick).await, ListenEvent::Subscribed);
            assert_eq!(next(&mut slow).await, ListenEvent::Subscribed);
            world.psql("SELECT pg_notify('c', n::text) FROM generate_series(1, 100) n");
            for number in 1..=100 {
                assert_eq!(payload(&mut quick).await, number.to_string());
            }
            let mut kept = 0;
            while kept < capacity {
                kept += 1;
                assert_eq!(payload(&mut slow).await, kept.to_string());
            }
            let mut dropped_in_all = 0;
            loop {
                match next(&mut slow).await {
                    ListenEvent::Gap { cause, dropped, .. } => {
                        assert_eq!(cause, GapCause::Overflow);
                        dropped_in_all += dropped;
                    }
                    ListenEvent::Resumed => break,
                    other => panic!("{other:?} inside a gap"),
                }
            }
            assert_eq!(dropped_in_all, 100 - capacity as u64);
            world.notify("c", "again").await;
            assert_eq!(payload(&mut slow).await, "again");
        }
    });
}

#[test]
fn a_queue_of_the_users_own_that_is_full_is_told_as_soon_as_there_is_room() {
    on_each_server(false, |world| async move {
        let (sender, events) = async_channel::bounded(3);
        let handle = world
            .db
            .listen_on("c")
            .into_queue(sender)
            .await
            .expect("a subscription");
        let mut witness = world.db.listen_on("c").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut witness).await, ListenEvent::Subscribed);
        world.psql("SELECT pg_notify('c', n::text) FROM generate_series(1, 10) n");
        for number in 1..=10 {
            assert_eq!(payload(&mut witness).await, number.to_string());
        }
        let mut read = Vec::new();
        loop {
            let event = events.recv().await.expect("an event");
            read.push(match &event {
                ListenEvent::Notification(notification) => notification.payload().to_owned(),
                ListenEvent::Gap { dropped, .. } => format!("{dropped} dropped"),
                other => format!("{other:?}"),
            });
            if event == ListenEvent::Resumed {
                break;
            }
        }
        assert_eq!(read, ["Subscribed", "1", "2", "8 dropped", "Resumed"]);
        assert!(events.recv().now_or_never().is_none());
        handle.cancel();
        handle.closed().await;
    });
}

#[test]
fn a_loss_that_found_no_room_before_the_end_is_told_last() {
    on_each_server(false, |world| async move {
        let mut full = world
            .db
            .listen_on("c")
            .capacity(1)
            .subscribe()
            .await
            .expect("a subscription");
        let mut witness = world.db.listen_on("c").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut witness).await, ListenEvent::Subscribed);
        assert_eq!(next(&mut full).await, ListenEvent::Subscribed);
        for number in 1..=3 {
            world.notify("c", &number.to_string()).await;
            assert_eq!(payload(&mut witness).await, number.to_string());
        }
        full.cancel();
        full.closed().await;
        assert_eq!(payload(&mut full).await, "1");
        let told = next(&mut full).await;
        assert!(
            matches!(
                told,
                ListenEvent::Gap {
                    cause: GapCause::Overflow,
                    dropped: 2,
                    ..
                }
            ),
            "{told:?}"
        );
        assert_eq!(full.next().await, None);
    });
}
