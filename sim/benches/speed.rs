//! How fast a simulated cluster is: `cargo bench -p gdbpool-sim`. The last line has all figures.
//!
//! Everything goes the whole way: pools, tokio-postgres, network, sessions, engine, history, trace.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::time::{Duration, Instant};

use gdbpool::{InteractionPool, PoolConfig, Runtime};
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::oracle::check;
use gdbpool_sim::scenario::{Scenario, run};
use gdbpool_sim::{Cluster, ClusterConfig, Sim};

/// The mix of one round: point reads, an update, a transaction of two statements, a notification.
const READS: usize = 6;
const ROUND: usize = READS + 1 + 4 + 1;

/// How long each figure is measured, at least.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    // Runs of scenarios may panic on purpose, inside.
    std::panic::set_hook(Box::new(|_| {}));
    let statements = statements_per_second();
    eprintln!("statements per second: {statements:.0}");
    let failover = failover_ms();
    eprintln!("30 simulated seconds with a failover: {failover:.2} ms");
    let scenarios = scenarios_per_minute();
    eprintln!("scenarios per minute: {scenarios:.0}");
    let idle = idle_ratio();
    eprintln!("simulated idle time to real time: {idle:.0}");
    println!(
        "statements_per_second={statements:.0} failover_ms={failover:.2} scenarios_per_minute={scenarios:.0} \
         idle_ratio={idle:.0}"
    );
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

/// One round of the mix; how many of its statements were answered.
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
    // BEGIN and COMMIT count, too.
    done += 4 * usize::from(transfer.await.is_ok());
    done + usize::from(db.notify("changes", "x").await.is_ok())
}

fn statements_per_second() -> f64 {
    let sim = Sim::new(1);
    sim.set_step_budget(u64::MAX);
    let _cluster = cluster(&sim, 0);
    sim.block_on(async {
        let db = pool(&sim, 4).await;
        let (mut done, mut number) = (0, 0);
        let began = Instant::now();
        while began.elapsed() < SPAN {
            done += round(&db, number).await;
            number += 1;
        }
        assert_eq!(done, number * ROUND, "every statement is answered");
        done as f64 / began.elapsed().as_secs_f64()
    })
}

/// 30 simulated seconds, 6 clients, some 500 statements; the primary crashes and a standby is promoted.
fn failover_ms() -> f64 {
    let mut fastest = f64::MAX;
    for seed in 0..10 {
        let began = Instant::now();
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
        assert!(done >= 500, "only {done} statements were answered");
        drop(sim);
        fastest = fastest.min(began.elapsed().as_secs_f64() * 1e3);
    }
    fastest
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
        let began = Instant::now();
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
        let began = Instant::now();
        sim.runtime().sleep_until(sim.now() + day).await;
        let spent = began.elapsed();
        drop(db);
        day.as_secs_f64() / spent.as_secs_f64()
    })
}
