//! Bad input that only a real server can tell: found after it parsed the statement, and before it executed anything; and
//! answers that are not what the caller asked for.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::BytesMut;
use gdbpool::types::{IsNull, ToSql, Type, to_sql_checked};
use gdbpool::{BadInput, Error, ErrorKind, InteractionPool, Outcome, Phase, PoolConfig, Runtime};

use super::told;
use crate::runtimes::{on_each, until};
use crate::support::{Server, fresh_database, shared_cluster};

const INSERT: &str = "INSERT INTO t (n, word) VALUES ($1, $2)";

/// Runs `body` on a pool of one session, on both servers and all runtimes. It must leave the table `t` as it is, with
/// one row, and the session in the pool.
fn on_each_server<F>(body: impl Fn(InteractionPool) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for server in [Server::V15, Server::V18] {
        let dsn = fresh_database(&shared_cluster(server).primary);
        on_each(|runtime| {
            let config = PoolConfig::new("main", &dsn)
                .expect("a sound DSN")
                .size(1)
                .ping_after(None);
            let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
            Box::pin(async move {
                let db = builder.open().await.expect("open");
                let pid = prepare_table(&db).await;
                body(db.clone()).await;
                assert_untouched(&*runtime, &db, pid).await;
            })
        });
    }
}

async fn prepare_table(db: &InteractionPool) -> i32 {
    db.run("DROP TABLE IF EXISTS t").await.expect("drop");
    db.run("CREATE TABLE t (n int, word text)").await.expect("create");
    db.run(INSERT).bind(1i32).bind("one").await.expect("insert");
    backend(db).await
}

async fn backend(db: &InteractionPool) -> i32 {
    db.run("SELECT pg_backend_pid()").scalar().await.expect("a process id")
}

async fn assert_untouched(runtime: &dyn Runtime, db: &InteractionPool, pid: i32) {
    let pool = db.pool("main").expect("the pool");
    until(runtime, "the session is back", || pool.status().idle == 1).await;
    let status = pool.status();
    assert_eq!((status.leased, status.waiting, status.size), (0, 0, 1), "{status}");
    assert_eq!(backend(db).await, pid, "the session was lost");
    let rows: i64 = db.run("SELECT count(*) FROM t").scalar().await.expect("a count");
    assert_eq!(rows, 1, "something was executed");
}

#[test]
fn a_number_of_values_that_the_statement_does_not_have() {
    on_each_server(async |db: InteractionPool| {
        for given in [0usize, 1, 3] {
            let order = (0..given).fold(db.run(INSERT), |order, _| order.bind(1i32));
            let error = order.await.expect_err("it has two placeholders");
            assert_eq!(told(&error), &BadInput::ParameterCount { placeholders: 2, given });
            let lease = db.pool("main").expect("the pool").checkout().await.expect("a session");
            let values = vec![&1i32 as &(dyn ToSql + Sync); given];
            let error = lease
                .execute(INSERT, &values)
                .await
                .expect_err("it has two placeholders");
            assert_eq!(told(&error), &BadInput::ParameterCount { placeholders: 2, given });
        }
    });
}

#[test]
fn values_of_a_type_that_the_placeholder_does_not_take() {
    on_each_server(async |db: InteractionPool| {
        let wrong = |position, given: &str, expected: &str| BadInput::ParameterType {
            position,
            given: given.into(),
            expected: expected.into(),
        };
        let error = db
            .run(INSERT)
            .bind(1i64)
            .bind("two")
            .await
            .expect_err("it takes an int4");
        assert_eq!(told(&error), &wrong(1, "i64", "int4"));
        let error = db.run(INSERT).args(&[&2i32, &2i32]).await.expect_err("it takes a text");
        assert_eq!(told(&error), &wrong(2, "i32", "text"));
        let error = db.run("SELECT n FROM t WHERE n = ANY ($1)").bind(3i32).read().await;
        assert_eq!(told(&error.expect_err("it takes an array")), &wrong(1, "i32", "_int4"));
        let lease = db.pool("main").expect("the pool").checkout().await.expect("a session");
        let error = lease
            .execute(INSERT, &[&"two", &"two"])
            .await
            .expect_err("it takes an int4");
        assert_eq!(told(&error), &wrong(1, "&str", "int4"));
    });
}

/// A value that fits its type but cannot be encoded, for a reason of its own.
#[derive(Debug)]
struct Stubborn(fn() -> Box<dyn StdError + Sync + Send>);

impl ToSql for Stubborn {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Err((self.0)())
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[test]
fn values_that_cannot_be_encoded() {
    on_each_server(async |db: InteractionPool| {
        let reasons: [fn() -> Box<dyn StdError + Sync + Send>; 2] =
            [|| "it will not".into(), || std::io::Error::other("it will not").into()];
        for reason in reasons {
            let order = db.run(INSERT).bind(2i32).bind(Stubborn(reason));
            let error = order.await.expect_err("it cannot be encoded");
            let expected = BadInput::ParameterValue {
                position: 2,
                expected: "text".into(),
            };
            assert_eq!(told(&error), &expected);
            let cause = error.source().and_then(StdError::source).map(ToString::to_string);
            assert_eq!(cause.as_deref(), Some("it will not"), "{error:?}");
        }
    });
}

#[test]
fn several_statements_in_one_text() {
    on_each_server(async |db: InteractionPool| {
        for sql in [
            "INSERT INTO t VALUES (2, 'two'); INSERT INTO t VALUES (3, 'three')",
            "DELETE FROM t; SELECT 1",
            "BEGIN; DELETE FROM t; COMMIT;",
        ] {
            for error in [
                db.run(sql).await.expect_err("several"),
                db.run(sql).execute().await.expect_err("several"),
                db.run(sql).read().stream().await.map(drop).expect_err("several"),
            ] {
                assert_eq!(told(&error), &BadInput::SeveralStatements);
                assert!(error.to_string().contains("several statements"), "{error}");
            }
        }
        // One statement with semicolons in it is one statement.
        let one: String = db
            .run("SELECT ';' || $$;$$ /* ; */ ; -- ;")
            .scalar()
            .await
            .expect("one statement");
        assert_eq!(one, ";;");
    });
}

#[test]
fn a_nul_in_a_statement_or_a_value() {
    on_each_server(async |db: InteractionPool| {
        let error = db.run("DELETE FROM t --\0").await.expect_err("it has a NUL");
        assert_eq!(told(&error), &BadInput::NulInText { at: 16 });
        let lease = db.pool("main").expect("the pool").checkout().await.expect("a session");
        let error = lease.batch("DELETE FROM t --\0").await.expect_err("it has a NUL");
        assert_eq!(told(&error), &BadInput::NulInText { at: 16 });
        drop(lease);
        // A value with a NUL is for the server to refuse: other types than text take it.
        let error = db.run(INSERT).bind(2i32).bind("a\0b").await.expect_err("it has a NUL");
        assert_eq!(state(&error), (Some("22021"), Outcome::RolledBack));
    });
}

fn state(error: &Error) -> (Option<&str>, Outcome) {
    (error.sqlstate().map(|state| state.code()), error.outcome())
}

/// The statement has run by then, and the outcome says so.
#[test]
fn another_number_of_rows_than_asked_for() {
    on_each_server(async |db: InteractionPool| {
        let counts = [
            (
                db.run("SELECT n FROM t WHERE n = 9").one().await.map(drop),
                "one row",
                0,
            ),
            (
                db.run("SELECT 1 FROM generate_series(1, 5)").one().await.map(drop),
                "one row",
                2,
            ),
            (
                db.run("SELECT 1 FROM generate_series(1, 5)").opt().await.map(drop),
                "one row or none",
                2,
            ),
            (
                db.run("SELECT 1 WHERE false").scalar::<i32>().await.map(drop),
                "one row",
                0,
            ),
            (db.run("UPDATE t SET word = 'eins'").one().await.map(drop), "one row", 0),
        ];
        for (result, expected, number) in counts {
            let error = result.expect_err("another number");
            match error.kind() {
                ErrorKind::RowCount { wanted, got } => assert_eq!((*wanted, *got), (expected, number)),
                other => panic!("{other:?}"),
            }
            assert_eq!((error.outcome(), error.phase()), (Outcome::Committed, Phase::Reading));
            assert!(error.to_string().contains(expected) && !error.is_retryable(), "{error}");
        }
        let word: String = db.run("SELECT word FROM t").scalar().await.expect("a word");
        assert_eq!(word, "eins", "what was said to be committed is");
        assert!(db.run("SELECT 1 WHERE false").opt().await.expect("none").is_none());
    });
}

#[test]
fn a_scalar_of_another_type() {
    on_each_server(async |db: InteractionPool| {
        let results = [
            db.run("SELECT word FROM t").scalar::<i32>().await.map(drop),
            db.run("SELECT NULL::int").scalar::<i32>().await.map(drop),
            db.run("SELECT").scalar::<i32>().await.map(drop),
            db.run("UPDATE t SET word = 'uno' RETURNING word")
                .scalar::<i64>()
                .await
                .map(drop),
        ];
        for result in results {
            let error = result.expect_err("it cannot be read so");
            assert!(matches!(error.kind(), ErrorKind::Decode), "{error:?}");
            assert_eq!((error.outcome(), error.phase()), (Outcome::Committed, Phase::Reading));
            assert!(error.source().is_some(), "{error:?}");
        }
        assert_eq!(
            db.run("SELECT NULL::int").scalar::<Option<i32>>().await.ok(),
            Some(None)
        );
    });
}
