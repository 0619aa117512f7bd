//! Every way to order a statement and to take its answer.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use gdbpool::{Cancel, ErrorKind, Outcome, Phase, Row};

use super::{World, on_each_server, said, same};

#[test]
fn every_answer() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        let insert = "INSERT INTO t SELECT n, 'word ' || n FROM generate_series($1::int, $2) n";
        assert_eq!(db.run(insert).bind(1i32).bind(20i32).execute().await.ok(), Some(20));
        let words = |rows: Vec<Row>| rows.iter().map(|row| row.get::<_, String>("word")).collect::<Vec<_>>();
        let some = "SELECT n, word FROM t WHERE n <= $1 ORDER BY n";
        let rows = db.run(some).bind(2i32).await.expect("rows");
        assert_eq!(words(rows), ["word 1", "word 2"]);
        let rows = db.run(some).bind(2i32).rows().await.expect("rows");
        assert_eq!(rows[1].get::<_, i32>(0), 2);
        let row = db.run("SELECT word FROM t WHERE n = 7").one().await.expect("a row");
        assert_eq!(row.get::<_, &str>(0), "word 7");
        let row = db
            .run("SELECT word FROM t WHERE n = 7")
            .opt()
            .await
            .expect("a row or none");
        assert_eq!(row.map(|row| row.len()), Some(1));
        assert!(
            db.run("SELECT 1 FROM t WHERE n = 70")
                .opt()
                .await
                .expect("none")
                .is_none()
        );
        assert_eq!(db.run("SELECT count(*) FROM t").scalar::<i64>().await.ok(), Some(20));
        assert_eq!(
            db.run("SELECT n FROM t").execute().await.ok(),
            Some(20),
            "rows are counted, too"
        );
        assert_eq!(
            db.run("UPDATE t SET word = '' WHERE n > 15").execute().await.ok(),
            Some(5)
        );
        assert_eq!(
            db.run("DELETE FROM t WHERE n = 20 RETURNING n")
                .scalar::<i32>()
                .await
                .ok(),
            Some(20)
        );
        assert_eq!(db.run("CREATE INDEX ON t (word)").execute().await.ok(), Some(0));
        assert!(db.run("").await.expect("nothing to do").is_empty());

        let mut stream = db.run(some).bind(19i32).stream().await.expect("a stream");
        let pool = db.pool("main").expect("the pool");
        assert_eq!((stream.rows_affected(), pool.status().leased), (None, 1));
        let first = stream.next().await.expect("a first row").expect("a row");
        assert_eq!(first.get::<_, i32>(0), 1);
        let rest: Vec<Row> = stream.by_ref().try_collect().await.expect("the rest");
        assert_eq!((rest.len(), stream.rows_affected()), (18, Some(19)));
        assert!(stream.next().await.is_none(), "an ended stream stays ended");
        drop(stream);
        // A stream given up half-way costs the next caller nothing but a moment.
        let mut stream = db
            .run("SELECT generate_series(1, 1000000)")
            .stream()
            .await
            .expect("a stream");
        assert!(stream.next().await.is_some());
        drop(stream);
        assert_eq!(db.run("SELECT count(*) FROM t").scalar::<i64>().await.ok(), Some(19));
    });
}

#[test]
fn every_way_to_give_values() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        let insert = "INSERT INTO t (n, word) VALUES ($1, $2)";
        db.run(insert).bind(1i32).bind("owned").await.expect("bind");
        db.run(insert)
            .bind(2i32)
            .bind(String::from("owned"))
            .await
            .expect("bind");
        db.run(insert).bind(3i32).bind(None::<String>).await.expect("bind");
        let (n, word) = (4i32, String::from("borrowed"));
        db.run(insert).args(&[&n, &word]).await.expect("args");
        db.run(format!("{insert} RETURNING n"))
            .args(&[&5i32, &Some("borrowed")])
            .one()
            .await
            .expect("args");
        let all = "SELECT string_agg(coalesce(word, '-'), ' ' ORDER BY n) FROM t WHERE n = ANY ($1)";
        let words: String = db.run(all).bind(vec![1i32, 2, 3, 4, 5]).scalar().await.expect("words");
        assert_eq!(words, "owned owned - borrowed borrowed");
        let numbers = [1i32, 3];
        let words: String = db.run(all).args(&[&&numbers[..]]).scalar().await.expect("words");
        assert_eq!(words, "owned -");
        // One value may stand in several places, and nothing is done to it on its way.
        let odd = "'; DROP TABLE t; -- $1 %s \\ \u{1F418}";
        let echo: String = db.run("SELECT $1 || $1").bind(odd).scalar().await.expect("an echo");
        assert_eq!(echo, format!("{odd}{odd}"));
    });
}

#[test]
fn every_way_to_say_where() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        let role = "SELECT pg_is_in_recovery()";
        assert_eq!(
            db.run(role).scalar::<bool>().await.ok(),
            Some(false),
            "writes go to the primary"
        );
        assert_eq!(
            db.run(role).read().scalar::<bool>().await.ok(),
            Some(true),
            "reads go to the standby"
        );
        assert_eq!(
            db.run(role).read().on_pool("main").scalar::<bool>().await.ok(),
            Some(false)
        );
        assert_eq!(db.run(role).on_pool("replica").scalar::<bool>().await.ok(), Some(true));
        let error = db.run("DELETE FROM t").on_pool("replica").await.expect_err("a standby");
        assert_eq!(
            (said(&error), error.pool()),
            ((Some("25006"), Outcome::RolledBack), Some("replica"))
        );
        assert!(error.backend_pid().is_some());
    });
}

#[test]
fn every_way_to_say_until_when() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        let hour = Duration::from_secs(3_600);
        assert_eq!(db.run("SELECT 1").timeout(hour).scalar::<i32>().await.ok(), Some(1));
        let later = world.runtime.now() + hour;
        assert_eq!(
            db.run("SELECT 1").deadline(later).read().scalar::<i32>().await.ok(),
            Some(1)
        );
        // A deadline that has passed already: nothing is begun, however quick it would be.
        let write = "SELECT nextval('s')";
        db.run(write).await.expect("a number, and a plan");
        let passed = world.runtime.now();
        for _ in 0..20 {
            let error = db.run(write).deadline(passed).await.expect_err("it has passed");
            assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
            assert_eq!(
                (error.outcome(), error.phase()),
                (Outcome::NotExecuted, Phase::Checking)
            );
        }
        let cancel = Cancel::new();
        assert_eq!(
            db.run("SELECT 1").cancel_on(&cancel).scalar::<i32>().await.ok(),
            Some(1)
        );
        cancel.cancel();
        let error = db.run(write).cancel_on(&cancel).await.expect_err("it is cancelled");
        assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
        assert_eq!(
            (error.outcome(), error.phase()),
            (Outcome::NotExecuted, Phase::Checking)
        );
        assert_eq!(world.psql("SELECT last_value FROM s"), "1");
    });
}

/// The pool's own deadline holds where the call says nothing.
#[test]
fn the_pools_deadline() {
    let short = |config: gdbpool::PoolConfig| config.interaction_timeout(Some(Duration::from_millis(500)));
    on_each_server(short, async |world: World| {
        let error = world
            .db
            .run("SELECT pg_sleep(3600)")
            .read()
            .await
            .expect_err("it takes an hour");
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
        let order = world.db.run("SELECT pg_sleep(0.6)").timeout(Duration::from_secs(3_600));
        order.await.expect("its own deadline is later");
    });
}
