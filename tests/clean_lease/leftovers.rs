//! Everything that a borrower may leave in a session, in the open, hidden in a function, and by every way of running SQL.
//!
//! Each kind is first proved to be there, so that its absence for the next borrower means something.

use std::sync::Arc;

use futures::TryStreamExt;
use gdbpool::{BoxFuture, Error, Runtime};

use super::runtimes::on_each;
use super::stage::{SERVERS, Stage, database};

/// Names and statements; there is a function `leave_<name>()` for each.
pub(crate) const LEFTOVERS: &[(&str, &str)] = &[
    ("a_setting", "SET work_mem = '1MB'"),
    ("a_custom_setting", "SELECT set_config('app.who', 'mallory', false)"),
    ("a_search_path", "SELECT set_config('search_path', 'other', false)"),
    ("a_time_zone", "SET TIME ZONE 'Asia/Tokyo'"),
    ("an_encoding", "SET client_encoding TO LATIN1"),
    ("a_name", "SET application_name = 'mallory'"),
    ("other_strings", "SET standard_conforming_strings = off"),
    ("read_only", "SET default_transaction_read_only = on"),
    (
        "characteristics",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ),
    ("no_triggers", "SET session_replication_role = replica"),
    ("a_role", "SET ROLE guest"),
    ("an_authorization", "SET SESSION AUTHORIZATION guest"),
    ("a_temporary_table", "CREATE TEMP TABLE scratch (n int)"),
    (
        "a_shadowing_table",
        "CREATE TEMP TABLE marks AS SELECT 0::bigint AS mark",
    ),
    ("a_selected_table", "SELECT 1 AS n INTO TEMP scratch"),
    ("a_temporary_view", "CREATE TEMP VIEW glimpse AS SELECT 1"),
    ("a_listen", "LISTEN \"Some Channel\""),
    ("a_lock", "SELECT pg_advisory_lock(1), pg_advisory_lock(1)"),
    ("a_shared_lock", "SELECT pg_advisory_lock_shared(2, 3)"),
    (
        "a_cursor",
        "DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 3)",
    ),
    ("a_prepared", "PREPARE p (int) AS SELECT $1"),
    (
        "odd_prepared",
        "PREPARE \"a, \"\"b\" AS SELECT 1; PREPARE \"C\" AS SELECT 2; PREPARE ü AS SELECT 3",
    ),
    ("a_sequence", "SELECT nextval('public.numbers')"),
];

type Plant = for<'a> fn(&'a Stage, &'a str, &'a str) -> BoxFuture<'a, Result<(), Error>>;

/// Ways to run a statement or its function on a lease, and to see that it worked.
const BY_LEASE: &[(&str, Plant)] = &[
    ("a batch", |stage, _, sql| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.batch(sql).await?;
            assert!(stage.is_planted(&lease).await, "{sql} left nothing");
            Ok(())
        })
    }),
    ("a batch in a transaction", |stage, _, sql| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.batch(&format!("BEGIN; {sql}; COMMIT; BEGIN")).await?;
            assert!(stage.is_planted(&lease).await, "{sql} left nothing");
            Ok(())
        })
    }),
    ("a function", |stage, call, sql| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.query(call, &[]).await?;
            assert!(stage.is_planted(&lease).await, "{sql} left nothing");
            Ok(())
        })
    }),
    ("a function, rows as they come", |stage, call, sql| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.query_stream(call, &[]).await?.try_collect::<Vec<_>>().await?;
            assert!(stage.is_planted(&lease).await, "{sql} left nothing");
            Ok(())
        })
    }),
    ("the raw client", |stage, _, sql| {
        Box::pin(async move {
            let lease = stage.one.checkout().await?;
            lease.raw().batch_execute(sql).await.expect("a statement that works");
            assert!(stage.is_planted(&lease).await, "{sql} left nothing");
            Ok(())
        })
    }),
];

/// Ways to run it as an interaction: the session is gone when it has run.
const BY_RUN: &[(&str, Plant)] = &[
    ("run", |stage, call, _| {
        Box::pin(async move { stage.db.run(call).await.map(drop) })
    }),
    ("run, read only", |stage, call, _| {
        // Some of it the server refuses in this mode.
        Box::pin(async move {
            let _ = stage.db.run(call).read().await;
            Ok(())
        })
    }),
    ("run, counted", |stage, call, _| {
        Box::pin(async move { stage.db.run(call).execute().await.map(drop) })
    }),
    ("run, streamed", |stage, call, _| {
        Box::pin(async move {
            let rows = stage.db.run(call).stream().await?;
            rows.try_collect::<Vec<_>>().await.map(drop)
        })
    }),
    ("run, streamed and not read", |stage, call, _| {
        Box::pin(async move { stage.db.run(call).stream().await.map(drop) })
    }),
    ("run as it is", |stage, _, sql| {
        // More than one statement, or a cursor outside a transaction, is refused.
        Box::pin(async move {
            let _ = stage.db.run(sql).await;
            Ok(())
        })
    }),
];

async fn nothing_is_left(runtime: Arc<dyn Runtime>, dsn: String, ways: &'static [(&'static str, Plant)]) {
    let stage = Stage::open(&runtime, &dsn).await;
    for (name, sql) in LEFTOVERS {
        let call = format!("SELECT public.leave_{name}()");
        for (way, plant) in ways {
            let planted = plant(&stage, &call, sql).await;
            planted.unwrap_or_else(|error| panic!("{name} by {way}: {error:?}"));
            stage.is_clean(0, &format!("{name} by {way}")).await;
        }
    }
    let status = stage.one.status();
    assert_eq!(status.connects, 2, "nothing of this costs a session: {status}");
    stage.close().await;
}

#[test]
fn nothing_is_left_by_a_lease() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(nothing_is_left(runtime, database(server), BY_LEASE)));
    }
}

#[test]
fn nothing_is_left_by_a_single_statement() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(nothing_is_left(runtime, database(server), BY_RUN)));
    }
}

/// Ways to call a function in a single statement; `@f` stands for it.
const CALLS: &[&str] = &[
    "SELECT @f()",
    "SELECT @f ()",
    "SELECT @f/* ; */()",
    "SELECT public.@f()",
    "SELECT \"@f\"()",
    "SELECT U&\"@f\"()",
    "SELECT * FROM @f()",
    "SELECT 1 WHERE @f() > 0",
    "SELECT count(*) FILTER (WHERE @f() > 0)",
    "SELECT CASE WHEN true THEN @f() END",
    "SELECT coalesce(NULL, @f())",
    "SELECT n FROM generate_series(1, 2) AS n ORDER BY @f() + n",
    "SELECT (SELECT @f())",
    "(SELECT @f())",
    "VALUES (@f())",
    "WITH x AS (SELECT @f()) SELECT * FROM x",
    "WITH x AS (INSERT INTO marks SELECT 7 RETURNING @f()) SELECT * FROM x",
    "INSERT INTO marks SELECT @f()",
    "INSERT INTO \"marks\" SELECT @f()",
    "INSERT INTO public.marks SELECT @f()",
    "INSERT INTO public.\"marks\" SELECT @f()",
    "INSERT INTO marks (mark) SELECT @f()",
    "INSERT INTO marks (mark) VALUES (@f())",
    "INSERT INTO marks VALUES (@f())",
    "INSERT INTO marks DEFAULT VALUES RETURNING @f()",
    "INSERT INTO marks TABLE marks RETURNING @f()",
    "INSERT INTO marks AS m SELECT @f()",
    "INSERT INTO marks WITH x AS (SELECT @f()) SELECT * FROM x",
    "UPDATE marks SET mark = @f() WHERE mark = 8",
    "UPDATE marks SET mark = 8 WHERE mark = 8 RETURNING @f()",
    "DELETE FROM marks WHERE mark = @f() - 1000",
];

async fn no_call_goes_unseen(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    stage
        .db
        .run("INSERT INTO marks VALUES (8), (8)")
        .execute()
        .await
        .expect("rows");
    for call in CALLS {
        let sql = call.replace("@f", "leave_a_setting");
        let ran = stage.db.run(sql.as_str()).execute().await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        stage.is_clean(0, &sql).await;
    }
    stage.close().await;
}

#[test]
fn no_call_goes_unseen_wherever_it_stands() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(no_call_goes_unseen(runtime, database(server))));
    }
}
