//! Sessions: transactions, settings, cursors, prepared statements, channels, what a pool sends.

use super::super::*;
use super::support::{Node, Outcome, shown};
use crate::wire::Report;

#[test]
fn a_failed_transaction_takes_only_its_end() {
    let mut node = Node::new();
    node.done(1, "CREATE TABLE t (n int)");
    node.done(
        1,
        "BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2)",
    );
    node.error(1, "SELECT 1/0");
    assert_eq!(node.engine.status(1), b'E');
    let refused = "25P02 current transaction is aborted, commands ignored until end of transaction block";
    assert_eq!(node.error(1, "SELECT 1"), refused);
    node.done(1, "ROLLBACK TO a");
    assert_eq!(node.rows(1, "SELECT n FROM t"), "1");
    assert_eq!(node.error(1, "ROLLBACK TO b"), "3B001 savepoint \"b\" does not exist");
    assert_eq!(node.tag(1, "COMMIT"), "ROLLBACK");
    assert_eq!(node.engine.status(1), b'I');
    assert_eq!(node.rows(1, "SELECT count(*) FROM t"), "0");
    assert_eq!(
        node.error(1, "INSERT INTO t VALUES (1); SELECT 1/0"),
        "22012 division by zero"
    );
    assert_eq!(
        node.rows(1, "SELECT count(*) FROM t"),
        "0",
        "one message is one transaction"
    );
}

#[test]
fn settings_go_with_transactions_and_are_reported() {
    let mut node = Node::new();
    assert_eq!(node.engine.reported(1).len(), 13);
    node.done(1, "SET application_name = 'a'; SET work_mem = '2MB'");
    assert_eq!(
        node.engine.take_reports(1),
        [("application_name".to_owned(), "a".to_owned())]
    );
    node.done(1, "BEGIN; SET LOCAL statement_timeout = '90s'; SET my.tenant TO x");
    assert_eq!(node.rows(1, "SHOW statement_timeout"), "90s");
    assert_eq!(
        node.engine.timeout(1, "statement_timeout").map(|span| span.as_secs()),
        Some(90)
    );
    node.done(1, "COMMIT");
    assert_eq!(
        node.rows(
            1,
            "SELECT current_setting('statement_timeout'), current_setting('my.tenant')"
        ),
        "0|x"
    );
    node.done(1, "BEGIN; SET application_name = 'b'; ROLLBACK");
    assert_eq!(node.rows(1, "SHOW application_name"), "a");
    assert_eq!(
        node.rows(
            1,
            "SELECT set_config('search_path', 'x', false), current_setting('no.such', true)"
        ),
        "x|NULL"
    );
    assert_eq!(
        node.error(1, "SHOW no.such"),
        "42704 unrecognized configuration parameter \"no.such\""
    );
    node.done(1, "RESET ALL");
    assert_eq!(
        node.rows(1, "SELECT setting FROM pg_settings WHERE name = 'work_mem'"),
        "4096"
    );
    node.done(1, "SET default_transaction_read_only = on");
    assert_eq!(
        node.error(1, "CREATE TABLE t (n int)"),
        "25006 cannot execute CREATE TABLE in a read-only transaction"
    );
    assert_eq!(node.rows(1, "SHOW transaction_read_only"), "on");
}

#[test]
fn the_clean_up_of_the_pool_leaves_nothing() {
    let mut node = Node::new();
    node.done(
        1,
        "SET work_mem = '1MB'; CREATE TEMP TABLE s (n int); LISTEN c; PREPARE \"a,b\" AS SELECT 1",
    );
    node.done(
        1,
        "SELECT pg_advisory_lock(1); BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    );
    assert_eq!(node.engine.leftovers(1).len(), 6, "{:?}", node.engine.leftovers(1));
    let clean_up = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
         SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; \
         SELECT pg_catalog.count(*) FILTER (WHERE NOT from_sql) AS kept, \
         pg_catalog.string_agg(pg_catalog.quote_ident(name), ', ') FILTER (WHERE from_sql) AS left_behind \
         FROM pg_catalog.pg_prepared_statements";
    assert_eq!(node.rows(1, clean_up), "0|\"a,b\"");
    node.done(1, "DEALLOCATE \"a,b\"");
    assert_eq!(node.engine.leftovers(1), Vec::<String>::new());
    node.done(1, "SET work_mem = '1MB'; LISTEN d");
    node.done(1, "DISCARD ALL");
    assert_eq!(node.engine.leftovers(1), Vec::<String>::new());
}

#[test]
fn cursors_move_both_ways_and_see_what_was_there_when_they_were_declared() {
    let mut node = Node::new();
    node.done(1, "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 5)");
    node.done(
        1,
        "BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT n FROM t ORDER BY n; DELETE FROM t WHERE n = 2",
    );
    assert_eq!(node.rows(1, "FETCH FORWARD 2 FROM c"), "1 2");
    assert_eq!(
        node.error(1, "FETCH BACKWARD 1 FROM c"),
        "55000 cursor can only scan forward"
    );
    node.done(
        1,
        "ROLLBACK; BEGIN; DECLARE d SCROLL CURSOR FOR SELECT n FROM t ORDER BY n",
    );
    assert_eq!(node.rows(1, "FETCH ALL FROM d"), "1 2 3 4 5");
    assert_eq!(node.rows(1, "FETCH BACKWARD 2 FROM d"), "5 4");
    assert_eq!(node.rows(1, "FETCH ABSOLUTE 2 FROM d"), "2");
    assert_eq!(node.tag(1, "MOVE RELATIVE 2 FROM d"), "MOVE 1");
    assert_eq!(node.rows(1, "SELECT name FROM pg_cursors"), "d");
    node.done(1, "CLOSE d; COMMIT");
    assert_eq!(
        node.error(1, "DECLARE c CURSOR FOR SELECT 1"),
        "25P01 DECLARE CURSOR can only be used in transaction blocks"
    );
}

#[test]
fn prepared_statements_take_parameters_of_inferred_types() {
    let mut node = Node::new();
    node.done(1, "CREATE TABLE t (id int8 PRIMARY KEY, name text, at timestamptz)");
    let mut types = |sql: &str| {
        let statement = node.engine.parse(sql).expect("SQL").remove(0);
        node.engine
            .prepare(1, &statement, &[])
            .map(|plan| plan.parameters().to_vec())
            .map_err(|report| report.message)
    };
    assert_eq!(types("SELECT name FROM t WHERE id = $1"), Ok(vec![20]));
    assert_eq!(types("INSERT INTO t VALUES ($1, $2, $3)"), Ok(vec![20, 25, 1184]));
    assert_eq!(types("UPDATE t SET name = $2 WHERE id = ANY($1)"), Ok(vec![1016, 25]));
    assert_eq!(types("SELECT $1"), Ok(vec![25]));
    assert_eq!(types("SELECT $1::int + $1"), Ok(vec![23]));
    assert_eq!(types("SELECT length($1), $2 || 'x', $3 LIKE 'a'"), Ok(vec![25, 25, 25]));
    assert_eq!(
        types("SELECT n FROM generate_series(1, $1) n LIMIT $2"),
        Ok(vec![23, 20])
    );
    assert_eq!(types("SELECT pg_notify($1, $2), pg_sleep($3)"), Ok(vec![25, 25, 701]));
    assert_eq!(
        types("SELECT $2::text"),
        Err("could not determine data type of parameter $1".to_owned())
    );
    node.done(1, "PREPARE q (int) AS SELECT $1 + 1");
    assert_eq!(node.rows(1, "EXECUTE q (4)"), "5");
    assert_eq!(
        node.error(1, "PREPARE q AS SELECT 1"),
        "42P05 prepared statement \"q\" already exists"
    );
}

#[test]
fn portals_give_rows_in_portions() {
    let mut node = Node::new();
    let statement = node
        .engine
        .parse("SELECT generate_series(1, $1)")
        .expect("SQL")
        .remove(0);
    let plan = node.engine.prepare(1, &statement, &[]).expect("a plan");
    let at = node.moment();
    node.engine
        .bind(1, "p", &plan, vec![Datum::Int4(3)], at)
        .expect("a portal");
    let mut portion = |most| match node.engine.execute(1, "p", most, at) {
        Progress::Done(completion) => (shown(&completion), completion.suspended, completion.tag),
        other => panic!("{other:?}"),
    };
    assert_eq!(portion(2), ("1 2".to_owned(), true, "SELECT 2".to_owned()));
    assert_eq!(portion(2), ("3".to_owned(), false, "SELECT 1".to_owned()));
    let statement = node.engine.parse("SELECT 1/0").expect("SQL").remove(0);
    let plan = node.engine.prepare(1, &statement, &[]).expect("a plan");
    let report = node.engine.bind(1, "", &plan, Vec::new(), at).expect_err("folded");
    assert_eq!(report.sqlstate, "22012");
}

#[test]
fn the_look_ups_of_tokio_postgres_are_answered() {
    let mut node = Node::new();
    let sql = "SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid
        FROM pg_catalog.pg_type t
        LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
        INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid
        WHERE t.oid = 1007";
    assert_eq!(node.rows(1, sql), "_int4|b|23|NULL|0|pg_catalog|0");
    assert_eq!(
        node.rows(
            1,
            "SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = 1 ORDER BY enumsortorder"
        ),
        ""
    );
    node.done(1, "CREATE TABLE t (a int, b text)");
    let attributes = "SELECT attname, atttypid FROM pg_catalog.pg_attribute WHERE attrelid = 't'::regclass \
        AND NOT attisdropped AND attnum > 0 ORDER BY attnum";
    assert_eq!(node.rows(1, attributes), "a|23 b|25");
}

#[test]
fn notifications_come_in_the_order_of_commits_once_each() {
    let mut node = Node::new();
    node.done(1, "LISTEN a; LISTEN \"B c\"");
    node.done(2, "BEGIN; NOTIFY a, 'first'");
    node.done(
        3,
        "SELECT pg_notify('a', 'second'), pg_notify('a', 'second'), pg_notify('B c', '')",
    );
    node.done(2, "COMMIT");
    node.done(2, "BEGIN; NOTIFY a, 'lost'; ROLLBACK");
    node.done(1, "BEGIN");
    assert!(node.engine.take_notifications(1).is_empty());
    node.done(1, "COMMIT");
    let heard = node.engine.take_notifications(1);
    let heard: Vec<(i32, &str, &str)> = heard
        .iter()
        .map(|n| (n.pid, n.channel.as_str(), n.payload.as_str()))
        .collect();
    assert_eq!(heard, [(3, "a", "second"), (3, "B c", ""), (2, "a", "first")]);
    assert_eq!(node.rows(1, "SELECT pg_listening_channels()"), "B c a");
    node.done(1, "UNLISTEN *; NOTIFY a");
    assert!(node.engine.take_notifications(1).is_empty());
}

#[test]
fn sleeping_takes_virtual_time_and_happens_once() {
    let mut node = Node::new();
    node.done(1, "CREATE TABLE t (n int); CREATE SEQUENCE s");
    node.waits(1, "INSERT INTO t SELECT nextval('s') FROM pg_sleep(1)");
    let Some(Wait::Sleep { until }) = node.engine.waiting(1).cloned() else {
        panic!("no sleep")
    };
    let at = node.moment();
    assert!(matches!(node.engine.resume(1, at), Progress::Waiting(_)), "too early");
    node.now = until.as_nanos();
    let at = node.moment();
    assert!(matches!(node.engine.resume(1, at), Progress::Done(_)));
    node.engine.end_implicit(1, at);
    assert_eq!(node.rows(1, "SELECT n FROM t"), "1");
    node.waits(2, "SELECT pg_sleep(1)");
    let report = Report::error("57014", "canceling statement due to user request");
    assert!(matches!(node.engine.interrupt(2, report), Progress::Failed(_)));
    assert_eq!(node.engine.status(2), b'I');
    assert!(matches!(node.send(2, "SELECT 1"), Outcome::Done(_)));
}

#[test]
fn copy_reads_and_writes_lines() {
    let mut node = Node::new();
    node.done(1, "CREATE TABLE t (n int, s text)");
    let statement = node.engine.parse("COPY t FROM STDIN").expect("SQL").remove(0);
    let plan = node.engine.prepare(1, &statement, &[]).expect("a plan");
    let at = node.moment();
    assert!(matches!(
        node.engine.run(1, &plan, false, at),
        Progress::CopyIn { columns: 2 }
    ));
    node.engine.copy_data(1, b"1\ta\\tb\n2\t\\");
    node.engine.copy_data(1, b"N\n");
    let Progress::Done(completion) = node.engine.copy_done(1, at) else {
        panic!("not done")
    };
    assert_eq!(completion.tag, "COPY 2");
    node.engine.end_implicit(1, at);
    assert_eq!(node.rows(1, "SELECT * FROM t"), "1|a\tb 2|NULL");
    let statement = node
        .engine
        .parse("COPY (SELECT * FROM t ORDER BY n) TO STDOUT")
        .expect("SQL")
        .remove(0);
    let plan = node.engine.prepare(1, &statement, &[]).expect("a plan");
    let Progress::CopyOut { lines, .. } = node.engine.run(1, &plan, false, at) else {
        panic!("no rows")
    };
    assert_eq!(lines.concat(), b"1\ta\\tb\n2\t\\N\n");
}
