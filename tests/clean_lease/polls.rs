//! Every operation dropped after k polls, for all k until it completes, on real servers and every runtime.
//!
//! The polls are those the runtime makes, between its real turns. A case that ends by itself ends its row of cases.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::join;
use gdbpool::{BoxFuture, CloseReport, ErrorKind, InteractionPool, PoolConfig, Runtime};

use super::ops::{OF_A_LEASE, OF_THE_POOL, Row, Site};
use super::runtimes::{on_each, until};
use super::stage::{SERVERS, Stage, config, database};
use super::transaction_ops::OF_TRANSACTIONS;

/// When a future that had its polls is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Right after its last poll.
    AtOnce,
    /// When it is woken and would be polled again.
    Woken,
}

/// Polls a future so many times; gives its output if it was ready by then.
struct UpTo<'a, T> {
    inner: BoxFuture<'a, T>,
    left: u32,
    moment: Moment,
}

impl<'a, T> UpTo<'a, T> {
    fn new(inner: impl Future<Output = T> + Send + 'a, polls: u32, moment: Moment) -> Self {
        let inner = Box::pin(inner);
        let left = polls;
        Self { inner, left, moment }
    }
}

impl<T> Future for UpTo<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.inner.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.left == 0 && self.moment == Moment::AtOnce => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Counts cases and gives each its mark.
#[derive(Default)]
struct Cases {
    marks: AtomicI64,
    longest: AtomicU64,
}

impl Cases {
    fn next(&self, polls: u32) -> i64 {
        self.longest.fetch_max(u64::from(polls), Ordering::Relaxed);
        1_000 + self.marks.fetch_add(1, Ordering::Relaxed)
    }

    fn report(&self, what: &str) {
        let (cases, longest) = (self.marks.load(Ordering::Relaxed), self.longest.load(Ordering::Relaxed));
        println!("{what}: {cases} cases, up to {longest} polls");
    }
}

fn check(row: Row, completed: bool, rows: i64, case: &str) {
    let expected = match row {
        Row::Never => 0..=0,
        Row::Committed if completed => 1..=1,
        Row::Committed | Row::Perhaps => 0..=1,
    };
    assert!(expected.contains(&rows), "{case}: {rows} rows, completed: {completed}");
}

async fn operations_of_a_lease(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    let cases = Cases::default();
    for (name, row, op) in OF_A_LEASE {
        for (moment, goes_on) in [(Moment::AtOnce, false), (Moment::Woken, false), (Moment::AtOnce, true)] {
            for polls in 0.. {
                let (case, mark) = (
                    format!("{name} dropped after {polls} polls, {moment:?}"),
                    cases.next(polls),
                );
                let lease = stage.one.checkout().await.expect("a session");
                let done = UpTo::new(op(&lease, mark), polls, moment).await;
                if goes_on {
                    // The dropped operation is finished or not; either way the borrower can go on.
                    lease
                        .batch("ROLLBACK")
                        .await
                        .unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    let next = lease.query_one("SELECT 1::int4", &[]).await;
                    assert_eq!(
                        next.unwrap_or_else(|error| panic!("{case}: {error:?}"))
                            .get::<_, i32>(0),
                        1
                    );
                }
                drop(lease);
                let rows = stage.is_clean(mark, &case).await;
                check(*row, done.is_some() || (*row == Row::Never), rows, &case);
                if let Some(result) = done {
                    result.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    break;
                }
            }
        }
    }
    cases.report("operations of a lease");
    let status = stage.one.status();
    assert_eq!(status.connects, 2, "no dropped operation costs a session: {status}");
    stage.close().await;
}

#[test]
fn every_operation_of_a_lease_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(operations_of_a_lease(runtime, database(server))));
    }
}

/// What the pool is like when an operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    /// Its session has to be made.
    Cold,
    /// Its session is idle.
    Warm,
    /// Its session has gone unused for so long that it is asked for a sign of life.
    Stale,
    /// Its session is held by somebody, who gives it back in the midst.
    Busy,
}

async fn operations_of_the_pool(runtime: Arc<dyn Runtime>, dsn: String, pool: Pool) {
    let ping_after = (pool == Pool::Stale).then_some(Duration::ZERO);
    let stage = Stage::open_with(&runtime, config(&dsn).ping_after(ping_after), &dsn).await;
    let site = Site {
        db: stage.db.clone(),
        one: stage.one.clone(),
    };
    let cases = Cases::default();
    for (name, row, op) in OF_THE_POOL.iter().chain(OF_TRANSACTIONS) {
        for moment in [Moment::AtOnce, Moment::Woken] {
            for polls in 0.. {
                let (case, mark) = (
                    format!("{name} dropped after {polls} polls, {moment:?}, {pool:?}"),
                    cases.next(polls),
                );
                if pool == Pool::Cold {
                    stage.without_session().await;
                }
                let held = match pool {
                    Pool::Busy => Some(stage.one.checkout().await.expect("a session")),
                    _ => None,
                };
                if let Some(held) = &held {
                    held.batch("BEGIN; SET work_mem = '3MB'").await.expect("work");
                }
                let done = UpTo::new(join(op(&site, mark), async move { drop(held) }), polls, moment).await;
                let rows = stage.is_clean(mark, &case).await;
                check(*row, done.is_some(), rows, &case);
                if let Some((result, ())) = done {
                    result.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    break;
                }
            }
        }
    }
    cases.report(&format!("operations of the pool, {pool:?}"));
    stage.close().await;
}

#[test]
fn every_operation_of_a_cold_pool_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(operations_of_the_pool(runtime, database(server), Pool::Cold)));
    }
}

#[test]
fn every_operation_of_a_warm_pool_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(operations_of_the_pool(runtime, database(server), Pool::Warm)));
    }
}

#[test]
fn every_operation_of_a_stale_pool_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(operations_of_the_pool(runtime, database(server), Pool::Stale)));
    }
}

#[test]
fn every_operation_of_a_busy_pool_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(operations_of_the_pool(runtime, database(server), Pool::Busy)));
    }
}

type Waiting = for<'a> fn(&'a Site) -> BoxFuture<'a, ()>;

/// Operations that wait for the pool itself, and leave it open.
const WAITS: &[(&str, Waiting)] = &[
    ("warm_up", |site| {
        Box::pin(async move {
            site.one
                .warm_up(Duration::from_secs(60))
                .await
                .expect("a session in a minute")
        })
    }),
    ("drain", |site| {
        Box::pin(async move { drop(site.one.drain(SHORT).await) })
    }),
];

async fn waits_for_the_pool(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open_with(&runtime, config(&dsn).close_timeout(4 * SHORT), &dsn).await;
    let site = Site {
        db: stage.db.clone(),
        one: stage.one.clone(),
    };
    let cases = Cases::default();
    for (name, wait) in WAITS {
        for (moment, held) in [(Moment::AtOnce, false), (Moment::Woken, false), (Moment::AtOnce, true)] {
            for polls in 0.. {
                let (case, mark) = (
                    format!("{name} dropped after {polls} polls, {moment:?}"),
                    cases.next(polls),
                );
                stage.without_session().await;
                stage.one.resize(1, 1).expect("bounds");
                let lease = match held {
                    true => Some(stage.one.checkout().await.expect("a session")),
                    false => None,
                };
                let done = UpTo::new(wait(&site), polls, moment).await;
                stage.one.resize(0, 1).expect("bounds");
                drop(lease);
                stage.is_clean(mark, &case).await;
                if done.is_some() {
                    break;
                }
            }
        }
    }
    cases.report("waits for the pool");
    stage.close().await;
}

#[test]
fn waiting_for_the_pool_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(waits_for_the_pool(runtime, database(server))));
    }
}

type Ending = for<'a> fn(&'a InteractionPool) -> BoxFuture<'a, Vec<CloseReport>>;

const SHORT: Duration = Duration::from_millis(3);

/// Operations that end the pool `ending`.
const ENDINGS: &[(&str, Ending)] = &[
    ("ConnectionPool::close", |db| {
        Box::pin(async move {
            match db.pool("ending") {
                Ok(pool) => vec![pool.close(SHORT).await],
                Err(_) => Vec::new(),
            }
        })
    }),
    ("InteractionPool::close", |db| {
        Box::pin(async move { db.close(SHORT).await })
    }),
    ("remove_pool", |db| {
        Box::pin(async move { vec![db.remove_pool("ending", SHORT).await.expect("a pool")] })
    }),
];

/// Sessions that call themselves so, as the server sees them.
async fn sessions_named(stage: &Stage, name: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    let count = stage.db.run(count).bind(name.to_owned()).on_pool("watch");
    count.scalar().await.expect("a look at the server")
}

async fn no_session_is_named(stage: &Stage, name: &str) {
    while sessions_named(stage, name).await != 0 {
        stage
            .runtime
            .sleep_until(stage.runtime.now() + Duration::from_millis(2))
            .await;
    }
}

async fn endings(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    let cases = Cases::default();
    for (name, ending) in ENDINGS {
        for (moment, held) in [(Moment::AtOnce, false), (Moment::AtOnce, true), (Moment::Woken, true)] {
            for polls in 0.. {
                let mark = cases.next(polls);
                let (case, app) = (
                    format!("{name} dropped after {polls} polls, {moment:?}"),
                    format!("ending {mark}"),
                );
                let config = |name| {
                    PoolConfig::new(name, &dsn)
                        .expect("a DSN")
                        .size(2)
                        .close_timeout(4 * SHORT)
                        .application_name(&app)
                };
                let pools = InteractionPool::builder(Arc::clone(&runtime))
                    .pool(config("first"))
                    .pool(config("ending"));
                let db = pools.open().await.expect("open");
                let one = db.pool("ending").expect("a pool");
                let (lease, other) = (
                    one.checkout().await.expect("a session"),
                    one.checkout().await.expect("another"),
                );
                lease.batch("BEGIN; SELECT pg_advisory_lock(77)").await.expect("work");
                drop(other);
                let lease = held.then_some(lease);
                let done = UpTo::new(ending(&db), polls, moment).await;
                assert_eq!(
                    one.status().is_closed,
                    polls > 0,
                    "{case}: closed from the first poll on"
                );
                if polls > 0 {
                    let refused = one.checkout().await.expect_err("closed");
                    assert!(matches!(refused.kind(), ErrorKind::PoolClosed), "{case}: {refused}");
                }
                drop(lease);
                drop(db);
                one.close(Duration::from_secs(60)).await;
                until(&*runtime, &format!("all slots are free after {case}"), || {
                    one.status().size == 0
                })
                .await;
                no_session_is_named(&stage, &app).await;
                if done.is_some() {
                    break;
                }
            }
        }
    }
    cases.report("endings");
    stage.close().await;
}

#[test]
fn every_ending_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(endings(runtime, database(server))));
    }
}

async fn openings(runtime: Arc<dyn Runtime>, dsn: String) {
    let stage = Stage::open(&runtime, &dsn).await;
    let cases = Cases::default();
    for moment in [Moment::AtOnce, Moment::Woken] {
        for polls in 0.. {
            let app = format!("opening {}", cases.next(polls));
            let config = PoolConfig::new("one", &dsn)
                .expect("a DSN")
                .size(3)
                .min_size(2)
                .application_name(&app);
            let done = UpTo::new(
                InteractionPool::builder(Arc::clone(&runtime)).pool(config).open(),
                polls,
                moment,
            )
            .await;
            if done.is_some() {
                assert_eq!(sessions_named(&stage, &app).await, 2);
            }
            let completed = done.is_some();
            // The last handle closes the pools, also when there never was one.
            drop(done);
            no_session_is_named(&stage, &app).await;
            if completed {
                break;
            }
        }
    }
    cases.report("openings");
    stage.close().await;
}

#[test]
fn opening_can_be_dropped_after_each_poll() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(openings(runtime, database(server))));
    }
}
