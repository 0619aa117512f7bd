//! Promise: rows are read into tuples and into types of one's own; a column that does not fit is named, with both types,
//! before anything is executed.

#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::error::Error as StdError;

use gdbpool::{BadInput, Column, ErrorKind, FromRow, Outcome, Row};

use crate::one_database::{World, on_each_server};

const SET_UP: &str = "CREATE TABLE t (n int, word text); INSERT INTO t VALUES (1, 'one'), (2, NULL); CREATE SEQUENCE s";

#[derive(Debug, PartialEq)]
struct Pair {
    n: i32,
    word: Option<String>,
}

impl FromRow for Pair {
    fn check(columns: &[Column]) -> Result<(), BadInput> {
        match columns.iter().any(|column| column.name() == "n") {
            true => Ok(()),
            false => Err(BadInput::ColumnCount {
                wanted: 2,
                given: columns.len(),
            }),
        }
    }

    fn from_row(row: &Row) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let word = row.try_get("word")?;
        Ok(Self {
            n: row.try_get("n")?,
            word,
        })
    }
}

#[test]
fn rows_become_tuples_and_types() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let pairs = db
            .run("SELECT n, word FROM t ORDER BY n")
            .read()
            .typed::<(i32, Option<String>)>()
            .await;
        assert_eq!(pairs.expect("rows"), [(1, Some("one".into())), (2, None)]);
        let numbers = db
            .run("SELECT n FROM t WHERE n > $1")
            .bind(0i32)
            .typed::<(i32,)>()
            .await;
        assert_eq!(numbers.expect("rows").len(), 2);
        let none = db
            .run("SELECT n, word FROM t WHERE false")
            .typed::<(i32, String)>()
            .await;
        assert_eq!(none.expect("no rows"), []);
        type Twelve = (i32, i64, i16, bool, String, f32, f64, i32, i32, i32, i32, Vec<i32>);
        let sql = "SELECT 1, 2::int8, 3::int2, true, 'x', 1.5::float4, 2.5::float8, 8, 9, 10, 11, ARRAY[12]";
        let rows = db.run(sql).typed::<Twelve>().await.expect("a row");
        assert_eq!(rows, [(1, 2, 3, true, "x".into(), 1.5, 2.5, 8, 9, 10, 11, vec![12])]);
        let pairs = db
            .run("SELECT word, n FROM t ORDER BY n DESC")
            .typed::<Pair>()
            .await
            .expect("rows");
        let word = Some("one".into());
        assert_eq!(pairs, [Pair { n: 2, word: None }, Pair { n: 1, word }]);
        let inserted = db
            .run("INSERT INTO t VALUES (3, 'x') RETURNING n")
            .typed::<(i32,)>()
            .await;
        assert_eq!(inserted.expect("a row"), [(3,)]);
    });
}

#[test]
fn a_column_that_does_not_fit_is_named_and_nothing_runs() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        // Twice: the second time the statement comes from the session's cache.
        for _ in 0..2 {
            let run = db
                .run("SELECT nextval('s') AS number, word FROM t")
                .typed::<(i64, i32)>();
            let error = run.await.expect_err("a text is no number");
            assert_eq!(error.outcome(), Outcome::NotExecuted);
            let ErrorKind::BadInput(BadInput::ColumnType {
                position,
                name,
                given,
                wanted,
            }) = error.kind()
            else {
                panic!("{error:?}");
            };
            assert_eq!((*position, &**name, &**given, &**wanted), (2, "word", "text", "i32"));
            assert!(
                error
                    .to_string()
                    .contains("column 2 (\"word\") is PostgreSQL's text, which a Rust i32"),
                "{error}"
            );
            let error = db
                .run("SELECT nextval('s'), 1")
                .typed::<(i64,)>()
                .await
                .expect_err("two columns");
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::BadInput(BadInput::ColumnCount { wanted: 1, given: 2 })
                ),
                "{error:?}"
            );
            let error = db
                .run("INSERT INTO t VALUES (nextval('s'))")
                .typed::<(i64,)>()
                .await
                .expect_err("none");
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::BadInput(BadInput::ColumnCount { wanted: 1, given: 0 })
                ),
                "{error:?}"
            );
            let error = db
                .run("SELECT nextval('s')")
                .typed::<Pair>()
                .await
                .expect_err("no column n");
            assert!(
                matches!(error.kind(), ErrorKind::BadInput(BadInput::ColumnCount { .. })),
                "{error:?}"
            );
        }
        assert_eq!(world.psql("SELECT is_called FROM s"), "f", "nothing of it ran");
        let error = db
            .run("SELECT n, word FROM t ORDER BY n")
            .typed::<(i32, String)>()
            .await;
        let error = error.expect_err("a NULL");
        assert!(matches!(error.kind(), ErrorKind::Decode), "{error:?}");
        assert_eq!(error.outcome(), Outcome::Committed);
        let source = error.source().expect("a source").to_string();
        assert!(
            source.contains("column 2 (\"word\", PostgreSQL's text)") && source.contains("String"),
            "{source}"
        );
        let error = db
            .run("SELECT n FROM t")
            .typed::<Pair>()
            .await
            .expect_err("no column word");
        assert!(matches!(error.kind(), ErrorKind::Decode), "{error:?}");
    });
}

/// The check follows a table that changes under a cached plan.
#[test]
fn a_changed_table_is_checked_anew() {
    on_each_server(SET_UP, async |world: World| {
        let all = "SELECT * FROM t WHERE n = 1";
        let pairs = world.db.run(all).typed::<(i32, String)>().await.expect("rows");
        assert_eq!(pairs, [(1, "one".into())]);
        world.psql("ALTER TABLE t ALTER n TYPE bigint");
        let error = world
            .db
            .run(all)
            .typed::<(i32, String)>()
            .await
            .expect_err("bigint by now");
        let ErrorKind::BadInput(BadInput::ColumnType { position: 1, given, .. }) = error.kind() else {
            panic!("{error:?}");
        };
        assert_eq!(given, "int8");
        let pairs = world.db.run(all).typed::<(i64, String)>().await.expect("rows");
        assert_eq!(pairs, [(1, "one".into())]);
    });
}
