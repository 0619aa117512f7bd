//! Promise: standbys have what they have received, when they have replayed it; what is lost or kept in a crash, a promotion
//! or a rejoin is what a real cluster would lose or keep, and the history says which.

mod support;

use std::time::Duration;

use futures::StreamExt;
use gdbpool::Runtime;
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::{Cluster, ClusterConfig, Durability, EventKind, Sim};

use support::{code, connect_node};

const SECOND: Duration = Duration::from_secs(1);

fn cluster(sim: &Sim, config: ClusterConfig) -> Cluster {
    let cluster = Cluster::new(sim, config);
    cluster.set_up("CREATE TABLE log (v int)").expect("the table");
    cluster
}

fn count(cluster: &Cluster, node: &str) -> i64 {
    let rows = cluster.execute(node, "SELECT count(*) FROM log").expect("a count");
    rows[0][0]
        .as_deref()
        .and_then(|count| count.parse().ok())
        .expect("a number")
}

fn insert(cluster: &Cluster, node: &str, v: i32) {
    cluster
        .execute(node, &format!("INSERT INTO log VALUES ({v})"))
        .expect("an insert");
}

#[test]
fn lag_is_what_it_is_set_to() {
    let sim = Sim::new(1);
    let cluster = cluster(&sim, ClusterConfig::new().standbys(2).lag(SECOND, SECOND));
    cluster.node("n2").set_lag(SECOND, 4 * SECOND);
    insert(&cluster, "n0", 1);
    let counts = || (count(&cluster, "n0"), count(&cluster, "n1"), count(&cluster, "n2"));
    sim.advance(Duration::from_millis(1_900));
    assert_eq!(counts(), (1, 0, 0));
    sim.advance(Duration::from_millis(200));
    assert_eq!(counts(), (1, 1, 0));
    cluster.node("n1").pause_replay(true);
    insert(&cluster, "n0", 2);
    sim.advance(60 * SECOND);
    assert_eq!(counts(), (2, 1, 2));
    cluster.node("n1").pause_replay(false);
    sim.run_until_idle();
    assert_eq!(counts(), (2, 2, 2));
    cluster.node("n2").break_stream(true);
    insert(&cluster, "n0", 3);
    sim.advance(60 * SECOND);
    assert_eq!(counts(), (3, 3, 2));
    cluster.node("n2").break_stream(false);
    sim.advance(6 * SECOND);
    assert_eq!(counts(), (3, 3, 3));
}

#[test]
fn a_clean_promotion_keeps_everything_and_one_with_loss_does_not() {
    for (lost, expected) in [
        (LostTail::Nothing, 3),
        (LostTail::Unreceived, 1),
        (LostTail::Commits(3), 0),
    ] {
        let sim = Sim::new(2);
        let cluster = cluster(&sim, ClusterConfig::new().standbys(2));
        insert(&cluster, "n0", 1);
        sim.advance(SECOND);
        cluster.node("n1").set_lag(60 * SECOND, Duration::ZERO);
        cluster.node("n2").set_lag(Duration::ZERO, Duration::ZERO);
        insert(&cluster, "n0", 2);
        insert(&cluster, "n0", 3);
        sim.advance(SECOND);
        assert_eq!((count(&cluster, "n1"), count(&cluster, "n2")), (1, 3));
        assert!(cluster.node("n1").promote(lost, true));
        sim.advance(SECOND);
        assert_eq!(count(&cluster, "n1"), expected, "{lost:?}");
        assert_eq!(cluster.node("n1").timeline(), 2);
        assert!(!cluster.node("n0").is_up(), "it is fenced");
        assert_eq!(cluster.primary().map(|node| node.name()), Some("n1".to_owned()));
        // The other standby follows, and has nothing that the new primary has not.
        insert(&cluster, "n1", 4);
        sim.advance(SECOND);
        assert_eq!(count(&cluster, "n2"), expected + 1, "{lost:?}");
        // The old primary comes back and gives up what was lost.
        assert!(cluster.node("n0").rejoin());
        assert!(cluster.node("n0").restart(Duration::ZERO));
        sim.advance(SECOND);
        assert!(cluster.node("n0").is_standby());
        assert_eq!(count(&cluster, "n0"), expected + 1, "{lost:?}");
        let history = cluster.history();
        let promoted = history.events().iter().find_map(|event| match event.kind {
            EventKind::Promoted {
                timeline,
                parent,
                switch,
            } => Some((timeline, parent, switch)),
            _ => None,
        });
        let (timeline, parent, switch) = promoted.expect("the promotion");
        assert_eq!((timeline, parent), (2, 1));
        let lost_commits = history
            .events()
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Committed { timeline: 1, lsn, .. } if lsn > switch));
        // Set-up statements have no sessions, so the history has their records only by position.
        assert_eq!(lost_commits.count(), 0);
    }
}

#[test]
fn an_unfenced_old_primary_goes_on_alone() {
    let sim = Sim::new(3);
    let cluster = cluster(&sim, ClusterConfig::new().standbys(1));
    assert!(cluster.node("n1").promote(LostTail::Unreceived, false));
    insert(&cluster, "n0", 1);
    insert(&cluster, "n0", 2);
    insert(&cluster, "n1", 3);
    sim.advance(SECOND);
    assert_eq!((count(&cluster, "n0"), count(&cluster, "n1")), (2, 1));
    assert_eq!((cluster.node("n0").timeline(), cluster.node("n1").timeline()), (1, 2));
    cluster.node("n0").rejoin_diverged();
    insert(&cluster, "n1", 4);
    sim.advance(SECOND);
    assert!(cluster.node("n0").is_standby());
    assert_eq!(count(&cluster, "n0"), 2, "its WAL has parted from the primary's");
    assert!(cluster.execute("n0", "INSERT INTO log VALUES (5)").is_err());
}

#[test]
fn a_crash_loses_what_was_not_durable_and_nothing_else() {
    let sim = Sim::new(4);
    let cluster = cluster(&sim, ClusterConfig::new());
    let runtime = sim.runtime();
    let node = cluster.node("n0");
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        db.client.batch_execute("INSERT INTO log VALUES (1)").await.unwrap();
        db.client.batch_execute("SET synchronous_commit = off").await.unwrap();
        db.client.batch_execute("INSERT INTO log VALUES (2)").await.unwrap();
        runtime.sleep_until(runtime.now() + SECOND).await;
        db.client.batch_execute("INSERT INTO log VALUES (3)").await.unwrap();
        let mut open = connect_node(&runtime, "n0").await.unwrap();
        open.client
            .batch_execute("BEGIN; INSERT INTO log VALUES (4)")
            .await
            .unwrap();
        node.crash();
        assert!(open.end.next().await.is_some_and(|end| end.is_err()));
        assert!(node.restart(Duration::ZERO));
        let db = connect_node(&runtime, "n0").await.unwrap();
        let rows = db.client.query("SELECT v FROM log ORDER BY v", &[]).await.unwrap();
        let rows: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(
            rows,
            [1, 2],
            "the third was committed with synchronous_commit off, just before"
        );
    });
}

#[test]
fn a_commit_waits_for_its_standby() {
    let sim = Sim::new(5);
    let config = ClusterConfig::new()
        .standbys(2)
        .lag(SECOND, SECOND)
        .synchronous(1, &["n1"]);
    let cluster = cluster(&sim, config);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let before = runtime.now();
        db.client.batch_execute("INSERT INTO log VALUES (1)").await.unwrap();
        assert_eq!(runtime.now().saturating_since(before), SECOND, "received, not replayed");
        db.client
            .batch_execute("SET synchronous_commit = remote_apply")
            .await
            .unwrap();
        let before = runtime.now();
        db.client.batch_execute("INSERT INTO log VALUES (2)").await.unwrap();
        assert_eq!(runtime.now().saturating_since(before), 2 * SECOND, "replayed");
        db.client.batch_execute("SET synchronous_commit = local").await.unwrap();
        let before = runtime.now();
        db.client.batch_execute("INSERT INTO log VALUES (3)").await.unwrap();
        assert_eq!(runtime.now(), before);
    });
    let history = cluster.history();
    let durabilities: Vec<Durability> = history
        .events()
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Committed {
                durability,
                xid: Some(_),
                ..
            } => Some(*durability),
            _ => None,
        })
        .collect();
    assert_eq!(
        durabilities,
        [Durability::Synchronous, Durability::Synchronous, Durability::Local]
    );
}

#[test]
fn sessions_live_through_a_promotion_and_then_write() {
    let sim = Sim::new(6);
    let cluster = cluster(&sim, ClusterConfig::new().standbys(1));
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n1").await.unwrap();
        assert_eq!(
            code(db.client.batch_execute("INSERT INTO log VALUES (1)").await),
            "25006"
        );
        assert!(cluster.node("n1").promote(LostTail::Nothing, true));
        db.client.batch_execute("INSERT INTO log VALUES (1)").await.unwrap();
    });
    assert_eq!(count(&cluster, "n1"), 1);
}

#[test]
fn a_new_standby_copies_everything() {
    let sim = Sim::new(7);
    let cluster = cluster(&sim, ClusterConfig::new());
    insert(&cluster, "n0", 1);
    assert!(cluster.join("copy"));
    assert!(!cluster.join("copy"), "there is one of that name");
    sim.advance(SECOND);
    assert_eq!(count(&cluster, "copy"), 1);
    cluster.node("copy").crash();
    insert(&cluster, "n0", 2);
    assert!(cluster.node("copy").restart(Duration::ZERO));
    sim.advance(SECOND);
    assert_eq!(count(&cluster, "copy"), 2);
}
