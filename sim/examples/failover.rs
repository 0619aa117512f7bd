//! An application's handler over `gdbpool`, and its test: the primary fails in the middle of it.
//!
//! `cargo run -p gdbpool-sim --example failover` shows one run; `cargo test -p gdbpool-sim --example failover` tries many.
//! Nothing but this process is needed: cluster, network and clock are simulated.

use std::net::IpAddr;
use std::time::Duration;

use gdbpool::{Error, InteractionPool, Outcome, PoolConfig, Runtime};
use gdbpool_sim::fault::LostTail;
use gdbpool_sim::fault::{Connections, Fault, FaultKind, Micros, NetworkFault, ServerEvent, Trigger};
use gdbpool_sim::{Cluster, ClusterConfig, Sim};

// --- The application ---------------------------------------------------------------------------------------------------

/// Takes one piece of an article from the stock and writes an order with the customer's own number, or says that there is
/// none left. Called twice with one number, it orders once.
async fn order(db: &InteractionPool, number: i64, article: i32) -> Result<bool, Error> {
    db.transact(|tx| async move {
        let known = tx.query("SELECT 1 FROM orders WHERE number = $1", &[&number]).await?;
        if !known.is_empty() {
            return Ok(true);
        }
        let taken = "UPDATE stock SET pieces = pieces - 1 WHERE article = $1 AND pieces > 0";
        if tx.execute(taken, &[&article]).await? == 0 {
            return Ok(false);
        }
        let written = "INSERT INTO orders (number, article) VALUES ($1, $2)";
        tx.execute(written, &[&number, &article]).await?;
        Ok(true)
    })
    .await
}

/// What the web server does with a request: when the outcome is unknown it asks again, which is safe here.
async fn handle(db: &InteractionPool, number: i64, article: i32) -> Result<bool, Error> {
    let mut tries = 0;
    loop {
        match order(db, number, article).await {
            Err(error) if tries < 5 && (error.is_retryable() || error.outcome() == Outcome::Unknown) => tries += 1,
            done => return done,
        }
    }
}

// --- Its cluster -------------------------------------------------------------------------------------------------------

/// A primary and a standby; the name `db` leads to whoever is the primary.
fn cluster(sim: &Sim) -> Cluster {
    // Every commit waits for the standby: no order that was confirmed is lost with the primary.
    let cluster = Cluster::new(sim, ClusterConfig::new().standbys(1).synchronous(1, &["n1"]));
    let tables = "CREATE TABLE stock (article int4 PRIMARY KEY, pieces int4 NOT NULL); \
                  CREATE TABLE orders (number int8 PRIMARY KEY, article int4 NOT NULL); \
                  INSERT INTO stock VALUES (1, 10)";
    cluster.set_up(tables).expect("the application's tables");
    lead(sim, &cluster, "n0");
    cluster
}

fn lead(sim: &Sim, cluster: &Cluster, node: &str) {
    let address: IpAddr = cluster.address(node);
    sim.remove_host("db");
    sim.add_host("db", address);
}

async fn open(sim: &Sim) -> InteractionPool {
    let pool = PoolConfig::new("shop", "host=db user=app dbname=postgres").expect("a good dsn");
    let pool = pool.size(2).interaction_timeout(Some(Duration::from_secs(10)));
    InteractionPool::builder(sim.runtime())
        .pool(pool)
        .open()
        .await
        .expect("good settings")
}

/// One order, with the primary going down at the given event of its server; gives what the customer was told, and how many
/// orders and pieces there are afterwards.
fn failing_over(seed: u64, event: ServerEvent, nth: u64) -> (Result<bool, Error>, i64, i64) {
    let sim = Sim::new(seed);
    let cluster = cluster(&sim);
    let trigger = Trigger::Server {
        event,
        node: Some("n0".to_owned()),
        nth,
    };
    sim.set_faults([Fault {
        trigger,
        what: FaultKind::Network(NetworkFault::Reset {
            connections: Connections::All { to: None },
        }),
        span: None,
    }]);
    let told = sim.block_on(async {
        let db = open(&sim).await;
        let (customer, runtime) = (db.clone(), sim.runtime());
        let handler = sim.spawn(async move { handle(&customer, 7, 1).await });
        // The operator notices a little later.
        runtime.sleep_until(sim.now() + Micros::from_millis(100).span()).await;
        cluster.node("n0").crash();
        cluster.node("n1").promote(LostTail::Nothing, true);
        lead(&sim, &cluster, "n1");
        let told = handler.await;
        db.close(Duration::from_secs(1)).await;
        told
    });
    let count = |sql: &str| {
        let rows = cluster.execute("n1", sql).expect("the new primary answers");
        rows[0][0].as_deref().and_then(|text| text.parse().ok()).unwrap_or(-1)
    };
    (
        told,
        count("SELECT count(*) FROM orders"),
        count("SELECT pieces FROM stock WHERE article = 1"),
    )
}

fn main() {
    let (told, orders, pieces) = failing_over(1, ServerEvent::CommitDurable, 1);
    match told {
        Ok(true) => println!("ordered, although the primary went down at the commit"),
        Ok(false) => println!("nothing left"),
        Err(error) => println!("not ordered: {error}"),
    }
    println!("{orders} orders, {pieces} pieces left, on the new primary");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_written_once_wherever_the_primary_fails() {
        let events = [
            ServerEvent::SessionOpened,
            ServerEvent::TransactionBegan,
            ServerEvent::StatementBegan,
            ServerEvent::StatementEnded,
            ServerEvent::CommitDurable,
        ];
        for event in events {
            for nth in 1..6 {
                for seed in 0..5 {
                    let (told, orders, pieces) = failing_over(seed, event, nth);
                    assert_eq!(told.ok(), Some(true), "{event:?} {nth}, seed {seed}");
                    assert_eq!((orders, pieces), (1, 9), "{event:?} {nth}, seed {seed}");
                }
            }
        }
    }
}
