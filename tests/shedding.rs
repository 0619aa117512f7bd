//! Promise: a pool that is told to shed refuses callers only under overload, only past the target, never while a session is
//! idle, and stops when the queue recovers; those it serves, it serves in order.

#[path = "support/runtimes.rs"]
mod runtimes;
#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use gdbpool::{ConnectionPool, Error, ErrorKind, InteractionPool, Outcome, Phase, PoolConfig};
use gdbpool_sim::{Answer, Sim, Type};

use runtimes::{on_each, until};
use support::{Server, shared_cluster};

const TARGET: Duration = Duration::from_millis(50);
const INTERVAL: Duration = Duration::from_millis(200);
const SERVICE: Duration = Duration::from_millis(20);
const WORK: &str = "SELECT n FROM work";

fn is_shed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Shed)
}

/// Callers come every `pause` for `count` times; gives, in the order they ended, who it was and how.
fn load(
    sim: &Sim,
    pool: &ConnectionPool,
    db: &InteractionPool,
    count: u64,
    pause: Duration,
) -> Vec<(u64, Result<Duration, Error>)> {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..count)
        .map(|caller| {
            let (db, pool, ended, runtime) = (db.clone(), pool.clone(), Arc::clone(&ended), sim.runtime());
            let at = sim.now() + pause * u32::try_from(caller).expect("few callers");
            sim.spawn(async move {
                use gdbpool::Runtime as _;
                runtime.sleep_until(at).await;
                let idle = pool.status().idle;
                let result = db.run(WORK).await.map(|_| runtime.now() - at);
                if let Err(error) = &result {
                    assert!(is_shed(error), "{error:?}");
                    assert_eq!(idle, 0, "a caller was refused although a session was idle when it came");
                }
                ended.lock().expect("no panic").push((caller, result));
            })
        })
        .collect();
    sim.block_on(join_all(callers));
    std::mem::take(&mut ended.lock().expect("no panic"))
}

fn world(change: impl FnOnce(PoolConfig) -> PoolConfig) -> (Sim, ConnectionPool, InteractionPool) {
    let sim = Sim::new(7);
    let server = scripted::server(&sim, 1);
    server.on(
        WORK,
        Answer::rows(&[("n", Type::Int4)], vec![vec![1.into()]]).after(SERVICE),
    );
    let config = change(scripted::config("main", 1).size(1).min_size(1).ping_after(None));
    let db = sim.block_on(InteractionPool::builder(sim.runtime()).pool(config).open());
    let db = db.expect("sound settings");
    let pool = db.pool("main").expect("the pool");
    (sim, pool, db)
}

#[test]
fn overload_is_shed_in_order_and_ends() {
    let (sim, pool, db) = world(|config| config.shed(TARGET, INTERVAL));
    // Four times what one session can serve.
    let ended = load(&sim, &pool, &db, 800, SERVICE / 4);
    let served: Vec<_> = ended.iter().filter(|(_, result)| result.is_ok()).collect();
    let shed: Vec<&Error> = ended.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    assert!(
        served.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "served out of order"
    );
    // The load lasts 4 s: the session is never left without work while it does.
    assert!((195..=215).contains(&served.len()), "{} served", served.len());
    assert_eq!(pool.status().shed, shed.len() as u64);
    for error in shed {
        assert_eq!((error.outcome(), error.phase()), (Outcome::NotExecuted, Phase::Queued));
        assert!(error.is_retryable());
        let [(Phase::Queued, waited)] = *error.spent() else {
            panic!("{:?}", error.spent())
        };
        // Refused as soon as it may be: upkeep is not late in virtual time, but for the first interval.
        assert!(waited > TARGET, "refused after {waited:?}");
    }
    let longest = served
        .iter()
        .skip(30)
        .filter_map(|(_, result)| result.as_ref().ok())
        .max();
    assert!(longest <= Some(&(TARGET + 2 * SERVICE)), "{longest:?}");

    // Half of what the session can serve: nobody is refused any more.
    let before = pool.status().shed;
    let ended = load(&sim, &pool, &db, 100, SERVICE * 2);
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(pool.status().shed, before);
    assert!(!pool.status().is_overloaded);
}

#[test]
fn a_burst_is_no_overload() {
    let (sim, pool, db) = world(|config| config.shed(Duration::from_millis(5), Duration::from_millis(500)));
    for _ in 0..5 {
        // 20 at once, served within 400 ms.
        let ended = load(&sim, &pool, &db, 20, Duration::ZERO);
        assert!(ended.iter().all(|(_, result)| result.is_ok()));
        sim.advance(Duration::from_millis(100));
    }
    assert_eq!(pool.status().shed, 0);
}

#[test]
fn nobody_is_shed_unless_the_pool_was_told_to() {
    let (sim, pool, db) = world(|config| config);
    let ended = load(&sim, &pool, &db, 200, SERVICE / 4);
    assert!(ended.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(pool.status().shed, 0);
}

#[test]
fn bounds_are_named() {
    let sim = Sim::new(1);
    for (target, interval, names) in [(0, 10, "shed target"), (20, 10, "shed interval")] {
        let config = scripted::config("main", 1).shed(Duration::from_millis(target), Duration::from_millis(interval));
        let error = ConnectionPool::open(Arc::new(sim.runtime()), config).expect_err("out of bounds");
        assert!(error.to_string().contains(names), "{error}");
    }
}

/// The one session is not coming back: all who wait are refused, and the pool serves again when it does.
#[test]
fn on_real_servers() {
    for server in [Server::V15, Server::V18] {
        let pair = shared_cluster(server);
        on_each(|runtime| {
            Box::pin(async move {
                let config = PoolConfig::new("main", &pair.primary.dsn()).expect("a sound DSN");
                let config = config.size(1).shed(TARGET, 2 * TARGET);
                let pool = ConnectionPool::open(Arc::clone(&runtime), config).expect("sound settings");
                let held = pool.checkout().await.expect("a session");
                let waiters = join_all((0..5).map(|_| pool.checkout())).await;
                for waiter in waiters {
                    let error = waiter.map(drop).expect_err("the session is held");
                    assert!(is_shed(&error), "{error:?}");
                    assert!(error.spent()[0].1 > TARGET, "{error}");
                }
                assert_eq!(pool.status().shed, 5);
                drop(held);
                let lease = pool.checkout_within(Duration::from_secs(30)).await;
                lease
                    .expect("a session")
                    .query_one("SELECT 1", &[])
                    .await
                    .expect("a row");
                until(&*runtime, "it is idle", || pool.status().idle == 1).await;
                assert!(!pool.status().is_overloaded);
                pool.close(Duration::from_secs(20)).await;
            })
        });
    }
}
