//! The statement cache and the template survive what borrowers do to them.
//!
//! On real servers: DEALLOCATE ALL in the open and hidden, caches that keep nothing, a role in the template.

use std::sync::Arc;

use gdbpool::{BoxFuture, CloseReason, Error, Runtime};

use super::runtimes::on_each;
use super::stage::{SERVERS, Stage, config, database};

type Losing = for<'a> fn(&'a Stage) -> BoxFuture<'a, Result<(), Error>>;

const DEALLOCATE: &str = "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$";

/// Ways to lose the server's prepared statements.
const LOSSES: &[(&str, Losing)] = &[
    ("DEALLOCATE ALL in a batch", |stage| {
        Box::pin(async move { stage.one.checkout().await?.batch("DEALLOCATE ALL").await })
    }),
    ("DISCARD ALL in a batch", |stage| {
        Box::pin(async move { stage.one.checkout().await?.batch("DISCARD ALL").await })
    }),
    ("DISCARD ALL as a statement", |stage| {
        Box::pin(async move { stage.one.checkout().await?.execute("DISCARD ALL", &[]).await.map(drop) })
    }),
    ("DEALLOCATE ALL as a statement", |stage| {
        Box::pin(async move {
            stage
                .one
                .checkout()
                .await?
                .execute("deallocate prepare all", &[])
                .await
                .map(drop)
        })
    }),
    ("DEALLOCATE ALL as an interaction", |stage| {
        Box::pin(async move { stage.db.run("DEALLOCATE ALL").await.map(drop) })
    }),
    ("DISCARD ALL as an interaction", |stage| {
        Box::pin(async move { stage.db.run("DISCARD ALL").execute().await.map(drop) })
    }),
    ("DISCARD ALL by the raw client", |stage| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease
                .raw()
                .batch_execute("DISCARD ALL")
                .await
                .expect("a statement that works");
            Ok(())
        })
    }),
    ("a hidden DEALLOCATE ALL", |stage| {
        Box::pin(async move { stage.one.checkout().await?.batch(DEALLOCATE).await })
    }),
    ("a hidden DEALLOCATE ALL as an interaction", |stage| {
        Box::pin(async move { stage.db.run(DEALLOCATE).await.map(drop) })
    }),
    ("a hidden DEALLOCATE ALL, and new statements", |stage| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.batch(DEALLOCATE).await?;
            lease.query("SELECT 2", &[]).await?;
            lease.query("SELECT 3", &[]).await.map(drop)
        })
    }),
    ("a hidden DEALLOCATE ALL, and a type to look up", |stage| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.batch(DEALLOCATE).await?;
            lease.query("SELECT mood FROM moods", &[]).await.map(drop)
        })
    }),
    ("a hidden DEALLOCATE ALL, and raw statements", |stage| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.batch(DEALLOCATE).await?;
            for n in 0..5 {
                // Kept for good.
                std::mem::forget(lease.raw().prepare(&format!("SELECT {n}")).await.expect("a statement"));
            }
            Ok(())
        })
    }),
];

async fn lost_statements(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    for (name, lose) in LOSSES {
        // A session whose cache has statements, and none of tokio-postgres's own.
        stage.without_session().await;
        let warm = async {
            let lease = stage.one.checkout().await?;
            lease.query("SELECT count(*) FROM marks", &[]).await?;
            lease.query("SELECT 1", &[]).await.map(drop)
        };
        warm.await.expect("statements in the cache");
        lose(&stage).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let next = async {
            let lease = stage.one.checkout().await?;
            lease.query("SELECT 1", &[]).await?;
            lease.query("SELECT count(*) FROM marks", &[]).await?;
            lease.query("SELECT mood FROM moods", &[]).await.map(drop)
        };
        next.await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        stage.is_clean(0, name).await;
        stage
            .db
            .run("SELECT count(*) FROM marks")
            .await
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    stage.close().await;
}

#[test]
fn lost_statements_do_not_reach_the_next_borrower() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(lost_statements(runtime, database(server))));
    }
}

async fn small_caches(runtime: Arc<dyn Runtime>, dsn: String, entries: usize, bytes: usize) {
    let stage = Stage::open_with(&runtime, config(&dsn).statement_cache(entries, bytes), &dsn).await;
    for round in 0..20 {
        let lease = stage.one.checkout().await.expect("a session");
        for n in 0..round % 4 {
            lease.query(&format!("SELECT {n}"), &[]).await.expect("a query");
        }
        if round % 2 == 0 {
            lease.prepare("SELECT count(*) FROM marks").await.expect("a statement");
        }
        drop(lease);
        stage.db.run("SELECT 5").await.expect("an interaction");
        stage.db.run("SELECT 6").read().await.expect("an interaction");
        stage
            .is_clean(0, &format!("a cache of {entries} entries and {bytes} bytes"))
            .await;
    }
    let status = stage.one.status();
    assert_eq!(
        status.closes(CloseReason::Unsettled),
        0,
        "{entries} entries, {bytes} bytes: {status}"
    );
    assert_eq!(status.connects, 2, "{entries} entries, {bytes} bytes: {status}");
    stage.close().await;
}

#[test]
fn small_caches_cost_no_sessions() {
    for server in SERVERS {
        for (entries, bytes) in [(0, 0), (1, 1 << 20), (2, 20), (256, 12)] {
            on_each(|runtime| Box::pin(small_caches(runtime, database(server), entries, bytes)));
        }
    }
}

async fn template_with_a_role(runtime: Arc<dyn Runtime>, dsn: String) {
    let config = config(&dsn)
        .setting("role", "guest")
        .setting("default_transaction_isolation", "serializable");
    let stage = Stage::open_with(&runtime, config, &dsn).await;
    for sql in [
        "RESET ROLE",
        "SET ROLE NONE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "RESET SESSION AUTHORIZATION",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "RESET default_transaction_isolation",
        "RESET ALL",
        "BEGIN; RESET ROLE",
        "SELECT 1",
    ] {
        let lease = stage.one.checkout().await.expect("a session");
        lease
            .batch(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(lease);
        stage.is_clean(0, sql).await;
        let _ = stage.db.run(sql).await;
        stage.is_clean(0, sql).await;
    }
    stage.close().await;
}

#[test]
fn a_role_of_the_template_comes_back() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(template_with_a_role(runtime, database(server))));
    }
}

async fn read_only_template(runtime: Arc<dyn Runtime>, dsn: String) {
    let config = config(&dsn).setting("default_transaction_read_only", "on");
    let stage = Stage::open_with(&runtime, config, &dsn).await;
    for _ in 0..3 {
        let refused = stage
            .db
            .run("INSERT INTO marks VALUES (1)")
            .execute()
            .await
            .expect_err("read only");
        assert_eq!(refused.sqlstate().map(|state| state.code()), Some("25006"));
        stage.db.run("SELECT 1").read().await.expect("a read");
        let lease = stage.one.checkout().await.expect("a session");
        lease
            .batch("SET default_transaction_read_only = off")
            .await
            .expect("a setting");
        lease.batch("INSERT INTO marks VALUES (2)").await.expect("a write");
        lease
            .execute("INSERT INTO marks VALUES (2)", &[])
            .await
            .expect("the borrower's own setting holds");
        drop(lease);
        stage.is_clean(1, "a template that only reads").await;
    }
    stage.close().await;
}

#[test]
fn a_template_that_only_reads_comes_back() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(read_only_template(runtime, database(server))));
    }
}
