//! Whatever is dropped where no executor runs, or after the executor is gone, neither panics nor leaks.
//!
//! Counted: tasks and streams that are alive, calls to the runtime made from a drop, and whether anything still holds the
//! runtime, as everything of a pool does.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a hand-written `block_on` stands for a thread that knows of no executor"
)]

#[expect(dead_code, reason = "only its `block_on` is needed here")]
#[path = "support/bare_runtime.rs"]
mod bare_runtime;
#[path = "support/counting.rs"]
mod counting;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{SinkExt, StreamExt};
use gdbpool::{
    BoxFuture, ConnectionPool, ErrorKind, InteractionPool, Lease, ListenEvent, PoolConfig, RowStream, Runtime,
};
use gdbpool_sim::{Answer, RowSet, ScriptedServer, Sim, StartStep, StartUp, Step, Type};

use counting::{Counting, Counts};
use runtimes::until;
use support::{Server, eventually, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// Anything that is held, and dropped in the end.
type Held = Box<dyn Send>;

/// A future that was begun, and whatever it holds.
type Begun = BoxFuture<'static, ()>;

// --- In the simulator: everything that can be held, in every order ----------------------------------------------------

/// What is alive when the end comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    CheckoutGranted,
    CheckoutQueued,
    Closing,
    Connecting,
    CopyIn,
    Idle,
    Lease,
    LeaseRows,
    Listening,
    OpenTransaction,
    Pinging,
    Preparing,
    Running,
    Settling,
    Streaming,
    WarmingUp,
}

const SCENES: [Scene; 16] = [
    Scene::CheckoutGranted,
    Scene::CheckoutQueued,
    Scene::Closing,
    Scene::Connecting,
    Scene::CopyIn,
    Scene::Idle,
    Scene::Lease,
    Scene::LeaseRows,
    Scene::Listening,
    Scene::OpenTransaction,
    Scene::Pinging,
    Scene::Preparing,
    Scene::Running,
    Scene::Settling,
    Scene::Streaming,
    Scene::WarmingUp,
];

/// What goes first.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The executor, then what is held, then the pool.
    Executor,
    /// What is held, then the pool, and the executor never runs again.
    Held,
    /// The pool, then the executor, then what is held.
    Pool,
}

fn script(server: &ScriptedServer) {
    let number = |n: i32| vec![n.into()];
    let rows = RowSet::new(&[("n", Type::Int4)], vec![number(1), number(2), number(3)]);
    server.on(
        "SELECT 1",
        Answer::Rows(RowSet::new(&[("n", Type::Int4)], vec![number(1)])),
    );
    server.on("SELECT n FROM t", Answer::RowsThenStall(rows, 1));
    server.on("SELECT pg_sleep(3)", Answer::Never);
    server.on("SELECT parsed", Answer::Never.at(Step::Parse));
    server.on("COPY t FROM STDIN", Answer::CopyIn);
}

/// Runs `work` until only time or another event can move it on, and keeps it.
fn begin(sim: &Sim, work: impl Future<Output = ()> + Send + 'static) -> Held {
    let mut begun = sim.manual(Box::pin(work) as Begun);
    assert!(begun.settle().is_pending(), "it was to be left half done");
    Box::new(begun)
}

fn stage(sim: &Sim, server: &ScriptedServer, db: &InteractionPool, scene: Scene) -> Vec<Held> {
    let pool = db.pool("p").expect("a pool");
    let lease = |pool: &ConnectionPool| sim.block_on(pool.checkout()).expect("a lease");
    let (db, asking) = (db.clone(), pool.clone());
    let ask = async move { drop(asking.checkout().await) };
    match scene {
        Scene::Idle => drop(lease(&pool)),
        Scene::Lease => return vec![Box::new(lease(&pool))],
        Scene::Listening => {
            let mut subscription = sim.block_on(db.listen_on("c").subscribe()).expect("a subscription");
            assert_eq!(sim.block_on(subscription.next()), Some(ListenEvent::Subscribed));
            return vec![Box::new(subscription)];
        }
        Scene::OpenTransaction => {
            let lease = lease(&pool);
            sim.block_on(lease.batch("BEGIN")).expect("begin");
            return vec![Box::new(lease)];
        }
        Scene::CheckoutQueued | Scene::CheckoutGranted => {
            let lease = lease(&pool);
            let waiting = begin(sim, ask);
            if scene == Scene::CheckoutQueued {
                return vec![waiting, Box::new(lease)];
            }
            drop(lease);
            return vec![waiting];
        }
        Scene::Connecting => {
            server.set_start_up(StartUp::Hang(StartStep::Authenticated));
            return vec![begin(sim, ask)];
        }
        Scene::Pinging => {
            drop(lease(&pool));
            sim.advance(Duration::from_secs(1));
            server.stall_session(0);
            return vec![begin(sim, ask)];
        }
        Scene::Settling => {
            server.on("CLOSE ALL", Answer::Never);
            let lease = lease(&pool);
            sim.block_on(lease.query("SELECT 1", &[])).expect("a row");
            drop(lease);
            sim.run_until_idle();
            assert_eq!(pool.status().settling, 1);
        }
        Scene::CopyIn | Scene::LeaseRows | Scene::Preparing | Scene::Running => {
            return vec![begin(sim, call(scene, db, pool))];
        }
        Scene::Streaming => {
            let mut rows = sim
                .block_on(db.run("SELECT n FROM t").stream().into_future())
                .expect("rows");
            sim.block_on(rows.next()).expect("a row").expect("a good row");
            return vec![Box::new(rows)];
        }
        Scene::Closing => {
            let lease = lease(&pool);
            let closing = begin(sim, async move { drop(db.close(Duration::from_secs(60)).await) });
            return vec![closing, Box::new(lease)];
        }
        Scene::WarmingUp => {
            server.set_start_up(StartUp::Hang(StartStep::Requested));
            pool.resize(1, 1).expect("a size");
            return vec![begin(
                sim,
                async move { drop(pool.warm_up(Duration::from_secs(5)).await) },
            )];
        }
    }
    Vec::new()
}

/// Calls that will not get their whole answer.
async fn call(scene: Scene, db: InteractionPool, pool: ConnectionPool) {
    match scene {
        Scene::CopyIn => {
            let lease = pool.checkout().await.expect("a lease");
            let mut copy = pin!(lease.copy_in("COPY t FROM STDIN").await.expect("a copy"));
            copy.send("1\n".into()).await.expect("a line");
            std::future::pending::<()>().await;
        }
        Scene::LeaseRows => {
            let lease = pool.checkout().await.expect("a lease");
            let mut rows = lease.query_stream("SELECT n FROM t", &[]).await.expect("rows");
            while rows.next().await.is_some() {}
        }
        Scene::Preparing => drop(db.run("SELECT parsed").await),
        _ => drop(db.run("SELECT pg_sleep(3)").await),
    }
}

fn nothing_is_left(counts: &Counts, runtime: &Weak<Counting>, what: &str) {
    assert_eq!(counts.tasks.now(), 0, "{what}: a task is alive");
    assert_eq!(counts.streams.now(), 0, "{what}: a stream is open");
    assert_eq!(runtime.strong_count(), 0, "{what}: something holds the runtime");
}

fn play(scene: Scene, order: Order, seed: u64) {
    let what = format!("{scene:?}, first goes {order:?}, seed {seed}");
    let sim = Sim::new(seed);
    let server = scripted::server(&sim, 1);
    script(&server);
    let runtime = Arc::new(Counting::new(Arc::new(sim.runtime())));
    let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
    let builder = InteractionPool::builder(runtime).pool(scripted::config("p", 1).size(1));
    let db = sim.block_on(builder.open()).expect("open");
    let held = stage(&sim, &server, &db, scene);
    counts.only_now.store(true, Ordering::SeqCst);
    match order {
        Order::Executor => {
            drop(sim);
            drop(held);
            drop(db);
        }
        Order::Held => {
            drop(held);
            drop(db);
            drop(sim);
        }
        Order::Pool => {
            drop(db);
            drop(sim);
            drop(held);
        }
    }
    let improper = counts.improper_calls.load(Ordering::SeqCst);
    assert_eq!(improper, 0, "{what}: a drop used the runtime");
    nothing_is_left(&counts, &weak, &what);
}

#[test]
fn every_scene_ends_in_every_order() {
    let mut played = 0;
    for scene in SCENES {
        for order in [Order::Executor, Order::Held, Order::Pool] {
            for seed in 0..4 {
                play(scene, order, seed);
                played += 1;
            }
        }
    }
    println!("{played} ends: no task, no stream and no pool is left");
}

/// Dropped outside the executor, which runs on: the sessions are ended properly.
#[test]
fn an_executor_that_runs_on_cleans_up() {
    for scene in SCENES {
        let sim = Sim::new(7);
        let server = scripted::server(&sim, 1);
        script(&server);
        let runtime = Arc::new(Counting::new(Arc::new(sim.runtime())));
        let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
        let builder = InteractionPool::builder(runtime).pool(scripted::config("p", 1).size(1));
        let db = sim.block_on(builder.open()).expect("open");
        drop(stage(&sim, &server, &db, scene));
        drop(db);
        // The longest bound of the defaults: connecting.
        sim.advance(Duration::from_secs(13));
        nothing_is_left(&counts, &weak, &format!("{scene:?}"));
    }
}

/// A call that waits for its answer when the executor goes is woken, and says so.
#[test]
fn a_call_under_way_learns_of_the_end() {
    for seed in 0..4 {
        let sim = Sim::new(seed);
        let server = scripted::server(&sim, 1);
        script(&server);
        let builder = InteractionPool::builder(sim.runtime()).pool(scripted::config("p", 1).size(1));
        let db = sim.block_on(builder.open()).expect("open");
        let mut call = sim.manual(Box::pin(async move { db.run("SELECT pg_sleep(3)").await }));
        assert!(call.settle().is_pending(), "it was to be left half done");
        drop(sim);
        assert!(call.is_woken(), "seed {seed}");
        let ended = call.poll();
        let Poll::Ready(Err(error)) = ended else {
            panic!("seed {seed}: {ended:?}")
        };
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
    }
}

// --- On real executors ------------------------------------------------------------------------------------------------

/// A pool in the middle of everything: a statement that runs, one that settles, callers that wait, and these.
struct Busy {
    db: InteractionPool,
    transaction: Lease,
    rows: RowStream,
    _others: Vec<Held>,
}

async fn busy(runtime: Arc<Counting>, dsn: &str) -> Busy {
    let config = PoolConfig::new("p", dsn).expect("a DSN").size(5);
    let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
    let db = builder.open().await.expect("open");
    let pool = db.pool("p").expect("a pool");
    let transaction = pool.checkout().await.expect("a lease");
    transaction
        .batch("BEGIN; SELECT pg_advisory_xact_lock(1)")
        .await
        .expect("a lock");
    let rows = db.run("SELECT generate_series(1, 10000000)").read().stream();
    let mut rows = rows.await.expect("rows");
    rows.next().await.expect("a row").expect("a good row");
    let idle_in_use = pool.checkout().await.expect("a lease");
    let sleeping = db.clone();
    let mut sleep: Begun = Box::pin(async move { drop(sleeping.run("SELECT pg_sleep(30)").await) });
    let settling = pool.checkout().await.expect("a lease");
    let mut waits: Begun = Box::pin(async move { drop(settling.batch("SELECT pg_advisory_xact_lock(1)").await) });
    assert!(futures::poll!(&mut waits).is_pending());
    let all_out = until(&*runtime, "all sessions are out", || pool.status().leased == 5);
    assert!(matches!(select(&mut sleep, pin!(all_out)).await, Either::Right(_)));
    let mut others: Vec<Held> = vec![Box::new(sleep), Box::new(idle_in_use)];
    for _ in 0..3 {
        let asking = pool.clone();
        let mut ask: Begun = Box::pin(async move { drop(asking.checkout().await) });
        assert!(futures::poll!(&mut ask).is_pending());
        others.push(Box::new(ask));
    }
    // Its request waits for the lock: the session settles.
    drop(waits);
    Busy {
        db,
        transaction,
        rows,
        _others: others,
    }
}

impl Busy {
    /// Uses of what has lost its executor: errors, or waits, and no panic.
    fn used_after_the_end(&mut self) {
        let answer = bare_runtime::block_on(self.transaction.query("SELECT 1", &[]));
        let error = answer.expect_err("the session is gone");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        bare_runtime::block_on(async { while let Some(Ok(_)) = self.rows.next().await {} });
        let mut context = Context::from_waker(Waker::noop());
        let pool = self.db.pool("p").expect("a pool");
        let asked = pin!(pool.checkout()).as_mut().poll(&mut context);
        assert!(asked.is_pending(), "{asked:?}");
        let ran = pin!(self.db.run("SELECT 1").into_future()).as_mut().poll(&mut context);
        assert!(ran.is_pending(), "{ran:?}");
        println!("after the end: {}", pool.status());
    }
}

#[cfg(feature = "tokio")]
fn tokio_runtime(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().expect("tokio")
}

#[cfg(feature = "tokio")]
fn counting_tokio(tokio: &tokio::runtime::Runtime) -> Arc<Counting> {
    let adapter: Arc<dyn Runtime> = Arc::new(gdbpool::Tokio::new(tokio.handle().clone()));
    Arc::new(Counting::new(adapter))
}

/// After `tokio` is shut down, on a thread that knows of no executor.
#[cfg(feature = "tokio")]
#[test]
fn tokio_is_shut_down_first() {
    for server in SERVERS {
        for threads in [0, 2] {
            let dsn = fresh_database(&shared_cluster(server).primary);
            let tokio = tokio_runtime(threads);
            let runtime = counting_tokio(&tokio);
            let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
            let mut busy = tokio.block_on(busy(runtime, &dsn));
            drop(tokio);
            busy.used_after_the_end();
            drop(busy);
            nothing_is_left(&counts, &weak, &format!("{server:?}, {threads} threads"));
        }
    }
}

/// On a thread that knows of no executor, while tokio runs on elsewhere.
#[cfg(feature = "tokio")]
#[test]
fn tokio_runs_on() {
    for server in SERVERS {
        let dsn = fresh_database(&shared_cluster(server).primary);
        let tokio = tokio_runtime(2);
        let runtime = counting_tokio(&tokio);
        let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
        drop(tokio.block_on(busy(runtime, &dsn)));
        eventually("all tasks have ended", || {
            counts.tasks.now() == 0 && weak.strong_count() == 0
        });
        nothing_is_left(&counts, &weak, &format!("{server:?}"));
        drop(tokio);
    }
}

/// An executor of the user's own is dropped with tasks in it.
#[cfg(feature = "smol")]
#[test]
fn an_own_smol_executor_goes_first() {
    for server in SERVERS {
        let dsn = fresh_database(&shared_cluster(server).primary);
        let executor = Arc::new(smol::Executor::new());
        let adapter: Arc<dyn Runtime> = Arc::new(gdbpool::Smol::with_executor(&executor));
        let runtime = Arc::new(Counting::new(adapter));
        let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
        let mut busy = smol::block_on(executor.run(busy(runtime, &dsn)));
        drop(executor);
        busy.used_after_the_end();
        drop(busy);
        nothing_is_left(&counts, &weak, &format!("{server:?}"));
    }
}

/// Executors that run for ever: dropped outside of them, everything ends by itself.
#[cfg(any(feature = "smol", feature = "async-std"))]
#[test]
fn global_executors_run_on() {
    let mut runtimes: Vec<Arc<dyn Runtime>> = Vec::new();
    #[cfg(feature = "smol")]
    runtimes.push(Arc::new(gdbpool::Smol::new()));
    #[cfg(feature = "async-std")]
    runtimes.push(Arc::new(gdbpool::AsyncStd::new()));
    for server in SERVERS {
        for adapter in &runtimes {
            let dsn = fresh_database(&shared_cluster(server).primary);
            let runtime = Arc::new(Counting::new(Arc::clone(adapter)));
            let (counts, weak) = (Arc::clone(&runtime.counts), Arc::downgrade(&runtime));
            drop(bare_runtime::block_on(busy(runtime, &dsn)));
            eventually("all tasks have ended", || {
                counts.tasks.now() == 0 && weak.strong_count() == 0
            });
            nothing_is_left(&counts, &weak, &format!("{server:?}"));
        }
    }
}
