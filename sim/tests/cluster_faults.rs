//! Promise: every fault of the layers P, S and R that a scenario can hold does what it says to a cluster, says when it found
//! nothing to do it to, and is over when it ends.

mod support;

use std::time::Duration;

use futures::StreamExt;
use gdbpool::Runtime;
use gdbpool_sim::fault::{
    CancelFate, FailAt, FaultKind, LostTail, Micros, ProtocolFault, Refusal, Rejoin, ReplicationFault, ServerFault,
    ServerFaults, Sessions, Unsolicited,
};
use gdbpool_sim::{Cluster, ClusterConfig, Sim};
use tokio_postgres::NoTls;

use support::{code, connect_node, node_stream};

const SECOND: Duration = Duration::from_secs(1);

fn world(seed: u64) -> (Sim, Cluster) {
    let sim = Sim::new(seed);
    let cluster = Cluster::new(&sim, ClusterConfig::new().standbys(1));
    cluster.set_up("CREATE TABLE log (v int)").expect("the table");
    (sim, cluster)
}

fn n0() -> String {
    "n0".to_owned()
}

fn n1() -> String {
    "n1".to_owned()
}

fn count(cluster: &Cluster, node: &str) -> String {
    let rows = cluster.execute(node, "SELECT count(*) FROM log").expect("a count");
    rows[0][0].clone().expect("a number")
}

#[test]
fn a_fault_without_its_node_is_not_applied() {
    let (_sim, cluster) = world(1);
    for what in [
        FaultKind::Server(ServerFault::Pause { node: "n7".to_owned() }),
        FaultKind::Server(ServerFault::Terminate {
            node: n0(),
            sessions: Sessions::All,
        }),
        FaultKind::Replication(ReplicationFault::Promote {
            node: n0(),
            lost: LostTail::Nothing,
            fenced: true,
        }),
        FaultKind::Replication(ReplicationFault::PauseReplay { node: n0() }),
    ] {
        assert!(!cluster.begin(&what, None), "{what:?}");
        cluster.end(&what);
    }
}

#[test]
fn servers_that_crash_stop_refuse_and_come_back() {
    let (sim, cluster) = world(2);
    let runtime = sim.runtime();
    sim.block_on(async {
        for (what, end) in [
            (
                ServerFault::Crash {
                    node: n0(),
                    recovery: Micros(0),
                },
                "closed",
            ),
            (
                ServerFault::Shutdown {
                    node: n0(),
                    immediate: false,
                    recovery: Micros(0),
                },
                "57P01",
            ),
            (
                ServerFault::Shutdown {
                    node: n0(),
                    immediate: true,
                    recovery: Micros(0),
                },
                "closed",
            ),
        ] {
            let what = FaultKind::Server(what);
            let mut db = connect_node(&runtime, "n0").await.unwrap();
            assert!(cluster.begin(&what, None));
            let ended = db.end.next().await.expect("the end").expect_err("an error");
            assert!(ended.contains(end), "{what:?}: {ended}");
            assert!(node_stream(&runtime, "n0").await.is_err(), "nobody listens");
            cluster.end(&what);
            connect_node(&runtime, "n0").await.unwrap();
        }
        let what = FaultKind::Server(ServerFault::Refuse {
            node: n0(),
            why: Refusal::TooMany,
        });
        assert!(cluster.begin(&what, None));
        assert_eq!(code(connect_node(&runtime, "n0").await), "53300");
        cluster.end(&what);
        connect_node(&runtime, "n0").await.unwrap();
    });
}

#[test]
fn statements_fail_wait_and_crawl() {
    let (sim, cluster) = world(3);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let fail = |sqlstate: &str, at| ServerFault::Fail {
            node: n0(),
            sqlstate: sqlstate.to_owned(),
            at,
            count: 1,
        };
        assert!(cluster.begin(&FaultKind::Server(fail("40001", FailAt::Execute)), None));
        assert_eq!(
            code(db.client.batch_execute("INSERT INTO log VALUES (1)").await),
            "40001"
        );
        assert!(cluster.begin(&FaultKind::Server(fail("23505", FailAt::Commit)), None));
        db.client
            .batch_execute("BEGIN; INSERT INTO log VALUES (1)")
            .await
            .unwrap();
        assert_eq!(code(db.client.batch_execute("COMMIT").await), "23505");
        assert_eq!(count(&cluster, "n0"), "0", "it was rolled back");
        assert!(cluster.begin(&FaultKind::Server(fail("53200", FailAt::Parse)), None));
        assert_eq!(code(db.client.query("SELECT 1", &[]).await), "53200");
        db.client.batch_execute("INSERT INTO log VALUES (1)").await.unwrap();

        let slow = FaultKind::Server(ServerFault::Slow {
            node: n0(),
            by: Micros::from_secs(1),
        });
        assert!(cluster.begin(&slow, None));
        let before = runtime.now();
        db.client.batch_execute("SELECT 1").await.unwrap();
        assert_eq!(runtime.now().saturating_since(before), SECOND);
        cluster.end(&slow);

        let convoy = FaultKind::Server(ServerFault::LockConvoy {
            node: n0(),
            table: "log".to_owned(),
        });
        assert!(cluster.begin(&convoy, None));
        db.client.batch_execute("SET lock_timeout = '1s'").await.unwrap();
        assert_eq!(
            code(db.client.batch_execute("INSERT INTO log VALUES (2)").await),
            "55P03"
        );
        cluster.end(&convoy);
        db.client.batch_execute("INSERT INTO log VALUES (2)").await.unwrap();

        let setting = |value: &str| ServerFault::Setting {
            node: n0(),
            name: "statement_timeout".to_owned(),
            value: value.to_owned(),
        };
        let setting = FaultKind::Server(setting("1s"));
        assert!(cluster.begin(&setting, None));
        assert_eq!(code(db.client.batch_execute("SELECT pg_sleep(2)").await), "57014");
        cluster.end(&setting);
        db.client.batch_execute("SELECT pg_sleep(2)").await.unwrap();
    });
}

#[test]
fn a_paused_node_is_silent_until_it_goes_on() {
    let (sim, cluster) = world(4);
    let runtime = sim.runtime();
    let pause = FaultKind::Server(ServerFault::Pause { node: n0() });
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        assert!(cluster.begin(&pause, None));
        let task = sim.spawn(async move { db.client.batch_execute("INSERT INTO log VALUES (1)").await });
        // The kernel still takes connections.
        node_stream(&runtime, "n0").await.unwrap();
        runtime.sleep_until(runtime.now() + 60 * SECOND).await;
        assert_eq!(count(&cluster, "n0"), "0");
        cluster.end(&pause);
        task.await.unwrap();
        assert_eq!(count(&cluster, "n0"), "1");
    });
}

#[test]
fn sessions_are_ended_by_what_they_do() {
    let (sim, cluster) = world(5);
    let runtime = sim.runtime();
    sim.block_on(async {
        let mut idle = connect_node(&runtime, "n1").await.unwrap();
        let mut open = connect_node(&runtime, "n1").await.unwrap();
        open.client.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let busy = connect_node(&runtime, "n1").await.unwrap();
        let task = sim.spawn(async move { code(busy.client.batch_execute("SELECT pg_sleep(3600)").await) });
        runtime.sleep_until(runtime.now() + SECOND).await;
        let conflict = |sessions| FaultKind::Replication(ReplicationFault::Conflict { node: n1(), sessions });
        assert!(cluster.begin(&conflict(Sessions::InQuery), None));
        assert_eq!(task.await, "40001");
        assert!(cluster.begin(&conflict(Sessions::IdleInTransaction), None));
        assert_eq!(open.end.next().await, Some(Err("40001".to_owned())));
        let terminate = ServerFault::Terminate {
            node: n1(),
            sessions: Sessions::Idle,
        };
        assert!(cluster.begin(&FaultKind::Server(terminate), None));
        assert_eq!(idle.end.next().await, Some(Err("57P01".to_owned())));
    });
}

#[test]
fn cancel_requests_are_late_lost_or_hang() {
    let (sim, cluster) = world(6);
    let runtime = sim.runtime();
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        let token = db.client.cancel_token();
        let cancel = |fate| FaultKind::Protocol(ProtocolFault::Cancel { node: n0(), fate });
        let request = || async {
            let stream = node_stream(&runtime, "n0").await.unwrap();
            token.cancel_query_raw(stream, NoTls).await.unwrap();
        };
        assert!(cluster.begin(&cancel(CancelFate::Lost), None));
        let (result, ()) = futures::join!(db.client.batch_execute("SELECT pg_sleep(5)"), request());
        result.unwrap();
        // A late one hits whatever runs then.
        assert!(cluster.begin(&cancel(CancelFate::Late(Micros::from_secs(8))), None));
        let (result, ()) = futures::join!(db.client.batch_execute("SELECT pg_sleep(5)"), request());
        result.unwrap();
        assert_eq!(code(db.client.batch_execute("SELECT pg_sleep(5)").await), "57014");
        cluster.end(&cancel(CancelFate::Lost));
        let (result, ()) = futures::join!(db.client.batch_execute("SELECT pg_sleep(5)"), request());
        assert_eq!(code(result), "57014");
    });
}

#[test]
fn a_commit_without_ready_is_committed() {
    for reset in [false, true] {
        let (sim, cluster) = world(7);
        let runtime = sim.runtime();
        sim.block_on(async {
            let db = connect_node(&runtime, "n0").await.unwrap();
            db.client
                .batch_execute("BEGIN; INSERT INTO log VALUES (1)")
                .await
                .unwrap();
            let what = FaultKind::Protocol(ProtocolFault::CommitWithoutReady { node: n0(), reset });
            assert!(cluster.begin(&what, None));
            assert!(db.client.batch_execute("COMMIT").await.is_err());
        });
        assert_eq!(count(&cluster, "n0"), "1");
    }
}

#[test]
fn unsolicited_messages_and_floods_hurt_no_correct_client() {
    let (sim, cluster) = world(8);
    let runtime = sim.runtime();
    sim.block_on(async {
        let mut db = connect_node(&runtime, "n0").await.unwrap();
        for message in [
            Unsolicited::Notice,
            Unsolicited::Notification,
            Unsolicited::ParameterStatus,
        ] {
            let what = FaultKind::Protocol(ProtocolFault::Unsolicited {
                node: n0(),
                message,
                percent: 50,
            });
            assert!(cluster.begin(&what, None));
            for v in 0..10i32 {
                let row = db.client.query_one("SELECT $1::int4", &[&v]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), v);
            }
            cluster.end(&what);
        }
        while db.notifications.try_recv().is_ok() {}
        db.client.batch_execute("LISTEN flood").await.unwrap();
        let flood = ProtocolFault::NotifyFlood {
            node: n0(),
            channel: "flood".to_owned(),
            count: 100,
            bytes: 40,
        };
        assert!(cluster.begin(&FaultKind::Protocol(flood), None));
        for _ in 0..100 {
            assert_eq!(db.notifications.next().await.unwrap().payload().len(), 40);
        }
    });
}

#[test]
fn standbys_lag_lose_their_stream_and_change_roles() {
    let (sim, cluster) = world(9);
    let insert = |node: &str| cluster.execute(node, "INSERT INTO log VALUES (1)").expect("an insert");
    let begin = |fault| assert!(cluster.begin(&FaultKind::Replication(fault), None));
    let end = |fault| cluster.end(&FaultKind::Replication(fault));
    let lasting = [
        ReplicationFault::BreakStream { node: n1() },
        ReplicationFault::PauseReplay { node: n1() },
        ReplicationFault::ReceiveDelay {
            node: n1(),
            by: Micros::from_secs(60),
        },
        ReplicationFault::ReplayDelay {
            node: n1(),
            by: Micros::from_secs(60),
        },
    ];
    for fault in lasting {
        let before = count(&cluster, "n1");
        begin(fault.clone());
        insert("n0");
        sim.advance(10 * SECOND);
        assert_eq!(count(&cluster, "n1"), before, "{fault:?}");
        end(fault.clone());
        sim.advance(SECOND);
        assert_eq!(count(&cluster, "n1"), count(&cluster, "n0"), "{fault:?}");
    }
    begin(ReplicationFault::Join {
        node: "late".to_owned(),
    });
    begin(ReplicationFault::Promote {
        node: n1(),
        lost: LostTail::Unreceived,
        fenced: false,
    });
    insert("n0");
    insert("n1");
    insert("n1");
    sim.advance(SECOND);
    assert_eq!(
        (
            &*count(&cluster, "n0"),
            &*count(&cluster, "n1"),
            &*count(&cluster, "late")
        ),
        ("5", "6", "6")
    );
    begin(ReplicationFault::Rejoin {
        node: n0(),
        how: Rejoin::Rewound,
    });
    sim.advance(SECOND);
    assert_eq!(count(&cluster, "n0"), "6");
}

#[test]
fn zombies_do_not_notice_that_their_clients_are_gone() {
    let (sim, cluster) = world(10);
    let runtime = sim.runtime();
    let zombies = FaultKind::Server(ServerFault::Zombies { node: n0() });
    assert!(cluster.begin(&zombies, None));
    let node = cluster.node("n0");
    sim.block_on(async {
        let db = connect_node(&runtime, "n0").await.unwrap();
        db.client
            .batch_execute("BEGIN; INSERT INTO log VALUES (1)")
            .await
            .unwrap();
        assert!(node.reset_connection(node.sessions()[0].pid));
    });
    sim.advance(60 * SECOND);
    assert_eq!(cluster.node("n0").sessions().len(), 1);
    cluster.end(&zombies);
    sim.advance(SECOND);
    assert_eq!(cluster.node("n0").sessions().len(), 0);
}
