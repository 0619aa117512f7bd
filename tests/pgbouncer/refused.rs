//! What cannot work behind a transaction pooler is refused by name; `.read()` holds by the server's own check.

use std::sync::Arc;

use gdbpool::{BadInput, ErrorKind, InteractionPool, Outcome, PoolConfig};

use crate::runtimes::on_each;
use crate::stage::{Front, close, on_each_server};

#[test]
fn listen_is_refused_before_anything_is_sent() {
    on_each(|runtime| {
        Box::pin(async move {
            // Nobody is there: whatever was sent would fail otherwise.
            let config = PoolConfig::new("orders", "host=127.0.0.1 port=1 user=u").expect("a sound DSN");
            let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config.transaction_pooler());
            let db = builder.open().await.expect("sound settings");
            let refused = db
                .listen_on("news")
                .subscribe()
                .await
                .expect_err("a pooler voids LISTEN");
            assert!(matches!(refused.kind(), ErrorKind::ListenUnsupported), "{refused}");
            let why = std::error::Error::source(&refused).expect("a reason").to_string();
            assert!(
                refused.to_string().contains("\"orders\"") && why.contains("transaction_pooler"),
                "{refused}: {why}"
            );
            assert!(db.pool("orders").expect("a pool").last_connect_error().is_none());
            close(&db).await;
        })
    });
}

#[test]
fn what_a_pooler_cannot_keep_is_refused_when_the_pool_is_opened() {
    let dsn = "host=127.0.0.1 port=1 user=u";
    let config = |more: &str| {
        PoolConfig::new("main", &format!("{dsn}{more}"))
            .expect("a sound DSN")
            .transaction_pooler()
    };
    let configs = [
        (config("").on_connect_sql("SELECT 1"), "on_connect_sql"),
        (config("").setting("search_path", "a"), "search_path"),
        (config(" options='-c geqo=off'"), "options"),
    ];
    on_each(move |runtime| {
        let configs = configs.clone();
        Box::pin(async move {
            for (config, names) in configs {
                let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
                let refused = builder.open().await.expect_err("it cannot be kept").to_string();
                assert!(refused.contains(names), "{refused}");
            }
        })
    });
}

#[test]
fn a_read_cannot_write_and_a_session_cannot_be_changed() {
    on_each_server(
        Front::One,
        "CREATE TABLE t (n int); INSERT INTO t VALUES (1)",
        |world| async move {
            let db = world.open(world.config().transaction_pooler()).await;
            let writes = [
                "UPDATE t SET n = 2",
                "WITH x AS (UPDATE t SET n = 2 RETURNING n) SELECT * FROM x",
                "CREATE TABLE u ()",
                "DO $$ BEGIN UPDATE t SET n = 2; END $$",
            ];
            for sql in writes {
                let refused = db.run(sql).read().await.expect_err(sql);
                assert_eq!(
                    refused.sqlstate().map(|state| state.code()),
                    Some("25006"),
                    "{sql}: {refused}"
                );
                assert_eq!(refused.outcome(), Outcome::RolledBack, "{sql}");
                let refused = db.run(sql).read().batch().await.expect_err(sql);
                assert_eq!(
                    refused.sqlstate().map(|state| state.code()),
                    Some("25006"),
                    "{sql}: {refused}"
                );
                let refused = db
                    .transact(move |tx| async move { tx.batch(sql).await })
                    .read()
                    .await
                    .expect_err(sql);
                assert_eq!(
                    refused.sqlstate().map(|state| state.code()),
                    Some("25006"),
                    "{sql}: {refused}"
                );
            }
            let wrong = db
                .run("SELECT n FROM t WHERE n = $1")
                .args(&[&"one"])
                .read()
                .await
                .expect_err("a wrong type");
            assert!(
                matches!(wrong.kind(), ErrorKind::BadInput(BadInput::ParameterType { .. })),
                "{wrong}"
            );

            let lease = db.pool("main").expect("a pool").checkout().await.expect("a lease");
            for sql in [
                "SET search_path = a",
                "LISTEN x",
                "PREPARE p AS SELECT 1",
                "CREATE TEMP TABLE x (n int)",
                "CREATE TABLE pg_temp.x (n int)",
                "SELECT 1 AS n INTO LOCAL TEMP x",
                "EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1 AS n",
            ] {
                let refusals = [
                    db.run(sql).await.map(drop),
                    db.run(sql).batch().await.map(drop),
                    db.transact(move |tx| async move { tx.batch(sql).await }).await,
                    lease.batch(sql).await,
                    lease.query(sql, &[]).await.map(drop),
                ];
                for refused in refusals {
                    let refused = refused.expect_err(sql);
                    let named = matches!(refused.kind(), ErrorKind::BadInput(BadInput::SessionState { .. }));
                    assert!(named && refused.outcome() != Outcome::Unknown, "{sql}: {refused}");
                }
            }
            drop(lease);
            // A table may have the name all the same.
            db.run("CREATE TABLE temp (n int)").execute().await.expect("a table");
            db.run("INSERT INTO temp VALUES (1)").execute().await.expect("a row");
            assert_eq!(world.other("SELECT n FROM t"), "1");
            close(&db).await;
        },
    );
}

#[test]
fn what_runs_in_no_transaction_block_runs_by_itself() {
    on_each_server(Front::One, "CREATE TABLE t (n int)", |world| async move {
        let db = world.open(world.config().transaction_pooler()).await;
        for sql in [
            "VACUUM t",
            "CREATE INDEX CONCURRENTLY i ON t (n)",
            "DROP INDEX CONCURRENTLY i",
        ] {
            db.run(sql).execute().await.expect(sql);
        }
        for sql in ["VACUUM t", "CREATE INDEX CONCURRENTLY i ON t (n)"] {
            db.run(sql).batch().await.expect(sql);
        }
        let refused = db.run("VACUUM t").read().await.expect_err("it is in a block");
        assert_eq!(refused.sqlstate().map(|state| state.code()), Some("25001"), "{refused}");
        close(&db).await;
    });
}
