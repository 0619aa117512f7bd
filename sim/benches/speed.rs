//! How fast a simulated cluster is: `cargo bench -p gdbpool-sim`. The last line has all figures.
//!
//! Everything goes the whole way: pools, tokio-postgres, network, sessions, engine, history, trace. A statement is one that
//! a server has executed, as its history has it: those of the mix, and what the pools add to them (BEGIN and COMMIT, read-only
//! modes, the clean-up between borrowers). Time is this process's processor time where the system tells it, so that a busy
//! machine does not count; all is done in one thread. Names of figures as arguments choose, as in `-- statements idle`;
//! `-- mix` runs 2,000 rounds of the mix and measures nothing, for profilers.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::time::{Duration, Instant};

use gdbpool::{InteractionPool, PoolConfig, Runtime};
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::oracle::check;
use gdbpool_sim::scenario::{Scenario, run};
use gdbpool_sim::{Cluster, ClusterConfig, EventKind, Sim};

/// The mix of one round: point reads, an update, a transaction of two updates, a notification.
const READS: usize = 6;
const ROUND: usize = READS + 1 + 2 + 1;

/// How long each figure is measured, at least.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    // Runs of scenarios may panic on purpose, inside.
    std::panic::set_hook(Box::new(|_| {}));
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if chosen.iter().any(|word| word == "mix") {
        let (mut rounds, enough) = (0, 2_000);
        statements_per_second(|| {
            rounds += 1;
            rounds > enough
        });
        return;
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    let mut figures = Vec::new();
    if wanted("statements") {
        let began = Clock::start();
        let statements = statements_per_second(|| began.elapsed() >= SPAN);
        figures.push(format!("statements_per_second={statements:.0}"));
    }
    if wanted("failover") {
        figures.push(format!("failover_ms={:.2}", failover_ms()));
    }
    if wanted("scenarios") {
        figures.push(format!("scenarios_per_minute={:.0}", scenarios_per_minute()));
    }
    if wanted("idle") {
        figures.push(format!("idle_ratio={:.0}", idle_ratio()));
    }
    println!("{}", figures.join(" "));
}

/// This process's processor time; the wall's where the system does not tell it.
struct Clock {
    wall: Instant,
    processor: Option<Duration>,
}

impl Clock {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            processor: Self::processor(),
        }
    }

    fn elapsed(&self) -> Duration {
        match (self.processor, Self::processor()) {
            (Some(began), Some(now)) => now.saturating_sub(began),
            _ => self.wall.elapsed(),
        }
    }

    /// Linux: nanoseconds on a processor are the first number there.
    fn processor() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
        let nanos = text.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }
}

fn cluster(sim: &Sim, standbys: usize) -> Cluster {
    let cluster = Cluster::new(sim, ClusterConfig::new().standbys(standbys));
    let tables = "CREATE TABLE items (id int4 PRIMARY KEY, value int8 NOT NULL); \
                  INSERT INTO items VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)";
    cluster.set_up(tables).expect("the tables");
    cluster
}

async fn pool(sim: &Sim, size: u32) -> InteractionPool {
    let config = PoolConfig::new("primary", "host=n0 user=app dbname=postgres").expect("a good dsn");
    let config = config.size(size).max_lifetime(None).idle_timeout(None);
    let builder = InteractionPool::builder(sim.runtime()).pool(config);
    builder.open().await.expect("an open pool")
}

/// One round of the mix; how many of its statements were answered well.
async fn round(db: &InteractionPool, number: usize) -> usize {
    let row = |at: usize| i32::try_from((number + at) % 8).unwrap_or(0);
    let mut done = 0;
    for at in 0..READS {
        let read = db
            .run("SELECT value FROM items WHERE id = $1")
            .bind(row(at))
            .read()
            .await;
        done += usize::from(read.is_ok());
    }
    let update = "UPDATE items SET value = value + 1 WHERE id = $1";
    done += usize::from(db.run(update).bind(row(7)).execute().await.is_ok());
    let (first, second) = (row(1).min(row(2)), row(1).max(row(2)));
    let transfer = db.transact(|tx| async move {
        tx.execute(update, &[&first]).await?;
        tx.execute(update, &[&second]).await
    });
    done += 2 * usize::from(transfer.await.is_ok());
    done + usize::from(db.notify("changes", "x").await.is_ok())
}

fn statements_per_second(mut is_enough: impl FnMut() -> bool) -> f64 {
    let sim = Sim::new(1);
    sim.set_step_budget(u64::MAX);
    let cluster = cluster(&sim, 0);
    let (rounds, spent) = sim.block_on(async {
        let db = pool(&sim, 4).await;
        let (mut done, mut number) = (0, 0);
        let began = Clock::start();
        while !is_enough() {
            done += round(&db, number).await;
            number += 1;
        }
        let spent = began.elapsed();
        assert_eq!(done, number * ROUND, "every statement is answered");
        (number, spent)
    });
    let statements = executed(&cluster);
    eprintln!("{rounds} rounds, {statements} statements, {spent:?}");
    statements as f64 / spent.as_secs_f64()
}

/// How many statements the servers have executed.
fn executed(cluster: &Cluster) -> usize {
    let history = cluster.history();
    let events = history.events().iter();
    events
        .filter(|event| matches!(event.kind, EventKind::StatementEnded { .. }))
        .count()
}

/// 30 simulated seconds, 6 clients, some 500 statements; the primary crashes and a standby is promoted.
fn failover_ms() -> f64 {
    const RUNS: u32 = 20;
    let began = Clock::start();
    for seed in 0..u64::from(RUNS) {
        let sim = Sim::new(seed);
        let cluster = cluster(&sim, 1);
        let done: usize = sim.block_on(async {
            let db = pool(&sim, 6).await;
            let clients: Vec<_> = (0..6)
                .map(|client| sim.spawn(client_for_30_s(db.clone(), sim.runtime(), client)))
                .collect();
            sim.runtime().sleep_until(sim.now() + Duration::from_secs(10)).await;
            cluster.node("n0").crash();
            cluster.node("n1").promote(LostTail::Nothing, true);
            sim.remove_host("n0");
            sim.add_host("n0", "127.0.1.2".parse().expect("an address"));
            let mut done = 0;
            for client in clients {
                done += client.await;
            }
            done
        });
        let executed = executed(&cluster);
        assert!(
            done >= 400 && executed >= 500,
            "only {done} statements were answered, and {executed} executed"
        );
        drop(sim);
    }
    began.elapsed().as_secs_f64() * 1e3 / f64::from(RUNS)
}

async fn client_for_30_s(db: InteractionPool, runtime: gdbpool_sim::SimRuntime, client: usize) -> usize {
    let mut done = 0;
    for number in 0..9 {
        done += round(&db, client + number).await;
        let next =
            gdbpool::Instant::from_nanos(0) + Duration::from_millis(3_300) * (u32::try_from(number).unwrap_or(0) + 1);
        runtime.sleep_until(next).await;
    }
    done
}

/// Scenarios with at least 50 statements and faults on, oracles included, on one core.
fn scenarios_per_minute() -> f64 {
    let (mut done, mut seed) = (0, 0);
    let mut spent = Duration::ZERO;
    while spent < SPAN {
        seed += 1;
        let began = Clock::start();
        let scenario = Scenario::from_seed(seed);
        if scenario.faults.is_empty() {
            continue;
        }
        let ran = run(&scenario);
        let found = check(&scenario, &ran);
        if ran.statements < 50 {
            continue;
        }
        assert!(found.is_empty(), "seed {seed}: {found:?}");
        spent += began.elapsed();
        done += 1;
    }
    f64::from(done) * 60.0 / spent.as_secs_f64()
}

/// A day of an open pool that nobody uses, with its upkeep, on three nodes.
fn idle_ratio() -> f64 {
    let sim = Sim::new(1);
    let _cluster = cluster(&sim, 2);
    let day = Duration::from_secs(86_400);
    sim.block_on(async {
        let db = pool(&sim, 4).await;
        round(&db, 0).await;
        let began = Clock::start();
        sim.runtime().sleep_until(sim.now() + day).await;
        let spent = began.elapsed();
        drop(db);
        day.as_secs_f64() / spent.as_secs_f64()
    })
}
