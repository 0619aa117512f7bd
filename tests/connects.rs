//! Connecting belongs to the pool: bounded in number and in rate, nothing thrown away, and it outlives whoever asked.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::join_all;
use gdbpool::{CloseReason, ConnectionPool, ErrorKind, Instant, Outcome, PoolConfig, PoolStatus, Runtime};
use gdbpool_sim::{ConnectMode, Kill, Sim, StartUp};

use counting::{Counting, start};
use runtimes::{on_each, until};
use support::{Cluster, ClusterOptions, Mode, Proxy, Server, fresh_database, shared_cluster};

const SERVERS: [Server; 2] = [Server::V15, Server::V18];

/// Pauses between failed attempts are drawn from a quarter of the first up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(400));
const MAX_CONNECTING: u32 = 4;
const SIZE: u32 = 20;
const WAITERS: usize = 1_000;

fn config(dsn: &str) -> PoolConfig {
    bounded(PoolConfig::new("p", dsn).expect("a DSN"))
}

fn bounded(config: PoolConfig) -> PoolConfig {
    config
        .size(SIZE)
        .max_connecting(MAX_CONNECTING)
        .connect_backoff(BACKOFF.0, BACKOFF.1)
        .checkout_timeout(Duration::from_secs(120))
        .application_name("restarted")
}

/// The most attempts that may begin within `span` of an outage: one round of all, then one per shortest pause.
fn most_attempts(span: Duration) -> u128 {
    u128::from(MAX_CONNECTING) + 1 + span.as_nanos() / (BACKOFF.0 / 4).as_nanos()
}

/// What blocks a thread, away from the executor.
#[expect(
    clippy::disallowed_methods,
    reason = "real servers are stopped and started by blocking calls"
)]
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, result) = oneshot::channel();
    std::thread::spawn(move || drop(sender.send(work())));
    result
}

/// Every session that was made is in the pool, or was closed by it.
fn assert_nothing_wasted(status: &PoolStatus) {
    let closed: u64 = CloseReason::ALL.iter().map(|reason| status.closes(*reason)).sum();
    assert_eq!(
        status.dials,
        status.connects + status.connect_failures + u64::from(status.connecting),
        "{status}"
    );
    assert_eq!(
        status.connects - closed,
        u64::from(status.idle + status.leased + status.settling + status.shared),
        "{status}"
    );
}

// --- A restart under waiters ------------------------------------------------------------------------------------------

/// Callers that each want a session for one statement.
fn start_waiters(runtime: &Counting, pool: &ConnectionPool) -> Vec<oneshot::Receiver<()>> {
    let wait = |_| {
        let pool = pool.clone();
        start(runtime, async move {
            loop {
                let lease = pool.checkout().await.expect("a session after the outage");
                match lease.query_one("SELECT 1", &[]).await {
                    Ok(_) => return,
                    // One of the old sessions, whose end nobody had been told of yet.
                    Err(error) if matches!(error.kind(), ErrorKind::Lost) => {
                        assert_eq!(error.outcome(), Outcome::NotExecuted, "{error:?}");
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    (0..WAITERS).map(wait).collect()
}

/// The most sessions of the pool that the server has shown, looked at until `done`.
fn watch_sessions(cluster: &Arc<Cluster>, done: &Arc<AtomicBool>) -> oneshot::Receiver<u64> {
    let (cluster, done) = (Arc::clone(cluster), Arc::clone(done));
    aside(move || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'restarted'";
        let mut most = 0;
        while !done.load(Ordering::SeqCst) {
            // Down, there are none.
            let shown = cluster.try_psql("postgres", sql).unwrap_or_default();
            most = most.max(shown.parse().unwrap_or(0));
        }
        most
    })
}

fn handshakes(cluster: &Cluster) -> usize {
    let authorized = |line: &&str| line.contains("connection authorized") && line.contains("restarted");
    cluster.log().lines().filter(authorized).count()
}

async fn restarted(runtime: Arc<dyn Runtime>, cluster: Arc<Cluster>) {
    let runtime = Counting::new(runtime);
    let counts = Arc::clone(&runtime.counts);
    let proxy = Proxy::to_port(cluster.port());
    let handshakes_before = handshakes(&cluster);
    let pool = ConnectionPool::open(Arc::new(runtime.clone()), config(&cluster.dsn_at(proxy.port()))).expect("a pool");
    let done = Arc::new(AtomicBool::new(false));
    let most_shown = watch_sessions(&cluster, &done);

    let leases = join_all((0..SIZE).map(|_| pool.checkout())).await;
    let waiters = start_waiters(&runtime, &pool);
    until(&runtime, "everybody waits", || {
        pool.status().waiting as usize == WAITERS
    })
    .await;

    let server = Arc::clone(&cluster);
    aside(move || server.stop(Mode::Immediate))
        .await
        .expect("stop the server");
    let (down_at, dials_before) = (runtime.now(), counts.dials.load(Ordering::SeqCst));
    drop(leases);
    let dials_down = || counts.dials.load(Ordering::SeqCst) - dials_before;
    until(&runtime, "the pool has tried in vain", || dials_down() >= 12).await;
    let (outage, attempts) = (runtime.now() - down_at, dials_down());
    assert!(
        (attempts as u128) <= most_attempts(outage),
        "{attempts} attempts in {outage:?}"
    );

    let server = Arc::clone(&cluster);
    aside(move || server.start_again()).await.expect("start the server");
    let up_at = runtime.now();
    for waiter in join_all(waiters).await {
        waiter.expect("a waiter");
    }
    let recovery = runtime.now() - up_at;
    done.store(true, Ordering::SeqCst);

    let back = || pool.status().idle == pool.status().size;
    until(&runtime, "every slot is back", back).await;
    let (status, most_shown) = (pool.status(), most_shown.await.expect("the watch"));
    println!(
        "{attempts} attempts in an outage of {outage:?} (at most {}), at most {} at once; {WAITERS} waiters served \
         {recovery:?} after the server was up; the server showed at most {most_shown} sessions; {status}",
        most_attempts(outage),
        counts.start_ups.peak(),
    );
    assert!(counts.start_ups.peak() <= MAX_CONNECTING as usize, "{counts:?}");
    assert!(most_shown <= u64::from(SIZE), "the server showed {most_shown} sessions");
    assert_nothing_wasted(&status);
    assert_eq!(status.dials, counts.dials.load(Ordering::SeqCst) as u64);
    assert_eq!(status.dials, proxy.connections_accepted(), "{status}");
    assert_eq!(
        status.connects as usize,
        handshakes(&cluster) - handshakes_before,
        "{status}"
    );
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn a_restart_under_a_thousand_waiters() {
    for server in SERVERS {
        let cluster = Arc::new(Cluster::start(
            ClusterOptions::new(server).setting("log_connections", "on"),
        ));
        on_each(|runtime| Box::pin(restarted(runtime, Arc::clone(&cluster))));
    }
}

/// On a virtual clock every attempt can be seen, and an outage may last an hour.
#[test]
fn an_hour_without_a_server() {
    let mut recoveries = Vec::new();
    for seed in 0..5 {
        let sim = Sim::new(seed);
        let runtime = Counting::new(Arc::new(sim.runtime()));
        let server = scripted::server(&sim, 1);
        server.on(
            "SELECT 1",
            gdbpool_sim::Answer::rows(&[("n", gdbpool_sim::Type::Int4)], vec![vec![1.into()]]),
        );
        server.set_start_up(StartUp::Slow(Duration::from_millis(5), Box::new(StartUp::Trust)));
        server.stop(Kill::Silent);
        let config = bounded(scripted::config("p", 1)).checkout_timeout(Duration::from_secs(7_200));
        let pool = ConnectionPool::open(Arc::new(runtime.clone()), config).expect("a pool");
        let waiters = start_waiters(&runtime, &pool);
        let outage = Duration::from_secs(3_600);
        sim.advance(outage);
        let attempts = sim.connect_attempts(&server.endpoint());
        assert_paced(&attempts, outage, seed);
        server.restart();
        let up_at = sim.now();
        sim.block_on(join_all(waiters))
            .into_iter()
            .for_each(|waiter| waiter.expect("a waiter"));
        recoveries.push(sim.now() - up_at);
        // Dials that were begun for waiters whom others served end in the pool, too.
        sim.advance(Duration::from_secs(1));
        let peak = runtime.counts.start_ups.peak();
        assert!(peak <= MAX_CONNECTING as usize, "seed {seed}: {peak} start-ups at once");
        assert_eq!(
            server.connections() as u64,
            pool.status().connects,
            "seed {seed}: a handshake was wasted"
        );
        assert_nothing_wasted(&pool.status());
    }
    recoveries.sort();
    println!(
        "after an hour: {WAITERS} waiters served within {:?} to {:?}",
        recoveries[0], recoveries[4]
    );
    assert!(recoveries[4] < BACKOFF.1 + Duration::from_millis(100));
}

/// After the first round, every attempt keeps its distance from the one before, and none waits longer than the longest
/// pause.
fn assert_paced(attempts: &[Instant], outage: Duration, seed: u64) {
    let rounds = &attempts[MAX_CONNECTING as usize - 1..];
    let pauses = rounds.windows(2).map(|pair| pair[1] - pair[0]);
    let (shortest, longest) = pauses.fold((Duration::MAX, Duration::ZERO), |(least, most), pause| {
        (least.min(pause), most.max(pause))
    });
    assert!(shortest >= BACKOFF.0 / 4, "seed {seed}: {shortest:?}");
    assert!(
        longest <= BACKOFF.1 + Duration::from_millis(1),
        "seed {seed}: {longest:?}"
    );
    let least = (outage.as_nanos() / BACKOFF.1.as_nanos()) as usize;
    assert!(
        attempts.len() >= least,
        "seed {seed}: the pool gave up trying: {} attempts",
        attempts.len()
    );
}

// --- Whose connect it is ----------------------------------------------------------------------------------------------

async fn caller_leaves(runtime: Arc<dyn Runtime>, port: u16, dsn: String) {
    let proxy = Proxy::to_port(port);
    proxy.delay_new_connections(Duration::from_millis(100));
    let dsn = dsn.replace(&format!("port={port}"), &format!("port={}", proxy.port()));
    let pool = ConnectionPool::open(Arc::clone(&runtime), config(&dsn)).expect("a pool");
    let mut asking = Box::pin(pool.checkout());
    assert!(futures::poll!(&mut asking).is_pending());
    until(&*runtime, "a dial is under way", || pool.status().connecting == 1).await;
    drop(asking);
    until(&*runtime, "the session has come", || pool.status().idle == 1).await;
    let status = pool.status();
    assert_eq!((status.dials, status.connects, status.abandoned), (1, 1, 1), "{status}");
    // It serves the next caller, without another dial.
    drop(pool.checkout().await.expect("a lease"));
    assert_eq!(pool.status().dials, 1);
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn a_connect_outlives_the_caller_that_asked() {
    for server in SERVERS {
        on_each(|runtime| {
            let primary = &shared_cluster(server).primary;
            Box::pin(caller_leaves(runtime, primary.port(), fresh_database(primary)))
        });
    }
}

/// However late the session comes, whoever waits then gets it, and nobody's leaving makes a dial be done twice.
#[test]
fn callers_come_and_go_while_one_session_is_made() {
    let sim = Sim::new(3);
    let server = scripted::server(&sim, 1);
    sim.set_connect_mode(&server.endpoint(), ConnectMode::Slow(Duration::from_secs(3)));
    let runtime: Arc<dyn Runtime> = Arc::new(sim.runtime());
    let config = bounded(scripted::config("p", 1)).size(1);
    let pool = ConnectionPool::open(Arc::clone(&runtime), config).expect("a pool");
    for _ in 0..10 {
        let mut asking = sim.manual(pool.checkout());
        assert!(asking.settle().is_pending());
        sim.advance(Duration::from_millis(200));
        drop(asking);
    }
    sim.block_on(pool.checkout()).map(drop).expect("a lease");
    assert_eq!(sim.now(), Instant::from_nanos(0) + Duration::from_secs(3));
    assert_eq!(sim.connect_attempts(&server.endpoint()).len(), 1);
    assert_eq!((pool.status().abandoned, pool.status().connects), (10, 1));
}

// --- The size ---------------------------------------------------------------------------------------------------------

/// Sessions come and go; an onlooker on a session of its own counts them as fast as it can.
async fn churn(runtime: Arc<dyn Runtime>, dsn: String) {
    const SESSIONS: u32 = 3;
    const TASKS: usize = 6;
    const ROUNDS: usize = 40;
    let config = PoolConfig::new("p", &dsn)
        .expect("a DSN")
        .size(SESSIONS)
        // A slow machine is not what this is about: no goodbye is cut short.
        .close_timeout(Duration::from_secs(60))
        .application_name("churn");
    let pool = ConnectionPool::open(Arc::clone(&runtime), config).expect("a pool");
    let onlooker = PoolConfig::new("onlooker", &dsn).expect("a DSN").size(1);
    let onlooker = ConnectionPool::open(Arc::clone(&runtime), onlooker).expect("a pool");
    let lease = onlooker.checkout().await.expect("a lease");
    let tasks = (0..TASKS).map(|task| {
        let pool = pool.clone();
        start(&*runtime, async move {
            for round in 0..ROUNDS {
                let lease = pool.checkout().await.expect("a lease");
                lease.query_one("SELECT 1", &[]).await.expect("a row");
                if (task + round) % 2 == 0 {
                    lease.discard();
                }
            }
        })
    });
    let mut tasks = join_all(tasks.collect::<Vec<_>>());
    // The server reads its list entry by entry: who is in two looks, one after the other, was there all the time between.
    let sql = "SELECT pid || ' ' || backend_start FROM pg_stat_activity \
        WHERE application_name = 'churn' AND datname = current_database()";
    let (mut most, mut looks) = (0, 0);
    let mut before = BTreeSet::new();
    while futures::poll!(&mut tasks).is_pending() {
        let rows = lease.query(sql, &[]).await.expect("a list");
        let shown: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        most = most.max(shown.intersection(&before).count());
        before = shown;
        looks += 1;
    }
    println!(
        "{looks} looks: at most {most} of {SESSIONS} sessions; {}",
        pool.status()
    );
    assert!(
        most <= SESSIONS as usize,
        "the server showed {most} sessions of {SESSIONS}"
    );
    drop(lease);
    pool.close(Duration::from_secs(5)).await;
}

#[test]
fn the_server_never_shows_more_sessions_than_the_pool_may_have() {
    for server in SERVERS {
        on_each(|runtime| Box::pin(churn(runtime, fresh_database(&shared_cluster(server).primary))));
    }
}
