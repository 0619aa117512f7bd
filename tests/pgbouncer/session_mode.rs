//! In session mode the ordinary configuration works unchanged.

use std::time::Duration;

use gdbpool::ListenEvent;

use crate::stage::{Front, close, on_each_server};

#[test]
fn the_ordinary_configuration_works() {
    on_each_server(Front::Session, "CREATE TABLE t (n int)", |world| async move {
        let db = world.open(world.config().on_connect_sql("SET work_mem = '7MB'")).await;
        for n in 0..5 {
            let insert = db.run("INSERT INTO t VALUES ($1)").bind(n).execute();
            assert_eq!(insert.await.expect("a row"), 1);
            let sum: i64 = db.run("SELECT sum(n) FROM t").read().scalar().await.expect("a sum");
            assert_eq!(sum, (0..=i64::from(n)).sum::<i64>());
        }
        let refused = db
            .run("INSERT INTO t VALUES (1)")
            .read()
            .await
            .expect_err("it only reads");
        assert_eq!(refused.sqlstate().map(|state| state.code()), Some("25006"), "{refused}");

        let pool = db.pool("main").expect("a pool");
        let lease = pool.checkout().await.expect("a lease");
        lease
            .batch("CREATE TEMP TABLE scratch (n int); SET work_mem = '3MB'; BEGIN")
            .await
            .expect("run");
        drop(lease);
        world.at_rest(&db).await;
        for _ in 0..4 {
            let lease = pool.checkout().await.expect("a lease");
            let row = lease.query_one(
                "SELECT current_setting('work_mem'), to_regclass('scratch') IS NULL",
                &[],
            );
            let row = row.await.expect("a row");
            assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("7MB", true));
        }

        let mut news = db.listen_on("news").subscribe().await.expect("a subscription");
        db.notify("news", "hello").await.expect("sent");
        let heard = async {
            loop {
                match news.next().await.expect("events") {
                    ListenEvent::Notification(notification) => return notification.payload().to_owned(),
                    _ => continue,
                }
            }
        };
        assert_eq!(heard.await, "hello");
        drop(news);
        let slow = db.run("SELECT pg_sleep(600)").timeout(Duration::from_millis(200)).await;
        assert!(slow.is_err());
        world.at_rest(&db).await;
        close(&db).await;
    });
}
