//! How subscriptions end: by a flag, by a drop, with the pool, with the executor.

use std::time::Duration;

use futures::FutureExt;
use gdbpool::{Cancel, ErrorKind, GapCause, ListenEvent};

use crate::{next, on_each_server, payload};

#[test]
fn nothing_comes_after_closed_and_the_server_has_the_channel_no_longer() {
    on_each_server(false, |world| async move {
        let mut other = world.db.listen_on("other").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut other).await, ListenEvent::Subscribed);
        for round in 0..20 {
            let cancel = Cancel::new();
            let listen = world.db.listen_on("Ended").cancel_on(&cancel);
            let mut ended = listen.subscribe().await.expect("a subscription");
            let second = world.db.listen_on("Ended").subscribe().await.expect("a subscription");
            assert_eq!(next(&mut ended).await, ListenEvent::Subscribed);
            world.notify("Ended", "queued").await;
            world.notify("other", "").await;
            assert_eq!(payload(&mut other).await, "");
            cancel.cancel();
            ended.closed().await;
            assert!(
                !world.last_request("main").contains("UNLISTEN \"Ended\""),
                "there is another subscriber"
            );
            world.notify("Ended", "late").await;
            second.cancel();
            second.closed().await;
            assert_eq!(world.last_request("main"), "UNLISTEN \"Ended\"", "round {round}");
            world.notify("Ended", "later").await;
            // What was queued can still be read; nothing else is there.
            assert_eq!(payload(&mut ended).await, "queued");
            assert_eq!(ended.next().await, None);
        }
    });
}

#[test]
fn a_dropped_subscription_ends_and_so_does_a_dropped_future() {
    on_each_server(false, |world| async move {
        let keep = world.db.listen_on("keep").subscribe().await.expect("a subscription");
        drop(world.db.listen_on("dropped").subscribe().await.expect("a subscription"));
        world
            .until("it is left", || world.last_request("main") == "UNLISTEN \"dropped\"")
            .await;
        let mut begun = Box::pin(world.db.listen_on("half").subscribe());
        // One poll, whatever it gives.
        drop(begun.as_mut().now_or_never());
        drop(begun);
        let mut again = world.db.listen_on("half").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut again).await, ListenEvent::Subscribed);
        drop(keep);
        world.notify("half", "1").await;
        assert_eq!(payload(&mut again).await, "1");
    });
}

#[test]
fn a_flag_that_is_set_already_or_in_the_middle_is_an_error_that_says_so() {
    on_each_server(false, |world| async move {
        let cancel = Cancel::new();
        world.proxy.pause();
        let listen = world.db.listen_on("c").on_pool("ear").cancel_on(&cancel);
        let mut begun = Box::pin(listen.subscribe());
        assert!(begun.as_mut().now_or_never().is_none());
        cancel.cancel();
        let error = begun.await.expect_err("it was cancelled");
        assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
        let late = world.db.listen_on("c").cancel_on(&cancel).subscribe().await;
        assert!(matches!(
            late.expect_err("it is cancelled").kind(),
            ErrorKind::Cancelled
        ));
        world.proxy.cut();
        world.proxy.resume();
    });
}

#[test]
fn a_closed_pool_ends_its_subscriptions_and_says_so() {
    on_each_server(true, |world| async move {
        let mut subscription = world.db.listen_on("c").subscribe().await.expect("a subscription");
        assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
        let pool = world.db.pool("main").expect("a pool");
        pool.close(Duration::from_secs(20)).await;
        let told = next(&mut subscription).await;
        assert!(
            matches!(
                told,
                ListenEvent::Gap {
                    cause: GapCause::PoolClosed,
                    ..
                }
            ),
            "{told:?}"
        );
        assert_eq!(subscription.next().await, None);
        subscription.closed().await;
        let error = world
            .db
            .listen_on("c")
            .subscribe()
            .await
            .expect_err("the pool is closed");
        assert!(matches!(error.kind(), ErrorKind::PoolClosed), "{error:?}");
    });
}
