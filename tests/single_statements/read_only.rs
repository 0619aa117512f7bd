//! A `.read()` cannot change rows, by the server's check, wherever it runs and whatever ran on the session before.

use gdbpool::Outcome;

use super::{World, on_each_server, said, same};

/// What the server refuses in a read, before and in between anything else.
const WRITES: [&str; 22] = [
    "INSERT INTO t VALUES (2)",
    "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
    "UPDATE t SET word = 'x'",
    "DELETE FROM t",
    "MERGE INTO t USING (SELECT 1 AS n) x ON t.n = x.n WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "WITH gone AS (DELETE FROM t RETURNING n) SELECT * FROM gone",
    "SELECT nextval('s')",
    "SELECT setval('s', 10)",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR NO KEY UPDATE",
    "SELECT * FROM t FOR SHARE",
    "SELECT * FROM t FOR KEY SHARE",
    "SELECT writes()",
    "SELECT n FROM t WHERE n = writes()",
    "SELECT * INTO copy FROM t",
    "CREATE TABLE copy AS SELECT * FROM t",
    "CREATE TEMP TABLE scratch (n int)",
    "DROP TABLE t",
    "EXPLAIN ANALYZE DELETE FROM t",
    "CALL write_by_procedure()",
    "DO $$ BEGIN DELETE FROM t; END $$",
];

const FUNCTIONS: &str = "INSERT INTO t VALUES (1, 'one');
    CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS
        $$ INSERT INTO t SELECT max(n) + 1 FROM t RETURNING n $$;
    CREATE PROCEDURE write_by_procedure() LANGUAGE sql AS $$ DELETE FROM t $$;
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS
        $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; DELETE FROM t; END $$;
    CREATE PROCEDURE commits_later() LANGUAGE plpgsql AS
        $$ BEGIN SET default_transaction_read_only = off; COMMIT; DELETE FROM t; END $$;
    CREATE PROCEDURE answers(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
    CREATE FUNCTION tries_hard() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); RETURN writes(); END $$;";

async fn assert_unchanged(world: &World, after: &str) {
    assert_eq!(world.psql("SELECT n, word FROM t"), "1|one", "{after}");
    assert_eq!(world.psql("SELECT last_value, is_called FROM s"), "1|f", "{after}");
}

#[test]
fn the_server_refuses_what_changes_rows() {
    on_each_server(same, async |world: World| {
        world.psql(FUNCTIONS);
        for sql in WRITES {
            let error = world.db.run(sql).read().on_pool("main").await.expect_err(sql);
            assert_eq!(said(&error).0, Some("25006"), "{sql}: {error:?}");
            assert_ne!(error.outcome(), Outcome::Unknown, "{sql}");
            let result = world.db.run(sql).read().on_pool("main").stream().await;
            if let Ok(mut rows) = result {
                let row = futures::StreamExt::next(&mut rows).await.expect("an error");
                assert_eq!(said(&row.expect_err(sql)).0, Some("25006"), "{sql}");
            }
        }
        assert_unchanged(&world, "all writes").await;
        // On the standby, where reads go by default, it cannot be otherwise.
        world.pair.standby.catch_up(&world.pair.primary);
        let error = world.db.run("DELETE FROM t").read().await.expect_err("a standby");
        assert_eq!(said(&error).0, Some("25006"), "{error:?}");
        assert_eq!(
            world.db.pool("main").expect("the pool").status().connects,
            1,
            "one session did it all"
        );
    });
}

#[test]
fn a_write_that_follows_a_read_on_its_session_works() {
    on_each_server(same, async |world: World| {
        world.psql(FUNCTIONS);
        for round in 2..=101 {
            let order = world.db.run("SELECT max(n) FROM t").read().on_pool("main");
            let read: i32 = order.scalar().await.expect("a read");
            let wrote: i32 = world.db.run("SELECT writes()").scalar().await.expect("a write");
            assert_eq!((read, wrote), (round - 1, round));
            let error = world
                .db
                .run("SELECT writes()")
                .read()
                .on_pool("main")
                .await
                .expect_err("a read");
            assert_eq!(said(&error), (Some("25006"), Outcome::RolledBack));
        }
        // A lease is in the template's mode, too.
        world.db.run("SELECT 1").read().on_pool("main").await.expect("a read");
        let lease = world
            .db
            .pool("main")
            .expect("the pool")
            .checkout()
            .await
            .expect("a session");
        lease.execute("INSERT INTO t VALUES (500)", &[]).await.expect("a write");
        drop(lease);
        let mode = "SELECT current_setting('transaction_read_only')";
        let read: String = world
            .db
            .run(mode)
            .read()
            .on_pool("main")
            .scalar()
            .await
            .expect("a mode");
        let write: String = world.db.run(mode).scalar().await.expect("a mode");
        assert_eq!((&*read, &*write), ("on", "off"));
        assert_eq!(
            world.db.pool("main").expect("the pool").status().connects,
            1,
            "one session did it all"
        );
    });
}

/// Whatever a read does to its own mode, it does not write, and the next one cannot write either.
#[test]
fn a_read_that_tries_to_leave_its_mode() {
    const ATTEMPTS: [&str; 10] = [
        "SET default_transaction_read_only = off",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "RESET ALL",
        "DISCARD ALL",
        "BEGIN READ WRITE",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT tries_hard()",
    ];
    on_each_server(same, async |world: World| {
        world.psql(FUNCTIONS);
        for attempt in ATTEMPTS {
            // Some are refused; what counts is what is possible afterwards.
            let _ = world.db.run(attempt).read().on_pool("main").await;
            let error = world
                .db
                .run("DELETE FROM t")
                .read()
                .on_pool("main")
                .await
                .expect_err(attempt);
            assert_eq!(said(&error).0, Some("25006"), "{attempt}: {error:?}");
            let together = format!("WITH mode AS MATERIALIZED ({}) SELECT writes() FROM mode", attempt);
            if attempt.starts_with("SELECT") {
                let error = world.db.run(together).read().on_pool("main").await.expect_err(attempt);
                assert!(
                    matches!(said(&error).0, Some("25006" | "25001")),
                    "{attempt}: {error:?}"
                );
            }
            assert_unchanged(&world, attempt).await;
        }
        let error = world
            .db
            .run("SELECT tries_hard()")
            .read()
            .on_pool("main")
            .await
            .expect_err("a read");
        assert_eq!(said(&error).0, Some("25001"), "the mode is fixed by then");
        assert_unchanged(&world, "tries_hard").await;
    });
}

/// A procedure can commit, and begin again in a mode of its own; in a read it cannot.
#[test]
fn a_read_that_commits_on_its_way() {
    const ATTEMPTS: [&str; 6] = [
        "CALL commits()",
        "; CALL commits()",
        "-- a comment that ends here\rCALL commits()",
        "CALL commits_later()",
        "/* a comment */ DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; DELETE FROM t; END $$",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; DELETE FROM t; END $$",
    ];
    on_each_server(same, async |world: World| {
        world.psql(FUNCTIONS);
        for attempt in ATTEMPTS {
            let error = world.db.run(attempt).read().on_pool("main").await.expect_err(attempt);
            assert!(
                matches!(said(&error).0, Some("2D000" | "25001")),
                "{attempt}: {error:?}"
            );
            let result = world.db.run(attempt).read().on_pool("main").stream().await;
            if let Ok(mut rows) = result {
                let row = futures::StreamExt::next(&mut rows).await.expect("an error");
                assert!(
                    matches!(said(&row.expect_err(attempt)).0, Some("2D000" | "25001")),
                    "{attempt}"
                );
            }
            assert_unchanged(&world, attempt).await;
        }
        for n in 1..20i32 {
            let answer: i32 = world
                .db
                .run("CALL answers($1)")
                .bind(n)
                .read()
                .on_pool("main")
                .scalar()
                .await
                .expect("n");
            assert_eq!(answer, n + 1, "a procedure that only reads answers");
        }
        // A write may, and may commit as it likes.
        world.db.run("CALL commits()").await.expect("a write");
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
        assert_eq!(
            world.db.pool("main").expect("the pool").status().connects,
            1,
            "one session did it all"
        );
    });
}
