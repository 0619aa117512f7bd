//! Which pool an interaction runs on: seen from the servers, each of which answers with its own number.

use std::collections::BTreeMap;
use std::time::Duration;

use gdbpool::{BadInput, ErrorKind, InteractionPool, PoolConfig};
use gdbpool_sim::{Answer, Sim, Type};

use crate::scripted;

struct World {
    sim: Sim,
}

impl World {
    /// Servers 1 to 5.
    fn new() -> Self {
        let sim = Sim::new(41);
        for number in 1..=5u8 {
            let row = vec![i32::from(number).into()];
            scripted::server(&sim, number).on("SELECT me()", Answer::rows(&[("me", Type::Int4)], vec![row]));
        }
        Self { sim }
    }

    fn open(&self, configs: impl IntoIterator<Item = PoolConfig>) -> InteractionPool {
        let builder = InteractionPool::builder(self.sim.runtime());
        let builder = configs.into_iter().fold(builder, gdbpool::InteractionPoolBuilder::pool);
        self.sim.block_on(builder.open()).expect("sound settings")
    }

    /// The number of the server that writes go to.
    fn write(&self, db: &InteractionPool) -> i32 {
        self.sim
            .block_on(db.run("SELECT me()").scalar().into_future())
            .expect("a number")
    }

    fn read(&self, db: &InteractionPool) -> i32 {
        self.sim
            .block_on(db.run("SELECT me()").read().scalar().into_future())
            .expect("a number")
    }

    /// How often each server was read from.
    fn reads(&self, db: &InteractionPool, times: usize) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            *counts.entry(self.read(db)).or_default() += 1;
        }
        counts
    }
}

/// The pool of this number's server.
fn pool(number: u8) -> PoolConfig {
    scripted::config(&format!("p{number}"), number)
}

#[test]
fn the_first_pool_does_everything_not_said_otherwise() {
    let world = World::new();
    let db = world.open([pool(1), pool(2), pool(3)]);
    assert_eq!((world.write(&db), world.read(&db)), (1, 1));
    let db = world.open([pool(1), pool(2).default_pool(), pool(3)]);
    assert_eq!((world.write(&db), world.read(&db)), (2, 2));
    let db = world.open([pool(1), pool(2).default_read()]);
    assert_eq!((world.write(&db), world.read(&db)), (1, 2));
    let db = world.open([pool(1), pool(2).default_write()]);
    assert_eq!((world.write(&db), world.read(&db)), (2, 1));
    let db = world.open([pool(1).default_read(), pool(2).default_write(), pool(3).default_pool()]);
    assert_eq!((world.write(&db), world.read(&db)), (2, 1));
    let db = world.open([pool(1).default_write().default_read().default_pool(), pool(2)]);
    assert_eq!((world.write(&db), world.read(&db)), (1, 1));
}

#[test]
fn a_name_decides_alone() {
    let world = World::new();
    let db = world.open([pool(1).default_write(), pool(2).default_read(), pool(3)]);
    for number in 1..=3 {
        let name = format!("p{number}");
        let write = db.run("SELECT me()").on_pool(&name).scalar::<i32>();
        assert_eq!(world.sim.block_on(write.into_future()).ok(), Some(number));
        let read = db.run("SELECT me()").read().on_pool(&name).scalar::<i32>();
        assert_eq!(world.sim.block_on(read.into_future()).ok(), Some(number));
        assert_eq!(db.pool(&name).expect("the pool").name(), name);
    }
    let names: Vec<String> = db.status().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["p1", "p2", "p3"]);
}

#[test]
fn reads_are_balanced_over_their_set() {
    let world = World::new();
    let db = world.open([
        pool(1),
        pool(2).default_read(),
        pool(3).default_read(),
        pool(4).default_read(),
    ]);
    let counts = world.reads(&db, 600);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    assert!(counts.values().all(|count| (100..=300).contains(count)), "{counts:?}");
    // A member whose sessions are all taken is spared.
    let busy = db.pool("p3").expect("the pool");
    let leases = world
        .sim
        .block_on(futures::future::join_all((0..10).map(|_| busy.checkout())));
    let counts = world.reads(&db, 600);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [2, 4], "{counts:?}");
    drop(leases);
    assert_eq!(world.write(&db), 1, "writes do not go there");
}

#[test]
fn pools_come_and_go_at_run_time() {
    let world = World::new();
    let db = world.open([pool(1)]);
    assert_eq!((world.write(&db), world.read(&db)), (1, 1));
    db.add_pool(pool(2).default_read()).expect("a new pool");
    db.add_pool(pool(3).default_read()).expect("a new pool");
    assert_eq!(world.reads(&db, 100).len(), 2);
    db.add_pool(pool(4).default_write()).expect("a new pool");
    assert_eq!(world.write(&db), 4);
    let remove = |name| {
        world
            .sim
            .block_on(db.remove_pool(name, Duration::ZERO))
            .expect("it is there")
    };
    assert!(remove("p4").cut.is_empty());
    assert_eq!(world.write(&db), 1);
    remove("p2");
    assert_eq!(world.reads(&db, 20), BTreeMap::from([(3, 20)]));
    remove("p3");
    assert_eq!(world.read(&db), 1);
    let error = world
        .sim
        .block_on(db.run("SELECT me()").on_pool("p3").into_future())
        .expect_err("it is gone");
    match error.kind() {
        ErrorKind::BadInput(BadInput::UnknownPool { known, .. }) => assert_eq!(known.len(), 1),
        other => panic!("{other:?}"),
    }
    db.add_pool(pool(3)).expect("the name is free again");
    // A second default pool is refused while there is one, and taken when it is gone.
    db.add_pool(pool(5).default_pool()).expect("a default pool");
    assert_eq!(world.write(&db), 5);
    db.add_pool(pool(2).default_pool()).expect_err("there is one");
    world
        .sim
        .block_on(db.remove_pool("p5", Duration::ZERO))
        .expect_err("others would be left without");
    assert_eq!(world.write(&db), 5);
    remove("p1");
    remove("p3");
    assert!(remove("p5").cut.is_empty(), "the last one may go");
    let error = world
        .sim
        .block_on(db.run("SELECT me()").into_future())
        .expect_err("there is none");
    assert!(
        matches!(error.kind(), ErrorKind::BadInput(BadInput::NoPool)),
        "{error:?}"
    );
}
