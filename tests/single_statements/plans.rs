//! Prepared statements: made anew when the server says that one is of no use any more, and kept within their bounds.

use futures::TryStreamExt;
use gdbpool::{Outcome, Row};

use super::{World, on_each_server, said, same};

/// Statements of the session over the protocol, the one that asks among them.
const PREPARED: &str = "SELECT count(*) FROM pg_prepared_statements";

#[test]
fn plans_that_a_change_of_tables_made_stale_are_made_anew() {
    on_each_server(same, async |world: World| {
        let db = &world.db;
        let insert = "INSERT INTO t (n) SELECT nextval('s') RETURNING *";
        let select = "SELECT * FROM t ORDER BY n";
        for round in 1..=4usize {
            let written = db.run(insert).await.expect("a row");
            let read = db.run(select).read().on_pool("main").await.expect("rows");
            let streamed = db.run("SELECT * FROM t").stream().await.expect("a stream");
            let streamed: Vec<Row> = streamed.try_collect().await.expect("rows");
            let lease = db.pool("main").expect("the pool").checkout().await.expect("a session");
            let leased = lease.query("TABLE t", &[]).await.expect("rows");
            assert_eq!((leased.len(), leased[0].len()), (round, round + 1));
            let counted = lease.execute("SELECT * FROM t /* counted */", &[]).await;
            assert_eq!(counted.ok(), Some(round as u64));
            let rows = lease.query_stream("SELECT t.* FROM t", &[]).await.expect("a stream");
            assert_eq!(rows.try_collect::<Vec<Row>>().await.expect("rows").len(), round);
            drop(lease);
            assert_eq!(
                (written.len(), read.len(), streamed.len()),
                (1, round, round),
                "each was run once"
            );
            assert_eq!(written[0].len(), round + 1, "the new column is there");
            assert_eq!((read[0].len(), streamed[0].len()), (round + 1, round + 1));
            world.psql(&format!("ALTER TABLE t ADD COLUMN more{round} int DEFAULT {round}"));
        }
        world.psql("DROP TABLE t; CREATE TABLE t (other text)");
        assert!(db.run("SELECT * FROM t").await.expect("another table").is_empty());
        let status = db.pool("main").expect("the pool").status();
        assert_eq!(status.connects, 1, "a session was lost by it: {status}");
    });
}

#[test]
fn no_more_statements_than_allowed() {
    on_each_server(
        |config| config.statement_cache(32, 1 << 20).ping_after(None),
        async |world: World| {
            for n in 0..1_000 {
                let text = format!("SELECT {n} + $1");
                let sum: i32 = world
                    .db
                    .run(text)
                    .bind(1i32)
                    .on_pool("main")
                    .scalar()
                    .await
                    .expect("a sum");
                assert_eq!(sum, n + 1);
                if n % 20 == 19 {
                    assert!(prepared(&world).await <= 32);
                }
            }
            assert_eq!(prepared(&world).await, 32);
        },
    );
}

#[test]
fn no_more_bytes_of_text_than_allowed() {
    on_each_server(
        |config| config.statement_cache(256, 50_000),
        async |world: World| {
            for n in 0..30 {
                let text = format!("SELECT {n} /* {} */", "x".repeat(10_000));
                world.db.run(text).await.expect("a row");
                assert!(prepared(&world).await <= 5);
            }
            // Larger than the whole cache: it is run, and not kept.
            let text = format!("SELECT 1 /* {} */", "x".repeat(60_000));
            world.db.run(text).await.expect("a row");
            assert_eq!(prepared(&world).await, 5);
        },
    );
}

#[test]
fn a_cache_of_none() {
    on_each_server(
        |config| config.statement_cache(0, 0),
        async |world: World| {
            for n in 0..5 {
                world.db.run(format!("SELECT {n}")).await.expect("a row");
                assert_eq!(prepared(&world).await, 1);
            }
        },
    );
}

/// A plan of the statement's own can be stale, too, after a part of it was committed: that is not run again.
#[test]
fn a_stale_plan_inside_what_commits() {
    const TEXT: &str = "DO $$ BEGIN INSERT INTO t VALUES ((SELECT count(*) FROM t)); COMMIT;
        EXECUTE 'CREATE TABLE z (a int)'; EXECUTE 'PREPARE q AS SELECT * FROM z';
        EXECUTE 'ALTER TABLE z ADD COLUMN b int'; EXECUTE 'EXECUTE q'; END $$";
    on_each_server(same, async |world: World| {
        let error = world.db.run(TEXT).await.expect_err("a stale plan");
        assert_eq!(said(&error), (Some("40003"), Outcome::Unknown));
        assert_eq!(error.database().map(|report| report.code().code()), Some("0A000"));
        assert_eq!(world.psql("SELECT count(*) FROM t"), "1");
    });
}

async fn prepared(world: &World) -> i64 {
    world.db.run(PREPARED).scalar().await.expect("a count")
}
