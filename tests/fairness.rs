//! Callers are served in the order they asked, and a waiter that dies passes its turn on.
//!
//! With one session the order can be seen from outside, exactly: whoever holds the session writes it down.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::future::{join_all, poll_fn};
use gdbpool::{BoxFuture, ConnectionPool, Instant, PoolConfig, Runtime};
use gdbpool_sim::{ScriptedServer, Sim, Stream};

use counting::start;
use runtimes::{on_each, until};
use support::{Server, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

fn open(runtime: &Arc<dyn Runtime>, dsn: &str, size: u32) -> ConnectionPool {
    let config = PoolConfig::new("p", dsn).expect("a DSN").size(size);
    ConnectionPool::open(Arc::clone(runtime), config).expect("a pool")
}

/// All sessions are back, and nobody waits.
async fn all_back(runtime: &dyn Runtime, pool: &ConnectionPool) {
    let back = || {
        let status = pool.status();
        status.idle == status.size && status.waiting == 0
    };
    until(runtime, "every slot is back", back).await;
    let status = pool.status();
    assert_eq!(status.overtakes, 0, "{status}");
}

// --- The order of service ---------------------------------------------------------------------------------------------

async fn in_order(runtime: Arc<dyn Runtime>, dsn: String) {
    const CALLERS: usize = 200;
    let pool = open(&runtime, &dsn, 1);
    let lease = pool.checkout().await.expect("a lease");
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (pool, served) = (pool.clone(), Arc::clone(&served));
        let mut call: BoxFuture<'static, ()> = Box::pin(async move {
            let lease = pool.checkout().await.expect("a lease");
            served.lock().expect("a list").push(caller);
            drop(lease);
        });
        assert!(futures::poll!(&mut call).is_pending(), "the session is taken");
        callers.push(call);
    }
    // They are started in another order than they asked in.
    let tasks: Vec<_> = callers.into_iter().rev().map(|call| start(&*runtime, call)).collect();
    drop(lease);
    for task in join_all(tasks).await {
        task.expect("a caller");
    }
    let served = std::mem::take(&mut *served.lock().expect("a list"));
    assert_eq!(served, (0..CALLERS).collect::<Vec<_>>());
    all_back(&*runtime, &pool).await;
    let status = pool.status();
    assert_eq!((status.waits, status.connects), (CALLERS as u64 + 1, 1), "{status}");
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn two_hundred_waiters_are_served_in_the_order_of_their_first_polls() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(in_order(runtime, fresh_database(&shared_cluster(server).primary))));
    }
}

// --- Under load -------------------------------------------------------------------------------------------------------

/// When, on a clock that counts such moments, a caller was about to ask, was in the queue for certain, and had the session.
#[derive(Clone, Copy, Debug)]
struct Visit {
    about_to_ask: u64,
    /// `None`: served at once.
    queued: Option<u64>,
    served: u64,
}

async fn visit(pool: &ConnectionPool, moments: &AtomicU64) -> (Visit, gdbpool::Lease) {
    let moment = || moments.fetch_add(1, Ordering::SeqCst);
    let about_to_ask = moment();
    let mut asking = Box::pin(pool.checkout());
    let mut queued = None;
    let lease = poll_fn(|cx| {
        let polled = asking.as_mut().poll(cx);
        if polled.is_pending() && queued.is_none() {
            queued = Some(moment());
        }
        polled
    });
    let lease = lease.await.expect("a lease");
    let visit = Visit {
        about_to_ask,
        queued,
        served: moment(),
    };
    (visit, lease)
}

/// Pairs of which one was in the queue before the other asked, and was served after it.
fn overtakes(visits: &mut [Visit]) -> usize {
    visits.sort_by_key(|visit| visit.served);
    let later_served = |first: &Visit, at: usize| {
        visits[at + 1..]
            .iter()
            .filter(|later| later.queued.is_some_and(|queued| queued < first.about_to_ask))
            .count()
    };
    visits
        .iter()
        .enumerate()
        .map(|(at, first)| later_served(first, at))
        .sum()
}

/// Every task asks again as soon as it has given its session back: with one session, each lease is handed from task to
/// task.
async fn load(runtime: Arc<dyn Runtime>, dsn: String, sessions: u32) {
    const TASKS: usize = 12;
    const ROUNDS: usize = 150;
    let pool = open(&runtime, &dsn, sessions);
    let moments = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|task| {
        let (pool, moments) = (pool.clone(), Arc::clone(&moments));
        start(&*runtime, async move {
            let mut visits = Vec::new();
            for round in 0..ROUNDS {
                let (visit, lease) = visit(&pool, &moments).await;
                visits.push(visit);
                // Some work, so that returned sessions come back settled and unsettled.
                if (task + round) % 5 == 0 {
                    lease.query("SELECT 1", &[]).await.expect("a row");
                }
                drop(lease);
            }
            visits
        })
    });
    let mut visits = Vec::new();
    for task in join_all(tasks.collect::<Vec<_>>()).await {
        visits.extend(task.expect("a task"));
    }
    assert_eq!(visits.len(), TASKS * ROUNDS);
    all_back(&*runtime, &pool).await;
    let status = pool.status();
    println!(
        "{sessions} session(s): {} visits, {} waited, {} overtakes",
        visits.len(),
        status.waits,
        status.overtakes
    );
    assert!(status.waits > 0, "nobody had to wait: {status}");
    if sessions == 1 {
        assert_eq!(overtakes(&mut visits), 0, "somebody was overtaken");
    }
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn nobody_is_overtaken_under_load() {
    for server in SERVERS {
        for sessions in [1, 4] {
            on_each(|runtime| {
                let dsn = fresh_database(&shared_cluster(server).primary);
                Box::pin(load(runtime, dsn, sessions))
            });
        }
    }
}

// --- Waiters that die -------------------------------------------------------------------------------------------------

/// How a caller behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Takes its session and holds it.
    Lives,
    /// Gives up after this long, in the queue or with a session on its way.
    LeavesAfter(Duration),
    /// Is gone when it is called: its session has been sent and nobody takes it.
    LeavesWhenCalled,
}

/// What a caller has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Asked,
    Left,
    Served,
}

/// One caller: asks, may leave, holds its session for `hold`. True when it was served.
async fn call(
    pool: &ConnectionPool,
    runtime: &dyn Runtime,
    fate: Fate,
    hold: Duration,
    mut done: impl FnMut(Deed),
) -> bool {
    let mut asking = Box::pin(pool.checkout());
    let mut patience: BoxFuture<'static, ()> = match fate {
        Fate::LeavesAfter(span) => runtime.sleep_until(runtime.now() + span),
        Fate::Lives | Fate::LeavesWhenCalled => Box::pin(pending()),
    };
    let mut called = false;
    done(Deed::Asked);
    let lease = poll_fn(|cx| {
        if (called && fate == Fate::LeavesWhenCalled) || patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        called = true;
        asking.as_mut().poll(cx).map(Some)
    });
    let Some(lease) = lease.await else {
        // Written down before anybody else can be served.
        done(Deed::Left);
        return false;
    };
    let lease = lease.expect("a session");
    done(Deed::Served);
    if !hold.is_zero() {
        runtime.sleep_until(runtime.now() + hold).await;
    }
    drop(lease);
    true
}

fn fate(random: u64) -> Fate {
    match random % 4 {
        0 => Fate::LeavesAfter(Duration::from_micros(random >> 8 & 0xfff)),
        1 => Fate::LeavesWhenCalled,
        _ => Fate::Lives,
    }
}

async fn dying(runtime: Arc<dyn Runtime>, dsn: String, sessions: u32) {
    const CALLERS: usize = 400;
    let pool = open(&runtime, &dsn, sessions);
    let (served, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..CALLERS).map(|_| {
        let (pool, clock) = (pool.clone(), Arc::clone(&runtime));
        let (served, left) = (Arc::clone(&served), Arc::clone(&left));
        start(&*runtime, async move {
            let random = clock.random();
            let fate = fate(random);
            let hold = Duration::from_micros(if random >> 24 & 1 == 0 { 0 } else { random >> 32 & 0xff });
            let is_served = call(&pool, &*clock, fate, hold, |_| {}).await;
            assert!(is_served || fate != Fate::Lives, "a caller that stayed was not served");
            if is_served { &served } else { &left }.fetch_add(1, Ordering::SeqCst);
        })
    });
    for task in join_all(tasks.collect::<Vec<_>>()).await {
        task.expect("a caller");
    }
    all_back(&*runtime, &pool).await;
    let (served, left) = (served.load(Ordering::SeqCst), left.load(Ordering::SeqCst));
    println!(
        "{sessions} session(s), {CALLERS} callers: {served} served, {left} left; {}",
        pool.status()
    );
    assert!(left > 0 && served > 0);
    // Every session is still good for a lease.
    let leases = join_all((0..sessions).map(|_| pool.checkout())).await;
    for lease in leases {
        lease.expect("a lease").query("SELECT 1", &[]).await.expect("a row");
    }
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn waiters_that_die_pass_their_turn_on() {
    for server in SERVERS {
        for sessions in [1, 3] {
            on_each(|runtime| {
                let dsn = fresh_database(&shared_cluster(server).primary);
                Box::pin(dying(runtime, dsn, sessions))
            });
        }
    }
}

// --- On random schedules ----------------------------------------------------------------------------------------------

/// One run in which everything follows from the seed: who comes when, who leaves, who is polled first.
fn schedule(seed: u64) -> (usize, usize) {
    let sim = Sim::new(seed);
    let _server = ScriptedServer::start(&sim, "10.0.0.1:5432".parse().expect("an address"));
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let draws = Stream::new(seed, "callers", 0);
    let sessions = if seed.is_multiple_of(2) {
        1
    } else {
        2 + (draws.at(0) % 3) as u32
    };
    let callers = 3 + (draws.at(1) % 14) as usize;
    let deeds = Arc::new(Mutex::new(Vec::new()));
    let served = sim.block_on(async {
        let pool = open(&runtime, "host=10.0.0.1 user=app dbname=shop", sessions);
        let tasks = (0..callers).map(|caller| {
            let (pool, clock, deeds) = (pool.clone(), Arc::clone(&runtime), Arc::clone(&deeds));
            let draw = |which| draws.at(2 + 3 * caller as u64 + which);
            let (fate, hold) = (fate(draw(0)), Duration::from_micros(draw(1) % 3 * 500));
            let arrival = Instant::from_nanos(draw(2) % 8 * 500_000);
            start(&*runtime, async move {
                clock.sleep_until(arrival).await;
                let done = |deed| deeds.lock().expect("a list").push((caller, deed));
                let is_served = call(&pool, &*clock, fate, hold, done).await;
                assert!(
                    is_served || fate != Fate::Lives,
                    "seed {seed}: caller {caller} was not served"
                );
                is_served
            })
        });
        let mut served = 0;
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            served += usize::from(task.unwrap_or_else(|_| panic!("seed {seed}: a caller panicked")));
        }
        let status = pool.status();
        assert_eq!(
            (status.leased, status.waiting, status.overtakes),
            (0, 0, 0),
            "seed {seed}: {status}"
        );
        pool.close(Duration::from_secs(5)).await;
        served
    });
    if sessions == 1 {
        let deeds = deeds.lock().expect("a list");
        first_come_first_served(seed, &deeds);
    }
    sim.run_until_idle();
    assert_eq!(sim.live_tasks(), 0, "seed {seed}: tasks outlived the pool");
    (callers, served)
}

/// With one session, whoever is served has waited longest of those that are still there.
fn first_come_first_served(seed: u64, deeds: &[(usize, Deed)]) {
    let mut queue = VecDeque::new();
    for (caller, deed) in deeds {
        match deed {
            Deed::Asked => queue.push_back(caller),
            Deed::Left => queue.retain(|waiting| *waiting != caller),
            Deed::Served => {
                let first = queue.pop_front();
                assert_eq!(first, Some(caller), "seed {seed}: served out of turn: {deeds:?}");
            }
        }
    }
    assert!(queue.is_empty(), "seed {seed}: {queue:?} were never served");
}

#[test]
fn on_five_hundred_random_schedules_everybody_is_served_in_turn() {
    let (mut callers, mut served) = (0, 0);
    for seed in 0..500 {
        let run = schedule(seed);
        callers += run.0;
        served += run.1;
    }
    println!(
        "500 schedules: {callers} callers, {served} served, {} left",
        callers - served
    );
    assert!(served < callers);
}
