//! Promise: every way to log in works with the right password and with no other, and a server says why it lets nobody in.

mod support;

use std::time::Duration;

use gdbpool_sim::fault::Refusal;
use gdbpool_sim::{Authentication, Cluster, ClusterConfig, Sim};
use tokio_postgres::Config;

use support::{code, connect_node, connect_node_with};

#[test]
fn the_right_password_opens_and_no_other() {
    let sim = Sim::new(1);
    let config = ClusterConfig::new()
        .user("clear", Authentication::Cleartext("one".to_owned()))
        .user("digest", Authentication::Md5("two".to_owned()))
        .user("scram", Authentication::Scram("three".to_owned()));
    assert!(!format!("{config:?}").contains("three"), "a password is shown");
    let _cluster = Cluster::new(&sim, config);
    let runtime = sim.runtime();
    sim.block_on(async {
        for (user, password) in [("clear", "one"), ("digest", "two"), ("scram", "three")] {
            let mut config = Config::new();
            config.user(user).dbname("postgres").password(password);
            let db = connect_node_with(&runtime, "n0", &config).await.unwrap();
            db.client.batch_execute("SELECT 1").await.unwrap();
            config.password("another");
            assert_eq!(
                code(connect_node_with(&runtime, "n0", &config).await),
                "28P01",
                "{user}"
            );
        }
        let mut stranger = Config::new();
        stranger.user("stranger").dbname("postgres");
        assert_eq!(code(connect_node_with(&runtime, "n0", &stranger).await), "28000");
        let mut elsewhere = Config::new();
        elsewhere.user("app").dbname("elsewhere");
        assert_eq!(code(connect_node_with(&runtime, "n0", &elsewhere).await), "3D000");
    });
}

#[test]
fn places_are_limited_and_the_last_are_for_superusers() {
    let sim = Sim::new(2);
    let cluster = Cluster::new(&sim, ClusterConfig::new().setting("max_connections", "5"));
    let runtime = sim.runtime();
    sim.block_on(async {
        let first = connect_node(&runtime, "n0").await.unwrap();
        let second = connect_node(&runtime, "n0").await.unwrap();
        assert_eq!(code(connect_node(&runtime, "n0").await), "53300");
        let mut superuser = Config::new();
        superuser.user("postgres").dbname("postgres");
        let admin = connect_node_with(&runtime, "n0", &superuser).await.unwrap();
        drop((second, admin));
        runtime_turn(&runtime).await;
        connect_node(&runtime, "n0").await.unwrap();
        cluster.node("n0").limit_sessions(Some(0));
        assert_eq!(code(connect_node(&runtime, "n0").await), "53300");
        drop(first);
    });
}

#[test]
fn a_server_that_starts_or_refuses_says_so() {
    let sim = Sim::new(3);
    let cluster = Cluster::new(&sim, ClusterConfig::new());
    let runtime = sim.runtime();
    let node = cluster.node("n0");
    node.crash();
    assert!(!node.is_up());
    assert!(node.restart(Duration::from_secs(2)));
    sim.block_on(async {
        assert_eq!(code(connect_node(&runtime, "n0").await), "57P03");
    });
    sim.advance(Duration::from_secs(3));
    assert!(node.is_up());
    sim.block_on(async {
        for (why, expected) in [
            (Refusal::Password, "28P01"),
            (Refusal::ShuttingDown, "57P03"),
            (Refusal::TooMany, "53300"),
        ] {
            node.refuse(Some(why));
            assert_eq!(code(connect_node(&runtime, "n0").await), expected);
        }
        node.refuse(None);
        connect_node(&runtime, "n0").await.unwrap();
    });
}

/// Lets sessions whose clients have gone notice it.
async fn runtime_turn(runtime: &gdbpool_sim::SimRuntime) {
    use gdbpool::Runtime;
    runtime.sleep_until(runtime.now() + Duration::from_millis(10)).await;
}
