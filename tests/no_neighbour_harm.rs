//! A dropped statement is cancelled, and never hurts the next user of its session.
//!
//! What runs on is stopped, so that the next user waits for a few round trips and not for the statement; and a cancel
//! request that comes late stops nobody else's.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, join_all, poll_fn, select};
use gdbpool::types::ToSql;
use gdbpool::{ConnectionPool, Error, ErrorKind, InteractionPool, Outcome, PoolConfig, Runtime};
use gdbpool_sim::{Answer, CancelMode, PipeOptions, Sim, Type};

use counting::{Counting, start};
use runtimes::{on_each, until};
use support::{Cluster, ClusterOptions, Proxy, Server, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

// --- What runs on is stopped ------------------------------------------------------------------------------------------

/// The pool under test has one session; a second pool is for onlookers.
async fn one_session(runtime: &Counting, dsn: &str) -> InteractionPool {
    let one = PoolConfig::new("one", dsn).expect("a DSN").size(1);
    let other = PoolConfig::new("other", dsn).expect("a DSN").size(2);
    let builder = InteractionPool::builder(runtime.clone()).pool(one).pool(other);
    builder.open().await.expect("open")
}

/// Waits until a statement of `db`'s first pool is at work, while it is polled; `sql` is its text.
async fn begin<T>(
    runtime: &dyn Runtime,
    db: &InteractionPool,
    sql: &str,
    work: &mut (impl Future<Output = T> + Unpin),
) {
    let running = async {
        loop {
            let active = db
                .run("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1")
                .bind(sql.to_owned())
                .on_pool("other");
            if active.scalar::<i64>().await.expect("look at the server") == 1 {
                return;
            }
            runtime.sleep_until(runtime.now() + Duration::from_millis(5)).await;
        }
    };
    match select(work, pin!(running)).await {
        Either::Left(_) => panic!("{sql} ended before it was dropped"),
        Either::Right(_) => {}
    }
}

/// A statement of 2 s that starts now on a session of its own; the flag says that it has ended.
fn start_marker(runtime: &Counting, db: &InteractionPool) -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let (flag, db) = (Arc::clone(&ended), db.clone());
    drop(start(runtime, async move {
        if db.run("SELECT pg_sleep(2)").on_pool("other").execute().await.is_ok() {
            flag.store(true, Ordering::SeqCst);
        }
    }));
    ended
}

/// The next user of the one session is served by the very session that was left, before `marker`.
async fn next_user_is_served(runtime: &Counting, db: &InteractionPool, marker: &AtomicBool) {
    let answer = db.run("SELECT 1").scalar::<i32>().await.expect("the next user");
    assert!(
        !marker.load(Ordering::SeqCst),
        "the next user waited for the dropped statement"
    );
    assert_eq!(answer, 1);
    let status = db.pool("one").expect("a pool").status();
    assert_eq!(status.connects, 1, "the session was kept: {status}");
    // One request would do, but one that comes before the server has begun the statement is sent again.
    assert!(runtime.counts.cancels.load(Ordering::SeqCst) >= 1);
    let stopped = runtime.counts.cancelled.load(Ordering::SeqCst);
    assert_eq!(stopped, 1, "the dropped statement was stopped");
}

/// Runs `sql` with a harmless value first, so that what is dropped later is at work and not still being parsed.
async fn dropped_statement<T>(runtime: Arc<dyn Runtime>, dsn: String, sql: &'static str, values: [T; 2])
where
    T: ToSql + Copy + Send + Sync + 'static,
{
    let runtime = Counting::new(runtime);
    let db = one_session(&runtime, &dsn).await;
    let [short, long] = values;
    db.run(sql).bind(short).execute().await.expect("a short one");
    let mut work = db.run(sql).bind(long).execute().into_future();
    begin(&runtime, &db, sql, &mut work).await;
    let marker = start_marker(&runtime, &db);
    drop(work);
    next_user_is_served(&runtime, &db, &marker).await;
    db.close(Duration::ZERO).await;
}

#[test]
fn nobody_waits_for_a_dropped_sleep() {
    for server in SERVERS {
        on_each(|runtime| {
            let dsn = fresh_database(&shared_cluster(server).primary);
            Box::pin(dropped_statement(runtime, dsn, "SELECT pg_sleep($1)", [0.0, 3.0]))
        });
    }
}

#[test]
fn nobody_waits_for_a_dropped_computation() {
    for server in SERVERS {
        on_each(|runtime| {
            let dsn = fresh_database(&shared_cluster(server).primary);
            let sql = "SELECT count(*) FROM generate_series(1::int8, $1)";
            Box::pin(dropped_statement(runtime, dsn, sql, [1i64, 400_000_000]))
        });
    }
}

/// The server is kept from going on by the rows that nobody reads.
async fn dropped_rows(runtime: Arc<dyn Runtime>, dsn: String) {
    let runtime = Counting::new(runtime);
    let db = one_session(&runtime, &dsn).await;
    let rows = db.run("SELECT generate_series(1, 400000000)").read().stream();
    let mut rows = rows.await.expect("a stream");
    for _ in 0..10 {
        rows.next().await.expect("a row").expect("a good row");
    }
    let marker = start_marker(&runtime, &db);
    drop(rows);
    next_user_is_served(&runtime, &db, &marker).await;
    db.close(Duration::ZERO).await;
}

#[test]
fn nobody_waits_for_the_rows_of_a_dropped_stream() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(dropped_rows(runtime, fresh_database(&shared_cluster(server).primary))));
    }
}

/// The lock is held until after the next user was served, so waiting for it would never end.
async fn dropped_lock_wait(runtime: Arc<dyn Runtime>, dsn: String) {
    let runtime = Counting::new(runtime);
    let db = one_session(&runtime, &dsn).await;
    let holder = db.pool("other").expect("a pool").checkout().await.expect("a lease");
    holder
        .batch("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .expect("a table");
    let sql = "UPDATE t SET n = $1";
    db.run(sql).bind(1).execute().await.expect("a short one");
    holder.batch("BEGIN; UPDATE t SET n = 2").await.expect("a lock");
    let mut work = db.run(sql).bind(3).execute().into_future();
    begin(&runtime, &db, sql, &mut work).await;
    drop(work);
    next_user_is_served(&runtime, &db, &AtomicBool::new(false)).await;
    holder.batch("COMMIT").await.expect("commit");
    let n = db.run("SELECT n FROM t").scalar::<i32>().await.expect("a number");
    assert_eq!(
        n, 2,
        "the dropped statement did not come to life when the lock was free"
    );
    drop(holder);
    db.close(Duration::ZERO).await;
}

#[test]
fn nobody_waits_for_a_dropped_lock_wait() {
    for server in SERVERS {
        on_each(|runtime| {
            Box::pin(dropped_lock_wait(
                runtime,
                fresh_database(&shared_cluster(server).primary),
            ))
        });
    }
}

/// On a virtual clock, where the network is all that takes time.
#[test]
fn the_next_user_waits_for_a_few_round_trips() {
    const ONE_WAY: Duration = Duration::from_millis(10);
    let sim = Sim::new(1);
    sim.set_pipe_options(PipeOptions {
        latency: ONE_WAY,
        ..PipeOptions::default()
    });
    let server = scripted::server(&sim, 1);
    server.on(
        "SELECT pg_sleep(3)",
        Answer::tag("SELECT 1").after(Duration::from_secs(3)),
    );
    let one = Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]]);
    server.on("SELECT 1", one);
    let waited = sim.block_on(async {
        let config = scripted::config("p", 1).size(1);
        let db = InteractionPool::builder(sim.runtime())
            .pool(config)
            .open()
            .await
            .expect("open");
        // Both are known to the session, so that only the wait for the session is measured.
        db.run("SELECT 1").scalar::<i32>().await.expect("a number");
        let sleeping = db.run("SELECT pg_sleep(3)").execute().into_future();
        let later = sim.runtime().sleep_until(sim.now() + Duration::from_millis(100));
        assert!(
            matches!(select(sleeping, later).await, Either::Right(_)),
            "dropped at 100 ms"
        );
        let since = sim.now();
        db.run("SELECT 1").scalar::<i32>().await.expect("the next user");
        assert_eq!(server.cancels().len(), 1);
        sim.now() - since
    });
    let round_trips = waited.as_micros() as f64 / (2 * ONE_WAY).as_micros() as f64;
    println!("a 3 s statement dropped at 100 ms: the next user waits {waited:?}, {round_trips:.2} round trips");
    // The cancel request and its end, the drain behind it, the clean-up, the next user's own.
    assert!(round_trips < 5.0, "{round_trips}");
}

/// A request that reaches the server before it has begun the statement is ignored there.
#[test]
fn a_cancel_request_that_came_too_early_is_sent_again() {
    let sim = Sim::new(2);
    let server = scripted::server(&sim, 1);
    server.on(
        "SELECT pg_sleep(3)",
        Answer::tag("SELECT 1").after(Duration::from_secs(3)),
    );
    server.on("SELECT 1", Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]]));
    server.set_cancel_mode(CancelMode::Lost);
    sim.block_on(async {
        let config = scripted::config("p", 1).size(1);
        let db = InteractionPool::builder(sim.runtime())
            .pool(config)
            .open()
            .await
            .expect("open");
        let sleeping = db.run("SELECT pg_sleep(3)").execute().into_future();
        let later = sim.runtime().sleep_until(sim.now() + Duration::from_millis(100));
        assert!(matches!(select(sleeping, later).await, Either::Right(_)));
        let dropped_at = sim.now();
        until(&sim.runtime(), "a request was lost", || !server.cancels().is_empty()).await;
        server.set_cancel_mode(CancelMode::Prompt);
        db.run("SELECT 1").scalar::<i32>().await.expect("the next user");
        let waited = sim.now() - dropped_at;
        println!("the first cancel request came too early: the next user waits {waited:?}");
        assert!(waited < Duration::from_millis(100), "{waited:?}");
        let status = db.pool("p").expect("a pool").status();
        assert_eq!(status.connects, 1, "the session was kept: {status}");
    });
    assert_eq!(server.cancels().len(), 2);
}

// --- A late cancel request stops nobody -------------------------------------------------------------------------------

/// Cancel requests on each runtime and server: at least 10,000 in all.
const CANCELS_EACH: usize = 1_700;
const TASKS: usize = 6;

/// What one task of drops has seen.
#[derive(Debug, Default)]
struct Seen {
    dropped: AtomicUsize,
    answered: AtomicUsize,
    stopped: AtomicUsize,
    asked_next: AtomicUsize,
}

/// The first `polls` polls of `future`; `None` when it is dropped unfinished.
async fn polled<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx).map(Some);
        if polled.is_pending() && left == 0 {
            return Poll::Ready(None);
        }
        polled
    })
    .await
}

/// A short statement in one of the ways a caller can leave it; every statement ends at about the time of its cancel.
async fn leave(db: &InteractionPool, pool: &ConnectionPool, random: u64, seen: &Seen) {
    // Mostly up to 1 ms, now and then up to 8 ms: that a cancel request still finds.
    let longest = if random >> 17 & 7 == 0 { 0.008 } else { 0.001 };
    let seconds = longest * (random >> 8 & 0xff) as f64 / 255.0;
    let polls = 1 + (random >> 16 & 1);
    let sleep = "SELECT pg_sleep($1)";
    let ended = match random & 7 {
        // A statement that needs no clean-up: the next borrower follows right behind the drain.
        0..=3 => polled(polls, db.run(sleep).bind(seconds).execute().into_future()).await,
        4 => polled(polls, db.run(sleep).bind(seconds).read().execute().into_future()).await,
        // Behind these the clean-up follows, which a late cancel request must not hit either.
        5 | 6 => {
            let lease = pool.checkout().await.expect("a lease");
            polled(polls, lease.execute(sleep, &[&seconds])).await
        }
        // The call stays and asks for the last word itself.
        _ => {
            let limited = db
                .run(sleep)
                .bind(seconds)
                .timeout(Duration::from_micros(random >> 24 & 0x3ff));
            Some(limited.execute().await)
        }
    };
    let counter = match ended {
        None => &seen.dropped,
        Some(Ok(_)) => &seen.answered,
        Some(Err(error)) => {
            assert_stopped_by_itself(&error);
            &seen.stopped
        }
    };
    counter.fetch_add(1, Ordering::SeqCst);
}

/// A call with a deadline may be stopped, by its own cancel request: it says so, and is not sure of less than it knows.
fn assert_stopped_by_itself(error: &Error) {
    match error.kind() {
        ErrorKind::Timeout => assert_ne!(error.outcome(), Outcome::Committed, "{error:?}"),
        ErrorKind::CheckoutTimeout(_) => assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}"),
        _ => panic!("{error:?}"),
    }
}

async fn late_cancels(runtime: Arc<dyn Runtime>, proxy: Arc<Proxy>, dsn: String, hits: Arc<AtomicUsize>) {
    let runtime = Counting::new(runtime);
    let config = PoolConfig::new("p", &dsn)
        .expect("a DSN")
        .size(4)
        .cancel_after(Duration::ZERO);
    let db = InteractionPool::builder(runtime.clone())
        .pool(config)
        .open()
        .await
        .expect("open");
    let seen = Arc::new(Seen::default());
    let before = proxy.cancels_seen();
    let tasks = (0..TASKS).map(|_| {
        let (db, proxy, seen, clock) = (db.clone(), Arc::clone(&proxy), Arc::clone(&seen), runtime.clone());
        let pool = db.pool("p").expect("a pool");
        start(&runtime, async move {
            while proxy.cancels_seen() - before < CANCELS_EACH as u64 {
                let random = clock.random();
                proxy.delay_cancels(Duration::from_micros(random >> 40 & 0xfff).min(Duration::from_millis(3)));
                leave(&db, &pool, random, &seen).await;
                // Whoever comes next, on whichever session.
                let number = (random >> 32) as i32;
                let next = db
                    .run("SELECT $1::int4 FROM generate_series(1, 100) LIMIT 1")
                    .bind(number);
                let answer = next.scalar::<i32>().await;
                assert_eq!(
                    answer.unwrap_or_else(|error| panic!("the next user: {error:?}")),
                    number
                );
                seen.asked_next.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    for task in join_all(tasks.collect::<Vec<_>>()).await {
        task.expect("a task of drops");
    }
    let pool = db.pool("p").expect("a pool");
    until(&runtime, "every session has settled", || pool.status().settling == 0).await;
    let counts = &runtime.counts;
    let (sent, hit) = (
        counts.cancels.load(Ordering::SeqCst),
        counts.cancelled.load(Ordering::SeqCst),
    );
    let status = pool.status();
    println!(
        "{sent} cancel requests, {hit} stopped a statement, {} came after its end; {seen:?}; {status}",
        sent - hit
    );
    assert!(sent >= CANCELS_EACH, "{sent} cancel requests");
    assert!(hit > 0, "no cancel request came in time: the statements were too short");
    assert!(sent - hit >= 334, "only {} cancel requests came late", sent - hit);
    hits.fetch_add(hit, Ordering::SeqCst);
    db.close(Duration::from_secs(5)).await;
}

/// Cancel requests that the server obeyed, by its own log.
fn obeyed(cluster: &Cluster) -> usize {
    cluster
        .log()
        .matches("ERROR:  canceling statement due to user request")
        .count()
}

#[test]
fn a_late_cancel_request_stops_nobody_else() {
    for server in SERVERS {
        let cluster = Cluster::start(ClusterOptions::new(server));
        let hits = Arc::new(AtomicUsize::new(0));
        on_each(|runtime| {
            let proxy = Arc::new(Proxy::to_port(cluster.port()));
            let dsn = cluster.dsn_at(proxy.port());
            Box::pin(late_cancels(runtime, proxy, dsn, Arc::clone(&hits)))
        });
        // What the tap saw is what the server did.
        let (hits, obeyed) = (hits.load(Ordering::SeqCst), obeyed(&cluster));
        assert!(
            hits <= obeyed && obeyed <= hits + 3 * TASKS,
            "{hits} seen, {obeyed} in the server's log"
        );
    }
}
