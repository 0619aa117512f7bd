//! Promise: the library runs on a simulated cluster unchanged: reads on the standby, writes on the primary, pinned
//! transactions, listening; and every session it gives back is as clean as the server sees it.

use std::time::Duration;

use gdbpool::{InteractionPool, ListenEvent, PoolConfig, Runtime};
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::{Cluster, ClusterConfig, EventKind, Role, Sim};

struct World {
    sim: Sim,
    cluster: Cluster,
    db: InteractionPool,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(seed);
    let cluster = Cluster::new(&sim, ClusterConfig::new().standbys(1));
    cluster
        .set_up("CREATE TABLE item (id int PRIMARY KEY, name text)")
        .expect("the table");
    let config = |name, node| PoolConfig::new(name, &cluster.dsn(node)).expect("a DSN").size(3);
    let builder = InteractionPool::builder(sim.runtime())
        .pool(config("primary", "n0").default_write())
        .pool(config("standby", "n1").default_read());
    let db = sim.block_on(builder.open()).expect("sound settings");
    World { sim, cluster, db }
}

/// The roles of the nodes that ran statements with this text.
fn ran_on(cluster: &Cluster, wanted: &str) -> Vec<Role> {
    let history = cluster.history();
    let roles = history.events().iter().filter_map(|event| match &event.kind {
        EventKind::StatementBegan { text, role, .. } if &**text == wanted => Some(*role),
        _ => None,
    });
    roles.collect()
}

fn unclean(cluster: &Cluster) -> Vec<String> {
    let history = cluster.history();
    let bad = history
        .events()
        .iter()
        .filter(|event| matches!(event.kind, EventKind::IllegalMessage { .. } | EventKind::Found { .. }));
    bad.map(ToString::to_string).collect()
}

#[test]
fn writes_go_to_the_primary_and_reads_to_the_standby() {
    let world = world(1);
    let (insert, select) = (
        "INSERT INTO item VALUES ($1, $2)",
        "SELECT name FROM item WHERE id = $1",
    );
    world.sim.block_on(async {
        let changed = world
            .db
            .run(insert)
            .bind(1i32)
            .bind("one")
            .execute()
            .await
            .expect("a write");
        assert_eq!(changed, 1);
        let runtime = world.sim.runtime();
        runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
        let name: String = world.db.run(select).bind(1i32).read().scalar().await.expect("a read");
        assert_eq!(name, "one");
    });
    assert_eq!(ran_on(&world.cluster, insert), [Role::Primary]);
    assert_eq!(ran_on(&world.cluster, select), [Role::Standby]);
    assert_eq!(unclean(&world.cluster), Vec::<String>::new());
}

#[test]
fn a_transaction_is_one_session_and_all_or_nothing() {
    let world = world(2);
    world.sim.block_on(async {
        let moved = world.db.transact(|tx| async move {
            tx.execute("INSERT INTO item VALUES (1, 'a')", &[]).await?;
            tx.execute("INSERT INTO item VALUES (2, 'b')", &[]).await
        });
        assert_eq!(moved.await.expect("committed"), 1);
        let failed = world.db.transact(|tx| async move {
            tx.execute("INSERT INTO item VALUES (3, 'c')", &[]).await?;
            tx.execute("INSERT INTO item VALUES (1, 'again')", &[]).await
        });
        assert!(failed.await.is_err(), "the key is taken");
    });
    let rows = world.cluster.execute("n0", "SELECT count(*) FROM item").unwrap();
    assert_eq!(rows, [[Some("2".to_owned())]]);
    assert_eq!(unclean(&world.cluster), Vec::<String>::new());
}

#[test]
fn a_listener_hears_what_is_committed() {
    let world = world(3);
    world.sim.block_on(async {
        let mut subscription = world.db.listen_on("news").subscribe().await.expect("a subscription");
        assert_eq!(subscription.next().await, Some(ListenEvent::Subscribed));
        world
            .db
            .run("SELECT pg_notify('news', 'hello')")
            .await
            .expect("a notification");
        let Some(ListenEvent::Notification(notification)) = subscription.next().await else {
            panic!("no notification");
        };
        assert_eq!(notification.payload(), "hello");
    });
    assert_eq!(unclean(&world.cluster), Vec::<String>::new());
}

#[test]
fn after_a_failover_writes_work_again_on_the_new_primary() {
    let world = world(4);
    world.sim.block_on(async {
        world
            .db
            .run("INSERT INTO item VALUES (1, 'before')")
            .execute()
            .await
            .expect("a write");
        assert!(world.cluster.node("n1").promote(LostTail::Nothing, true));
        let lost = world.db.run("INSERT INTO item VALUES (2, 'nowhere')").execute().await;
        assert!(lost.is_err(), "the old primary is stopped");
        let written = world
            .db
            .run("INSERT INTO item VALUES (3, 'after')")
            .on_pool("standby")
            .execute()
            .await;
        assert_eq!(written.expect("a write on the new primary"), 1);
    });
    let rows = world.cluster.execute("n1", "SELECT id FROM item ORDER BY id").unwrap();
    assert_eq!(rows, [[Some("1".to_owned())], [Some("3".to_owned())]]);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let world = world(seed);
        world.sim.block_on(async {
            let inserts = (0..20i32).map(|id| world.db.run("INSERT INTO item VALUES ($1, 'x')").bind(id).execute());
            let results = futures::future::join_all(inserts.map(IntoFuture::into_future)).await;
            assert!(results.into_iter().all(|result| result.is_ok()));
        });
        world.sim.advance(Duration::from_secs(5));
        (world.sim.trace_hash(), world.cluster.history().events().len())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).0, run(6).0);
}
