//! The log: standbys that follow, refuse and are promoted; synchronous commits; crashes.

use super::super::*;
use super::support::{Node, Outcome};

fn pair() -> (Node, Node) {
    let mut primary = Node::new();
    primary.done(
        1,
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 10)",
    );
    primary.engine.take_wal();
    let mut copy = primary.engine.base_copy();
    copy.set_role(Role::Standby { timeline: 1 }, 0);
    (primary, Node::with(copy))
}

fn follow(primary: &mut Node, standby: &mut Node) {
    for record in primary.engine.take_wal() {
        standby.engine.apply(&record).expect("no conflict");
    }
    assert_eq!(primary.engine.wal_position(), standby.engine.wal_position());
}

#[test]
fn a_standby_shows_what_was_committed() {
    let (mut primary, mut standby) = pair();
    primary.done(1, "BEGIN; INSERT INTO t VALUES (2, 20)");
    primary.done(
        2,
        "UPDATE t SET n = 11; CREATE TABLE u (s serial); INSERT INTO u DEFAULT VALUES",
    );
    follow(&mut primary, &mut standby);
    assert_eq!(standby.rows(1, "SELECT id, n FROM t"), "1|11");
    assert_eq!(standby.rows(1, "SELECT s FROM u"), "1");
    standby.done(1, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM t");
    primary.done(1, "COMMIT");
    follow(&mut primary, &mut standby);
    assert_eq!(standby.rows(1, "SELECT count(*) FROM t"), "1");
    assert_eq!(standby.rows(2, "SELECT count(*), pg_is_in_recovery() FROM t"), "2|t");
    assert_eq!(
        standby.rows(2, "SELECT pg_last_wal_replay_lsn()"),
        primary.rows(2, "SELECT pg_current_wal_lsn()")
    );
}

#[test]
fn a_standby_refuses_what_it_cannot_do() {
    let (_, mut standby) = pair();
    for (sql, error) in [
        (
            "INSERT INTO t VALUES (9)",
            "25006 cannot execute INSERT in a read-only transaction",
        ),
        (
            "SELECT * FROM t FOR UPDATE",
            "25006 cannot execute SELECT FOR UPDATE in a read-only transaction",
        ),
        ("LISTEN a", "25006 cannot execute LISTEN during recovery"),
        ("NOTIFY a", "25006 cannot execute NOTIFY during recovery"),
        (
            "CREATE TEMP TABLE x (n int)",
            "25006 cannot execute CREATE TABLE in a read-only transaction",
        ),
        ("SELECT pg_current_wal_lsn()", "55000 recovery is in progress"),
        (
            "BEGIN READ WRITE",
            "0A000 cannot set transaction read-write mode during recovery",
        ),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "0A000 cannot use serializable mode in a hot standby",
        ),
        (
            "SELECT pg_current_xact_id()",
            "25006 cannot execute pg_current_xact_id() during recovery",
        ),
    ] {
        assert_eq!(standby.error(1, sql), error, "{sql}");
        assert_eq!(standby.engine.status(1), b'I', "{sql}");
    }
    standby.done(1, "UNLISTEN *; SELECT pg_advisory_lock(1)");
    standby.done(1, "DISCARD ALL");
    assert_eq!(standby.rows(1, "SHOW transaction_read_only"), "on");
    assert_eq!(standby.rows(1, "SHOW in_hot_standby"), "on");
}

#[test]
fn a_promoted_standby_writes_but_not_in_old_transactions() {
    let (mut primary, mut standby) = pair();
    follow(&mut primary, &mut standby);
    standby.engine.reported(1);
    standby.done(1, "BEGIN; SELECT 1");
    standby.engine.set_role(Role::Primary { timeline: 2 }, 0);
    assert_eq!(
        standby.error(1, "INSERT INTO t VALUES (5)"),
        "25006 cannot execute INSERT in a read-only transaction"
    );
    standby.done(1, "ROLLBACK");
    assert!(
        standby
            .engine
            .take_reports(1)
            .contains(&("in_hot_standby".to_owned(), "off".to_owned()))
    );
    standby.done(1, "INSERT INTO t VALUES (5)");
    let records = standby.engine.take_wal();
    assert!(records.iter().all(|record| record.timeline == 2));
    assert!(
        standby
            .rows(1, "SELECT pg_walfile_name(pg_current_wal_lsn())")
            .starts_with("00000002")
    );
}

#[test]
fn the_probe_of_the_library_is_answered_on_both_roles() {
    let probe = "SELECT s.rec, \
        CASE WHEN s.rec THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END AS lsn, \
        CASE WHEN s.rec THEN GREATEST((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
           (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), \
           (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())) \
          ELSE ('x'||pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_flush_lsn()),1,8))::bit(32)::int END AS tli, \
        CASE WHEN s.rec THEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_wal_receiver) END AS receivers, \
        CASE WHEN s.rec THEN pg_catalog.pg_is_wal_replay_paused() END AS paused, \
        (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS sysid, \
        pg_catalog.pg_postmaster_start_time() AS born, \
        pg_catalog.current_setting('transaction_read_only') AS ro \
        FROM (SELECT pg_catalog.pg_is_in_recovery() AS rec OFFSET 0) s";
    let (mut primary, mut standby) = pair();
    let lsn = primary.engine.wal_position();
    let born = "2000-01-01 00:00:00+00";
    let rest = format!("7000000000000000001|{born}");
    assert_eq!(primary.rows(1, probe), format!("f|{lsn}|1|NULL|NULL|{rest}|off"));
    assert_eq!(standby.rows(1, probe), format!("t|{lsn}|1|0|f|{rest}|on"));
}

#[test]
fn a_conflict_names_the_sessions_in_the_way() {
    let (mut primary, mut standby) = pair();
    standby.done(1, "BEGIN; SELECT * FROM t");
    primary.done(1, "DROP TABLE t");
    let record = primary.engine.take_wal().pop().expect("a record");
    assert_eq!(standby.engine.apply(&record), Err(vec![1]));
    standby.done(1, "COMMIT");
    standby.engine.apply(&record).expect("nobody is in the way");
    assert_eq!(
        standby.error(1, "SELECT * FROM t"),
        "42P01 relation \"t\" does not exist"
    );
}

#[test]
fn a_synchronous_commit_is_not_seen_before_it_is_confirmed() {
    let (mut primary, _) = pair();
    primary.engine.set_synchronous(true);
    primary.waits(1, "UPDATE t SET n = 99");
    assert!(matches!(primary.engine.waiting(1), Some(Wait::SyncReplication { .. })));
    assert_eq!(primary.rows(2, "SELECT n FROM t"), "10");
    primary.waits(2, "UPDATE t SET n = n + 1");
    assert!(matches!(primary.engine.waiting(2), Some(Wait::Lock { .. })));
    primary.engine.confirm_commit(1);
    assert_eq!(primary.rows(3, "SELECT n FROM t"), "99");
    assert!(matches!(primary.wake(2), Outcome::Waits), "its own commit waits now");
    primary.engine.close(2);
    assert_eq!(
        primary.rows(3, "SELECT n FROM t"),
        "100",
        "a session that ends while it waits has committed"
    );
    primary.done(3, "SET synchronous_commit = off; UPDATE t SET n = 0");
}

#[test]
fn a_crash_keeps_what_was_committed_and_nothing_else() {
    let (mut primary, _) = pair();
    primary.done(1, "BEGIN; INSERT INTO t VALUES (7, 7)");
    primary.done(
        2,
        "INSERT INTO t VALUES (8, 8); CREATE TABLE s (n serial); INSERT INTO s DEFAULT VALUES",
    );
    primary.engine.crash(5);
    let mut node = Node::with(primary.engine);
    assert_eq!(node.rows(1, "SELECT id FROM t ORDER BY id"), "1 8");
    assert_eq!(node.rows(1, "INSERT INTO s DEFAULT VALUES RETURNING n"), "34");
    assert_eq!(
        node.rows(1, "SELECT pg_postmaster_start_time()"),
        "2000-01-01 00:00:00.000005+00"
    );
}
