//! What is refused, with its offender by name: before anything is sent, or by the server.

use gdbpool::{BadInput, Error, ErrorKind, Outcome};

use crate::on_each_server;

fn bad(error: &Error) -> &BadInput {
    assert_eq!(error.outcome(), Outcome::NotExecuted);
    match error.kind() {
        ErrorKind::BadInput(bad) => bad,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_input_is_named_before_anything_is_sent() {
    on_each_server(true, |world| async move {
        let long = "ü".repeat(32);
        for channel in ["", &long, "a\0b"] {
            let error = world.db.listen_on(channel).subscribe().await.expect_err(channel);
            assert!(
                matches!(bad(&error), BadInput::Channel { name, .. } if name == channel),
                "{error}"
            );
            let error = world.db.notify(channel, "").await.expect_err(channel);
            assert!(matches!(bad(&error), BadInput::Channel { .. }), "{error}");
        }
        for (payload, length) in [("x".repeat(8_000), 8_000), ("a\0".into(), 2)] {
            let error = world.db.notify("c", payload).await.expect_err("a payload");
            assert!(
                matches!(bad(&error), BadInput::Payload { bytes, .. } if *bytes == length),
                "{error}"
            );
        }
        for capacity in [0, 1_000_001] {
            let error = world
                .db
                .listen_on("c")
                .capacity(capacity)
                .subscribe()
                .await
                .expect_err("a bound");
            assert!(
                matches!(
                    bad(&error),
                    BadInput::OutOfBounds {
                        setting: "capacity",
                        ..
                    }
                ),
                "{error}"
            );
        }
        let (sender, _events) = async_channel::unbounded();
        let error = world.db.listen_on("c").into_queue(sender).await.expect_err("a queue");
        assert!(matches!(bad(&error), BadInput::UnboundedQueue), "{error}");
        let error = world
            .db
            .listen_on("c")
            .on_pool("nowhere")
            .subscribe()
            .await
            .expect_err("a pool");
        assert!(matches!(bad(&error), BadInput::UnknownPool { .. }), "{error}");
        assert_eq!(world.sessions(), 0, "nothing was sent");
        world.notify("c", &"x".repeat(7_999)).await;
    });
}

#[test]
fn a_standby_refuses() {
    on_each_server(true, |world| async move {
        let listen = world.db.listen_on("c").on_pool("replica");
        let error = listen.subscribe().await.expect_err("a standby");
        assert!(matches!(error.kind(), ErrorKind::Database), "{error:?}");
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("25006"));
        assert_eq!(error.pool(), Some("replica"));
        world.until("the connection is not kept", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'replica'";
            world.pair.standby.psql(sql) == "0"
        })
        .await;
    });
}
