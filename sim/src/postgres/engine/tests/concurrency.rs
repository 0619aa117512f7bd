//! Sessions against each other: what they see, whom they wait for, who must give way.

use super::super::*;
use super::support::{Node, Outcome, shown};

fn table() -> Node {
    let mut node = Node::new();
    node.done(
        1,
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 10), (2, 20)",
    );
    node
}

fn failed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(report) => format!("{} {}", report.sqlstate, report.message),
        other => panic!("no failure: {other:?}"),
    }
}

#[test]
fn read_committed_updates_the_row_as_it_is_now() {
    let mut node = table();
    node.done(1, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1");
    assert_eq!(node.rows(2, "SELECT n FROM t WHERE id = 1"), "10");
    node.waits(2, "UPDATE t SET n = n + 100 WHERE id = 1 RETURNING n");
    node.done(1, "COMMIT");
    let Outcome::Done(_) = node.wake(2) else {
        panic!("not done")
    };
    assert_eq!(node.rows(3, "SELECT n FROM t WHERE id = 1"), "111");
    node.done(1, "BEGIN; UPDATE t SET n = 0 WHERE id = 2");
    node.waits(2, "DELETE FROM t WHERE n = 20");
    node.done(1, "COMMIT");
    node.wake(2);
    assert_eq!(
        node.rows(3, "SELECT count(*) FROM t"),
        "2",
        "the row does not qualify any more"
    );
}

#[test]
fn repeatable_read_sees_one_state_and_does_not_write_over_newer_ones() {
    let mut node = table();
    node.done(2, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    node.done(1, "UPDATE t SET n = 11 WHERE id = 1; INSERT INTO t VALUES (3, 30)");
    assert_eq!(node.rows(2, "SELECT sum(n) FROM t"), "30");
    assert_eq!(
        node.error(2, "UPDATE t SET n = 0 WHERE id = 1"),
        "40001 could not serialize access due to concurrent update"
    );
    node.done(2, "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    node.done(1, "BEGIN; DELETE FROM t WHERE id = 2");
    node.waits(2, "UPDATE t SET n = 0 WHERE id = 2");
    node.done(1, "COMMIT");
    assert_eq!(
        failed(node.wake(2)),
        "40001 could not serialize access due to concurrent delete"
    );
}

#[test]
fn serializable_refuses_write_skew() {
    let mut node = Node::new();
    node.done(
        1,
        "CREATE TABLE doctors (id int PRIMARY KEY, on_call bool); INSERT INTO doctors VALUES (1, true), (2, true)",
    );
    node.done(
        1,
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM doctors WHERE on_call",
    );
    node.done(
        2,
        "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM doctors WHERE on_call",
    );
    node.done(1, "UPDATE doctors SET on_call = false WHERE id = 1");
    let second = node.send(2, "UPDATE doctors SET on_call = false WHERE id = 2");
    assert!(failed(second).starts_with("40001"));
    node.done(2, "ROLLBACK");
    node.done(1, "COMMIT");
    node.done(
        1,
        "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE doctors SET on_call = true WHERE id = 1",
    );
    node.done(
        2,
        "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE doctors SET on_call = true WHERE id = 2; COMMIT",
    );
    node.done(1, "COMMIT");
}

#[test]
fn equal_keys_wait_for_each_other() {
    let mut node = table();
    node.done(1, "BEGIN; INSERT INTO t VALUES (5, 1)");
    node.waits(2, "INSERT INTO t VALUES (5, 2)");
    node.done(1, "COMMIT");
    assert_eq!(
        failed(node.wake(2)),
        "23505 duplicate key value violates unique constraint \"t_pkey\""
    );
    node.done(1, "BEGIN; INSERT INTO t VALUES (6, 1)");
    node.waits(
        2,
        "INSERT INTO t VALUES (6, 2) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
    );
    node.done(1, "ROLLBACK");
    node.wake(2);
    assert_eq!(node.rows(3, "SELECT n FROM t WHERE id = 6"), "2");
}

#[test]
fn row_locks_wait_skip_or_refuse() {
    let mut node = table();
    node.done(1, "BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE");
    assert_eq!(
        node.rows(2, "SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"),
        "2"
    );
    assert_eq!(
        node.error(2, "SELECT id FROM t WHERE id = 1 FOR SHARE NOWAIT"),
        "55P03 could not obtain lock on row in relation \"t\""
    );
    node.waits(2, "SELECT n FROM t WHERE id = 1 FOR NO KEY UPDATE");
    node.done(1, "UPDATE t SET n = 12 WHERE id = 1; COMMIT");
    let Outcome::Done(done) = node.wake(2) else {
        panic!("not done")
    };
    assert_eq!(shown(&done), "12");
    let statement = "SELECT n FROM t WHERE id = 1 FOR KEY SHARE";
    node.done(1, &format!("BEGIN; {statement}"));
    assert_eq!(
        node.tag(2, "UPDATE t SET n = 13 WHERE id = 1"),
        "UPDATE 1",
        "a key share does not stop it"
    );
    node.waits(2, "DELETE FROM t WHERE id = 1");
    node.done(1, "COMMIT");
    node.wake(2);
}

#[test]
fn a_locked_row_is_shown_as_it_is_after_the_wait() {
    let mut node = table();
    node.done(1, "BEGIN; UPDATE t SET n = 12 WHERE id = 1");
    node.done(2, "BEGIN");
    node.waits(2, "SELECT n FROM t WHERE id = 1 FOR UPDATE");
    node.done(1, "COMMIT");
    let wakes = node.engine.take_wakes();
    assert_eq!(wakes, [2]);
    let at = node.moment();
    let Progress::Done(done) = node.engine.resume(2, at) else {
        panic!("not done")
    };
    assert_eq!(shown(&done), "12");
}

#[test]
fn a_deadlock_is_found_and_one_gives_way() {
    let mut node = table();
    node.done(1, "BEGIN; UPDATE t SET n = 1 WHERE id = 1");
    node.done(2, "BEGIN; UPDATE t SET n = 2 WHERE id = 2");
    node.waits(1, "UPDATE t SET n = 1 WHERE id = 2");
    assert!(node.engine.deadlock(1).is_none());
    node.waits(2, "UPDATE t SET n = 2 WHERE id = 1");
    let report = node.engine.deadlock(2).expect("a deadlock");
    assert_eq!(report.sqlstate, "40P01");
    for field in [b'D', b'H', b'W'] {
        assert!(report.field(field).is_some(), "{report:?}");
    }
    node.engine.interrupt(2, report);
    assert_eq!(node.engine.status(2), b'E');
    node.wake(1);
    node.done(1, "COMMIT");
    assert_eq!(node.rows(3, "SELECT id, n FROM t ORDER BY id"), "1|1 2|1");
}

#[test]
fn table_and_advisory_locks_wait() {
    let mut node = table();
    node.done(1, "BEGIN; LOCK TABLE t IN EXCLUSIVE MODE");
    assert_eq!(node.rows(2, "SELECT count(*) FROM t"), "2");
    node.waits(2, "INSERT INTO t VALUES (9, 9)");
    node.done(1, "COMMIT");
    node.wake(2);
    node.done(1, "SELECT pg_advisory_lock(7)");
    assert_eq!(node.rows(2, "SELECT pg_try_advisory_lock(7)"), "f");
    node.waits(2, "SELECT pg_advisory_xact_lock(7)");
    assert_eq!(
        node.rows(
            3,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ),
        "1"
    );
    assert_eq!(node.rows(3, "SELECT pg_blocking_pids(2)"), "{1}");
    assert_eq!(node.rows(1, "SELECT pg_advisory_unlock(7)"), "t");
    node.wake(2);
    assert_eq!(
        node.rows(3, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0"
    );
}

#[test]
fn a_savepoint_gives_back_its_locks_and_rows() {
    let mut node = table();
    node.done(1, "BEGIN; SAVEPOINT a; UPDATE t SET n = 1 WHERE id = 1");
    node.waits(2, "UPDATE t SET n = 2 WHERE id = 1");
    node.done(1, "ROLLBACK TO a");
    node.wake(2);
    node.done(1, "COMMIT");
    assert_eq!(node.rows(3, "SELECT n FROM t WHERE id = 1"), "2");
}

#[test]
fn a_closed_session_leaves_nothing_behind() {
    let mut node = table();
    node.done(1, "BEGIN; UPDATE t SET n = 1 WHERE id = 1; SELECT pg_advisory_lock(1)");
    node.waits(2, "UPDATE t SET n = n + 2 WHERE id = 1");
    node.engine.close(1);
    node.engine.close(1);
    node.wake(2);
    assert_eq!(node.rows(3, "SELECT n FROM t WHERE id = 1"), "12");
    assert_eq!(node.rows(3, "SELECT pg_try_advisory_lock(1)"), "t");
}
