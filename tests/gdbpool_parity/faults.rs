//! gDBPool's known faults: none of them comes back.

use gdbpool::{ErrorKind, ListenEvent, Outcome};

use super::{INSERT, NAME, PID, fresh_id, on_each_server};

#[test]
fn notifications_of_one_batch_keep_their_order() {
    on_each_server(async |world| {
        let channel = format!("batch {}", fresh_id());
        let mut subscription = world.db.listen_on(&channel).subscribe().await.expect("a subscription");
        assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
        let all = "SELECT pg_notify($1, n::text) FROM generate_series(1, 500) AS n";
        world
            .db
            .run(all)
            .bind(channel)
            .execute()
            .await
            .expect("sent as one batch");
        for number in 1..=500 {
            let Some(ListenEvent::Notification(notification)) = subscription.next().await else {
                panic!("no notification");
            };
            assert_eq!(notification.payload(), number.to_string());
        }
    });
}

#[test]
fn a_failed_partial_transaction_gives_its_connection_back() {
    on_each_server(async |world| {
        let db = world.open([world.pool("single").size(1)]).await;
        for _ in 0..10 {
            let error = db.run(INSERT).bind(1i32).partial().await.expect_err("1 is there");
            assert_eq!(error.outcome(), Outcome::RolledBack);
            let error = db
                .transact(|tx| async move { tx.execute(INSERT, &[&1i32]).await })
                .partial()
                .await;
            assert_eq!(error.expect_err("1 is there").outcome(), Outcome::RolledBack);
            let mut pin = db.run("SELECT 1").partial().await.expect("begun").transaction;
            let error = db.run(INSERT).bind(1i32).execute().within(&mut pin).await;
            assert_eq!(error.expect_err("1 is there").outcome(), Outcome::RolledBack);
        }
        assert_eq!(db.run("SELECT 7").scalar::<i32>().await.ok(), Some(7));
        world.is_left_clean(&db).await;
        assert_eq!(db.status()[0].connects, 1, "the one connection served all");
        world.close(&db).await;
    });
}

#[test]
fn a_pinned_connection_goes_back_to_its_own_pool() {
    on_each_server(async |world| {
        let db = world.open(["a", "b"].map(|name| world.pool(name).size(1))).await;
        let pid = async |pool: &'static str| db.run(PID).scalar::<i32>().on_pool(pool).await.expect("a process id");
        let before = [pid("a").await, pid("b").await];
        for round in 0..6 {
            let mut pin = db.run(NAME).on_pool("a").partial().await.expect("begun").transaction;
            // What is said of another pool changes nothing.
            let name = db.run(NAME).on_pool("b").scalar::<String>().within(&mut pin).await;
            assert_eq!(name.expect("a name"), "a");
            match round % 3 {
                0 => drop(pin.commit().await.expect("committed")),
                1 => pin.rollback().await.expect("rolled back"),
                _ => drop(pin),
            }
            assert_eq!([pid("a").await, pid("b").await], before);
            for pool in ["a", "b"] {
                assert_eq!(
                    db.run(NAME).on_pool(pool).scalar::<String>().await.expect("a name"),
                    pool
                );
            }
        }
        world.close(&db).await;
    });
}

#[test]
fn resize_does_not_block() {
    on_each_server(async |world| {
        let pool = world.db.pool("main").expect("a pool");
        let mut leases = Vec::new();
        for _ in 0..4 {
            leases.push(pool.checkout().await.expect("a session"));
        }
        // All are out: it neither waits for them nor takes them away.
        pool.resize(0, 1).expect("smaller");
        let (first, others) = leases.split_first().expect("four");
        first.query("SELECT 1", &[]).await.expect("still a session");
        assert_eq!(others.len(), 3);
        drop(leases);
        world.until("it is small", || pool.status().size == 1).await;
        let only = pool.checkout().await.expect("a session");
        let waiting = world.db.run(PID).scalar::<i32>().on_pool("main").spawn();
        world.until("somebody waits", || pool.status().waiting == 1).await;
        pool.resize(0, 3).expect("larger");
        assert_ne!(waiting.await.expect("there is room"), only.backend_pid());
    });
}

#[test]
fn default_pool_is_heeded() {
    on_each_server(async |world| {
        let db = world
            .open([
                world.pool("first"),
                world.pool("chosen").default_pool(),
                world.pool("last"),
            ])
            .await;
        let name = db.run(NAME).scalar::<String>().await.expect("a name");
        let read = db.run(NAME).read().scalar::<String>().await.expect("a name");
        assert_eq!((name.as_str(), read.as_str()), ("chosen", "chosen"));
        world.close(&db).await;
        let db = world.open([world.pool("first")]).await;
        db.add_pool(world.pool("added").default_pool()).expect("added");
        assert_eq!(db.run(NAME).scalar::<String>().await.expect("a name"), "added");
        world.close(&db).await;
    });
}

#[test]
fn channel_names_are_quoted() {
    on_each_server(async |world| {
        let id = fresh_id();
        for start in ["Mixed Case", "a\"b", "x; DROP TABLE late", "select", "it's", "--"] {
            let channel = format!("{start}{id}");
            let mut subscription = world.db.listen_on(&channel).subscribe().await.expect("a subscription");
            assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
            // Not this one, which an unquoted name would be.
            world.db.notify(channel.to_lowercase(), "lower").await.expect("sent");
            world.db.notify(&channel, "exact").await.expect("sent");
            let Some(ListenEvent::Notification(notification)) = subscription.next().await else {
                panic!("no notification");
            };
            let lower = channel == channel.to_lowercase();
            assert_eq!(notification.payload(), if lower { "lower" } else { "exact" });
            assert_eq!(notification.channel(), channel);
        }
        assert_eq!(world.psql("SELECT count(*) FROM pg_class WHERE relname = 'late'"), "1");
    });
}

#[test]
fn a_commit_that_rolled_back_is_no_success() {
    on_each_server(async |world| {
        let (db, id) = (&world.db, fresh_id());
        let error = db
            .transact(|tx| async move {
                tx.execute(INSERT, &[&id]).await?;
                tx.execute(INSERT, &[&id]).await.expect_err("it is there");
                Ok(())
            })
            .await
            .expect_err("the server answers COMMIT with ROLLBACK");
        assert!(matches!(error.kind(), ErrorKind::TransactionFailed), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let mut pin = db.run(INSERT).bind(id).partial().await.expect("begun").transaction;
        let again = db.run(INSERT).bind(id).execute().within(&mut pin).await;
        again.expect_err("it is there");
        let error = pin.commit().await.expect_err("nothing to commit");
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        let late = "INSERT INTO late VALUES (1), (1)";
        let mut pin = db.run(INSERT).bind(id).partial().await.expect("begun").transaction;
        let inserted = db.run(late).execute().within(&mut pin).await;
        assert_eq!(inserted.ok(), Some(2), "the constraint is looked at later");
        let error = pin.commit().await.expect_err("a deferred constraint");
        assert_eq!(error.sqlstate().map(|state| state.code()), Some("23505"));
        assert_eq!(error.outcome(), Outcome::RolledBack);
        assert_eq!(world.rows(id), "0");
        let error = db.run(late).await.expect_err("a statement's own commit");
        assert_eq!(
            (error.outcome(), world.psql("SELECT count(*) FROM late")),
            (Outcome::RolledBack, "0".into())
        );
    });
}
