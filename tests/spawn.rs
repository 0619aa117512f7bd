//! Promise: a spawned call runs by itself, its handle gives its result whenever it is asked, and always gives one: also when
//! the call panics or its executor is shut down. And an idempotent write is sent again when its reply is lost.

#[path = "support/one_database.rs"]
mod one_database;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use futures::TryStreamExt;
use gdbpool::types::{IsNull, ToSql, Type};
use gdbpool::{
    AsyncResult, BoxFuture, BoxStream, Endpoint, Error, ErrorKind, Instant, InteractionPool, Outcome, Runtime,
    SocketOptions,
};
use gdbpool_sim::{Answer, Kill, Sim};

use crate::one_database::{World, on_each_server};

const SET_UP: &str = "CREATE TABLE t (n int); CREATE SEQUENCE s";

#[test]
fn every_answer_can_be_waited_for_later() {
    on_each_server(SET_UP, async |world: World| {
        let db = &world.db;
        let insert = db.run("INSERT INTO t VALUES ($1)").bind(7i32).execute().spawn();
        // It runs without being polled.
        world
            .until("it is there", || world.psql("SELECT count(*) FROM t") == "1")
            .await;
        world.until("it says so", || insert.is_finished()).await;
        assert_eq!(insert.await.ok(), Some(1));
        let pool = String::from("main");
        let sql = String::from("SELECT n FROM t WHERE n = :n");
        let ordered = || {
            db.run(sql.clone())
                .bind_named(String::from("n"), 7i32)
                .on_pool(pool.clone())
        };
        assert_eq!(ordered().spawn().await.expect("rows").len(), 1);
        assert_eq!(ordered().one().spawn().await.expect("a row").get::<_, i32>(0), 7);
        assert!(ordered().opt().spawn().await.expect("a row").is_some());
        assert_eq!(ordered().scalar::<i32>().spawn().await.ok(), Some(7));
        assert_eq!(ordered().typed::<(i32,)>().read().spawn().await.ok(), Some(vec![(7,)]));
        let rows = ordered().stream().spawn().await.expect("a stream");
        assert_eq!(rows.try_collect::<Vec<_>>().await.expect("rows").len(), 1);
        let dry = ordered().dry_run().spawn().await.expect("a text");
        assert_eq!(
            dry.text(),
            "SELECT n FROM t WHERE n = (7::pg_catalog.int4)".replace('7', "'7'")
        );
        let batch = db.run("SELECT 1; SELECT 2").batch().spawn().await;
        assert_eq!(batch.map(|results| results.len()).ok(), Some(2));
        let error = db.run("SELECT 1 / 0").spawn().await.expect_err("a division by zero");
        assert!(matches!(error.kind(), ErrorKind::Database), "{error:?}");
        // Several at once, on as many sessions as there are.
        let handles: Vec<AsyncResult<i64>> = (0..20)
            .map(|_| db.run("SELECT nextval('s')").scalar().spawn())
            .collect();
        let mut drawn = Vec::new();
        for handle in handles {
            drawn.push(handle.await.expect("a number"));
        }
        drawn.sort_unstable();
        assert_eq!(drawn, (1..=20).collect::<Vec<i64>>());
    });
}

#[test]
fn a_dropped_handle_lets_the_call_go_on() {
    on_each_server(SET_UP, async |world: World| {
        let slow = "INSERT INTO t SELECT 1 FROM pg_sleep(0.2)";
        drop(world.db.run(slow).execute().spawn());
        world
            .until("it is there", || world.psql("SELECT count(*) FROM t") == "1")
            .await;
        // Also when the last handle of the pools goes.
        let config = gdbpool::PoolConfig::new("other", &world.dsn).expect("a sound DSN");
        let other = InteractionPool::builder(Arc::clone(&world.runtime)).pool(config).open();
        let other = other.await.expect("sound settings");
        drop(other.run(slow).execute().spawn());
        drop(other);
        world
            .until("it is there", || world.psql("SELECT count(*) FROM t") == "2")
            .await;
    });
}

/// A value that cannot be encoded, to the point of panicking.
#[derive(Debug)]
struct Explosive;

impl ToSql for Explosive {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        panic!("it went off")
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    gdbpool::types::to_sql_checked!();
}

#[test]
fn a_panic_is_an_error_and_the_session_is_good() {
    on_each_server(SET_UP, async |world: World| {
        world.db.pool("main").expect("there").resize(1, 1).expect("one session");
        let error = world
            .db
            .run("SELECT $1::int")
            .bind(Explosive)
            .spawn()
            .await
            .expect_err("a panic");
        assert!(matches!(error.kind(), ErrorKind::Panicked), "{error:?}");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("it went off"));
        assert!(!error.is_retryable());
        assert_eq!(world.db.run("SELECT 1").scalar::<i32>().await.ok(), Some(1));
    });
}

/// Lets a panic through a closure whose type says that it gives a future.
fn goes_off<T>() -> T {
    panic!("it went off")
}

#[test]
fn a_function_that_panics_is_rolled_back_and_says_so() {
    on_each_server(SET_UP, async |world: World| {
        let insert = |tx: gdbpool::Transaction| async move { tx.execute("INSERT INTO t VALUES (1)", &[]).await };
        let after = world.db.transact(move |tx| async move {
            insert(tx).await?;
            goes_off::<Result<(), Error>>()
        });
        let before = world.db.transact(|_| async { goes_off::<Result<(), Error>>() });
        let called = world
            .db
            .transact(|_| goes_off::<std::future::Ready<Result<(), Error>>>());
        for (handle, outcome) in [
            (after.spawn(), Outcome::RolledBack),
            (before.spawn(), Outcome::NotExecuted),
            (called.spawn(), Outcome::NotExecuted),
        ] {
            let error = handle.await.expect_err("a panic");
            assert!(matches!(error.kind(), ErrorKind::Panicked), "{error:?}");
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("it went off"));
            assert_eq!(error.outcome(), outcome);
            assert!(!error.is_retryable());
        }
        assert_eq!(world.psql("SELECT count(*) FROM t"), "0");
    });
}

/// A runtime that keeps what it is given to run, until it is let go of or thrown away.
struct Keeping {
    inner: Arc<dyn Runtime>,
    /// `None`: everything goes to the inner one.
    kept: Mutex<Option<Vec<BoxFuture<'static, ()>>>>,
}

impl Runtime for Keeping {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &mut *self.kept.lock().expect("no panic") {
            Some(kept) => kept.push(task),
            None => self.inner.spawn(task),
        }
    }
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(at)
    }
    fn now(&self) -> Instant {
        self.inner.now()
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, std::io::Result<Vec<std::net::SocketAddr>>> {
        self.inner.resolve(host, port)
    }
    fn connect(&self, to: &Endpoint, options: &SocketOptions) -> BoxFuture<'static, std::io::Result<BoxStream>> {
        self.inner.connect(to, options)
    }
}

#[test]
fn an_executor_that_is_shut_down_is_an_error() {
    let sim = Sim::new(7);
    let server = scripted::server(&sim, 1);
    server.on(
        "SELECT 1",
        Answer::rows(&[("n", gdbpool_sim::Type::Int4)], vec![vec![1.into()]]),
    );
    let runtime = Arc::new(Keeping {
        inner: Arc::new(sim.runtime()),
        kept: Mutex::default(),
    });
    let config = scripted::config("one", 1).size(1);
    let db = sim.block_on(InteractionPool::builder(Arc::clone(&runtime)).pool(config).open());
    let db = db.expect("sound settings");
    sim.block_on(db.run("SELECT 1").into_future()).expect("a session");
    let keep = || *runtime.kept.lock().expect("no panic") = Some(Vec::new());
    let take = || runtime.kept.lock().expect("no panic").take().expect("kept");

    // Thrown away before it began.
    keep();
    let handle = db.run("SELECT 1").spawn();
    assert!(!handle.is_finished());
    drop(take());
    assert!(handle.is_finished());
    let error = sim.block_on(handle).expect_err("nobody ran it");
    assert!(matches!(error.kind(), ErrorKind::RuntimeGone), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotExecuted);

    // Thrown away in the midst.
    keep();
    let handle = db.run("SELECT 1").spawn();
    let mut tasks = take();
    assert_eq!(tasks.len(), 1);
    let mut task = sim.manual(tasks.remove(0));
    assert!(task.poll().is_pending(), "the answer is not there yet");
    drop(task);
    let error = sim.block_on(handle).expect_err("it was dropped");
    assert!(matches!(error.kind(), ErrorKind::RuntimeGone), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(!error.is_retryable());

    // A waiter that polls from another task each time is woken all the same.
    keep();
    let handle = db.run("SELECT 1").spawn();
    let mut tasks = take();
    let mut waiter = sim.manual(handle);
    assert!(waiter.poll().is_pending() && waiter.poll().is_pending());
    sim.block_on(tasks.remove(0));
    assert!(waiter.is_woken());
    assert!(matches!(waiter.poll(), std::task::Poll::Ready(Ok(rows)) if rows.len() == 1));
}

const WRITE: &str = "UPDATE t SET n = 1";

/// One session after another is killed while the write is under way; gives how often it was sent, and what came of it.
fn killed(kills: usize, idempotent: bool) -> (usize, Result<u64, Error>) {
    let sim = Sim::new(11);
    let server = scripted::server(&sim, 1);
    server.on(WRITE, Answer::tag("UPDATE 1").after(Duration::from_secs(1)));
    let config = scripted::config("one", 1).size(1).ping_after(None);
    let db = sim.block_on(InteractionPool::builder(sim.runtime()).pool(config).open());
    let db = db.expect("sound settings");
    let run = db.run(WRITE).execute();
    let handle = if idempotent {
        run.idempotent().spawn()
    } else {
        run.spawn()
    };
    let sent = || {
        let sessions = server.sessions();
        let all = sessions.iter().flat_map(|session| &session.statements);
        all.filter(|sql| *sql == WRITE).count()
    };
    for kill in 1..=kills {
        for _ in 0..1_000 {
            if sent() == kill || handle.is_finished() {
                break;
            }
            sim.advance(Duration::from_millis(10));
        }
        if handle.is_finished() {
            break;
        }
        server.kill_session(server.sessions().len() - 1, Kill::Silent);
    }
    let result = sim.block_on(handle);
    (sent(), result)
}

#[test]
fn an_idempotent_write_is_sent_again_within_bounds() {
    let (sent, result) = killed(0, true);
    assert_eq!((sent, result.ok()), (1, Some(1)));
    let (sent, result) = killed(1, false);
    assert_eq!((sent, result.expect_err("lost").outcome()), (1, Outcome::Unknown));
    let (sent, result) = killed(1, true);
    assert_eq!((sent, result.ok()), (2, Some(1)));
    let (sent, result) = killed(2, true);
    assert_eq!((sent, result.ok()), (3, Some(1)));
    let (sent, result) = killed(3, true);
    assert_eq!((sent, result.expect_err("lost").outcome()), (3, Outcome::Unknown));
}

#[test]
fn an_idempotent_write_survives_its_session() {
    on_each_server(SET_UP, async |world: World| {
        let slow = "WITH drawn AS (SELECT nextval('s') AS n) INSERT INTO t SELECT n FROM drawn, \
                    pg_sleep(CASE WHEN n = 1 THEN 3600 ELSE 0 END)";
        let write = world.db.run(slow).idempotent().execute().spawn();
        let pid = world.running("nextval").await;
        world.terminate(pid);
        assert_eq!(write.await.ok(), Some(1));
        assert_eq!(world.psql("SELECT n FROM t"), "2");
    });
}
