//! Promise: a batch runs several statements and tells what each gave; its error says what became of it; a transaction it
//! leaves open is no success; a `.read()` batch cannot change rows; the next borrower finds nothing of it.

#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::time::Duration;

use gdbpool::{BadInput, ErrorKind, Outcome};

use crate::one_database::{World, on_each_server};

const SET_UP: &str = "CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE d (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";

fn bad(kind: &ErrorKind) -> &BadInput {
    match kind {
        ErrorKind::BadInput(input) => input,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_statement_has_its_result() {
    on_each_server(SET_UP, async |world: World| {
        let sql = "INSERT INTO t SELECT generate_series(1, 5); UPDATE t SET n = n + 10 WHERE n > 3; \
                   SELECT n, NULL AS nothing FROM t ORDER BY n LIMIT 2; CREATE TABLE u (); SELECT 1 WHERE false;";
        let results = world.db.run(sql).batch().await.expect("a batch");
        let affected: Vec<u64> = results.iter().map(|result| result.rows_affected()).collect();
        assert_eq!(affected, [5, 2, 2, 0, 0]);
        assert!(results[0].rows().is_empty() && results[0].columns().is_none());
        let columns: Vec<_> = results[2].columns().expect("columns").collect();
        assert_eq!(columns, ["n", "nothing"]);
        assert_eq!(
            (results[2].rows()[1].get(0), results[2].rows()[1].get(1)),
            (Some("2"), None)
        );
        assert!(results[4].columns().is_some() && results[4].rows().is_empty());
        let empty = world.db.run("").batch().await.expect("nothing to do");
        assert!(empty.iter().all(|result| result.rows().is_empty()), "{empty:?}");
    });
}

#[test]
fn its_outcome_is_told() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        for (sql, state, outcome) in [
            ("INSERT INTO t VALUES (1); SELECT 1 / 0", "22012", Outcome::RolledBack),
            (
                "BEGIN; INSERT INTO t VALUES (1); SELECT 1 / 0",
                "22012",
                Outcome::RolledBack,
            ),
            (
                "BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1 / 0",
                "40003",
                Outcome::Unknown,
            ),
            ("INSERT INTO d VALUES (1), (1)", "23505", Outcome::RolledBack),
            ("SELECT 1; SELEC 2", "42601", Outcome::RolledBack),
        ] {
            let error = db.run(sql).batch().await.expect_err(sql);
            assert!(matches!(error.kind(), ErrorKind::Database), "{error:?}");
            let said = (error.sqlstate().map(|state| state.code()), error.outcome());
            assert_eq!(said, (Some(state), outcome), "{sql}");
        }
        assert_eq!(
            world.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM d)"),
            "1|0"
        );
        db.run("BEGIN; INSERT INTO t VALUES (2); COMMIT")
            .batch()
            .await
            .expect("committed");
        for (sql, outcome) in [
            ("BEGIN; INSERT INTO t VALUES (3)", Outcome::RolledBack),
            (
                "BEGIN; INSERT INTO t VALUES (4); COMMIT; BEGIN; INSERT INTO t VALUES (5)",
                Outcome::Unknown,
            ),
        ] {
            let error = db.run(sql).batch().await.expect_err("it was left open");
            assert!(matches!(error.kind(), ErrorKind::LeftOpen), "{error:?}");
            assert_eq!(error.outcome(), outcome);
        }
        let there = db
            .run("SELECT array_agg(n ORDER BY n) FROM t")
            .scalar::<Vec<i32>>()
            .await;
        assert_eq!(there.ok(), Some(vec![1, 2, 4]));
    });
}

#[test]
fn what_it_leaves_behind_is_cleaned_up() {
    on_each_server(SET_UP, async |world: World| {
        world.db.pool("main").expect("there").resize(1, 1).expect("one session");
        let dirt = "SET work_mem = '1MB'; CREATE TEMP TABLE scratch (n int); SELECT pg_advisory_lock(1); PREPARE p AS SELECT 1";
        for read in [false, true] {
            let run = world.db.run(if read {
                "SET work_mem = '1MB'; PREPARE p AS SELECT 1"
            } else {
                dirt
            });
            let run = if read { run.read() } else { run };
            run.batch().await.expect("a batch");
            let look = "SELECT current_setting('work_mem') <> '1MB' AND to_regclass('pg_temp.scratch') IS NULL \
                        AND NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory') \
                        AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql)";
            assert_eq!(
                world.db.run(look).scalar::<bool>().await.ok(),
                Some(true),
                "read: {read}"
            );
        }
    });
}

#[test]
fn a_read_batch_cannot_change_rows() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let results = db
            .run("SELECT 1; SET LOCAL work_mem = '1MB'; SELECT 2")
            .read()
            .batch()
            .await
            .expect("reads");
        let seen: Vec<_> = results
            .iter()
            .flat_map(|result| result.rows())
            .map(|row| row.get(0))
            .collect();
        assert_eq!((results.len(), seen), (3, vec![Some("1"), Some("2")]));
        for insert in [
            "INSERT INTO t VALUES (1)",
            "SELECT 1; INSERT INTO t VALUES (1)",
            "DO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; END $$",
            "SAVEPOINT a; SELECT 1; ROLLBACK TO a; INSERT INTO t VALUES (1)",
        ] {
            let error = db.run(insert).read().batch().await.expect_err(insert);
            let said = (error.sqlstate().map(|state| state.code()), error.outcome());
            assert_eq!(said, (Some("25006"), Outcome::RolledBack), "{insert}");
        }
        let change = "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END $$";
        let error = db.run(change).read().batch().await.expect_err(change);
        assert_eq!(error.outcome(), Outcome::RolledBack, "{error:?}");
        for change in [
            "SET transaction_read_only = off; INSERT INTO t VALUES (1)",
            "RESET \"transaction_read_only\"; INSERT INTO t VALUES (1)",
            "SET LOCAL TRANSACTION_READ_ONLY TO DEFAULT; INSERT INTO t VALUES (1)",
            "SELECT set_config('transaction_read_only', NULL, true); INSERT INTO t VALUES (1)",
            "SET default_transaction_read_only = off; INSERT INTO t VALUES (1)",
        ] {
            let error = db.run(change).read().batch().await.expect_err(change);
            let words = "transaction_read_only".into();
            assert_eq!(bad(error.kind()), &BadInput::TransactionControl { words });
        }
        for (sql, words) in [
            ("COMMIT; INSERT INTO t VALUES (1)", "COMMIT"),
            ("SELECT 1; rollback; INSERT INTO t VALUES (1)", "ROLLBACK"),
            (
                "SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
                "SET TRANSACTION",
            ),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET SESSION"),
            ("BEGIN", "BEGIN"),
        ] {
            let error = db.run(sql).read().batch().await.expect_err(sql);
            assert_eq!(bad(error.kind()), &BadInput::TransactionControl { words: words.into() });
        }
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
    });
}

#[test]
fn values_and_batches_do_not_mix() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        for run in [
            db.run("SELECT $1; SELECT 1").bind(1i32),
            db.run("SELECT $1; SELECT 1").args(&[&1i32]),
            db.run("SELECT :n; SELECT 1").bind_named("n", 1i32),
        ] {
            let error = run.batch().await.expect_err("values");
            assert_eq!(bad(error.kind()), &BadInput::BatchParameters);
        }
        let error = db.run("SELECT 1; SELECT 2").await.expect_err("two statements");
        assert_eq!(bad(error.kind()), &BadInput::SeveralStatements);
        assert!(error.to_string().contains(".batch()"), "{error}");
    });
}

#[test]
fn a_batch_that_takes_too_long_is_stopped() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let write = db.run("INSERT INTO t VALUES (1); SELECT pg_sleep(3600)");
        let error = write
            .timeout(Duration::from_millis(300))
            .batch()
            .await
            .expect_err("an hour");
        assert!(matches!(error.kind(), ErrorKind::Timeout), "{error:?}");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let cancel = gdbpool::Cancel::new();
        let run = db
            .run("SELECT 1; SELECT pg_sleep(3600)")
            .read()
            .cancel_on(&cancel)
            .batch();
        let canceller = async {
            world.running("pg_sleep").await;
            cancel.cancel();
        };
        let (done, ()) = futures::join!(run.into_future(), canceller);
        let error = done.expect_err("cancelled");
        assert!(matches!(error.kind(), ErrorKind::Cancelled), "{error:?}");
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
    });
}
