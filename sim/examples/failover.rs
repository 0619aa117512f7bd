//! An application on a simulated cluster that fails over in the middle of one of its handlers: `cargo run -p gdbpool-sim
//! --example failover`, and its tests with `cargo test -p gdbpool-sim --example failover`.
//!
//! The application is what its users would have: a pool, and handlers over it. It does not know that it is simulated: its
//! pool, its driver, its wire protocol are the real ones; network, servers and clock are not. [`hasty`] has a fault that
//! only a failover shows, and the tests find it.

use std::time::Duration;

use gdbpool::{Error, InteractionPool, Outcome, PoolConfig, Runtime};
use gdbpool_sim::fault::{
    Connections, Fault, FaultKind, LostTail, Micros, NetworkFault, ServerEvent, ServerFault, Trigger,
};
use gdbpool_sim::{Cluster, ClusterConfig, Sim};

// --- The application ---------------------------------------------------------------------------------------------------

/// Writes an order under the customer's own number and takes one piece of the article from the stock. Asked twice with one
/// number, it orders once; false when nothing is left.
async fn careful(db: &InteractionPool, number: i64, article: i32) -> Result<bool, Error> {
    let ordered = db.transact(|tx| async move {
        let written = "INSERT INTO orders (number, article) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING";
        if tx.execute(written, &[&number, &article]).await? == 0 {
            return Ok(());
        }
        let taken = "UPDATE stock SET pieces = pieces - 1 WHERE article = $1 AND pieces > 0";
        match tx.execute(taken, &[&article]).await? {
            0 => Err(Error::user(SoldOut)),
            _ => Ok(()),
        }
    });
    match ordered.await {
        Ok(()) => Ok(true),
        Err(error) if error.downcast_ref::<SoldOut>().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same, with a fault: it looks for the number first. The order of an earlier try whose COMMIT nobody answered may
/// become visible after that look.
async fn hasty(db: &InteractionPool, number: i64, article: i32) -> Result<bool, Error> {
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

/// What the web server does with a request: an order whose outcome is unknown is asked for again.
async fn request(db: &InteractionPool, number: i64, article: i32, handler: Handler) -> Result<bool, Error> {
    let mut tries = 0;
    loop {
        let told = match handler {
            Handler::Careful => careful(db, number, article).await,
            Handler::Hasty => hasty(db, number, article).await,
        };
        match told {
            Err(error) if tries < 5 && (error.is_retryable() || error.outcome() == Outcome::Unknown) => tries += 1,
            told => return told,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Handler {
    Careful,
    Hasty,
}

#[derive(Debug)]
struct SoldOut;

impl std::fmt::Display for SoldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sold out")
    }
}

impl std::error::Error for SoldOut {}

// --- Its cluster -------------------------------------------------------------------------------------------------------

/// A primary and a standby. Every commit waits for the standby, so that no order that was confirmed is lost.
fn cluster(sim: &Sim) -> Cluster {
    let cluster = Cluster::new(sim, ClusterConfig::new().standbys(1).synchronous(1, &["n1"]));
    let tables = "CREATE TABLE stock (article int4 PRIMARY KEY, pieces int4 NOT NULL); \
                  CREATE TABLE orders (number int8 PRIMARY KEY, article int4 NOT NULL); \
                  INSERT INTO stock VALUES (1, 10)";
    cluster.set_up(tables).expect("the application's tables");
    cluster
}

/// The pool goes to whichever of the two is the primary.
async fn open(sim: &Sim) -> Result<InteractionPool, Error> {
    let dsn = "host=n0,n1 user=app dbname=postgres target_session_attrs=read-write";
    let pool = PoolConfig::new("shop", dsn)?.size(2);
    let pool = pool.interaction_timeout(Some(Duration::from_secs(10)));
    InteractionPool::builder(sim.runtime()).pool(pool).open().await
}

/// What happens to the primary in the middle of a handler.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// Its connections break; 100 ms later it is gone.
    Cut,
    /// It is gone at once.
    Crash,
}

/// What the customer was told, and what the new primary has of it.
#[derive(Debug)]
struct Told {
    told: Result<bool, Error>,
    orders: String,
    pieces: String,
}

/// One order, with the mishap at the nth event of this kind at the primary; the standby is promoted a little later.
fn failing_over(seed: u64, handler: Handler, mishap: Mishap, event: ServerEvent, nth: u64) -> Told {
    let sim = Sim::new(seed);
    let cluster = cluster(&sim);
    let node = "n0".to_owned();
    let what = match mishap {
        Mishap::Cut => FaultKind::Network(NetworkFault::Reset {
            connections: Connections::All { to: None },
        }),
        Mishap::Crash => FaultKind::Server(ServerFault::Crash {
            node: node.clone(),
            recovery: Micros::from_secs(1),
        }),
    };
    let node = Some(node);
    let trigger = Trigger::Server { event, node, nth };
    let span = None;
    sim.set_faults([Fault { trigger, what, span }]);
    let told = sim.block_on(async {
        let db = open(&sim).await?;
        let customer = db.clone();
        let told = sim.spawn(async move { request(&customer, 7, 1, handler).await });
        // The operator's part.
        let noticed = sim.now() + Duration::from_millis(100);
        sim.runtime().sleep_until(noticed).await;
        cluster.node("n0").crash();
        cluster.node("n1").promote(LostTail::Nothing, true);
        // The new primary is alone: its commits must not wait for a standby.
        cluster.set_synchronous(0, &[]);
        let told = told.await;
        db.close(Duration::from_secs(1)).await;
        told
    });
    let ask = |sql: &str| {
        let rows = cluster.execute("n1", sql).expect("the new primary answers");
        rows[0][0].clone().unwrap_or_default()
    };
    Told {
        told,
        orders: ask("SELECT count(*) FROM orders"),
        pieces: ask("SELECT pieces FROM stock WHERE article = 1"),
    }
}

fn main() {
    for handler in [Handler::Careful, Handler::Hasty] {
        for mishap in [Mishap::Crash, Mishap::Cut] {
            let done = failing_over(0, handler, mishap, ServerEvent::StatementBegan, 5);
            let told = match done.told {
                Ok(true) => "ordered".to_owned(),
                Ok(false) => "sold out".to_owned(),
                Err(error) => format!("not ordered: {error}"),
            };
            let (orders, pieces) = (done.orders, done.pieces);
            println!("{handler:?} handler, {mishap:?} at COMMIT: the customer is told: {told}");
            println!("    on the new primary: {orders} orders, {pieces} pieces left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [ServerEvent; 5] = [
        ServerEvent::SessionOpened,
        ServerEvent::TransactionBegan,
        ServerEvent::StatementBegan,
        ServerEvent::StatementEnded,
        ServerEvent::CommitDurable,
    ];

    /// Every place at which the primary can fail, under several schedules; gives the first run that went wrong.
    fn first_fault(handler: Handler) -> Option<String> {
        for mishap in [Mishap::Cut, Mishap::Crash] {
            for event in EVENTS {
                for nth in 1..=6 {
                    for seed in 0..5 {
                        let done = failing_over(seed, handler, mishap, event, nth);
                        let once = done.orders == "1" && done.pieces == "9";
                        if !once || !matches!(done.told, Ok(true)) {
                            return Some(format!("{mishap:?} at {event:?} {nth}, seed {seed}: {done:?}"));
                        }
                    }
                }
            }
        }
        None
    }

    #[test]
    fn an_order_is_written_once_wherever_the_primary_fails() {
        assert_eq!(first_fault(Handler::Careful), None);
    }

    #[test]
    fn the_same_test_finds_the_fault_of_the_hasty_handler() {
        let found = first_fault(Handler::Hasty).expect("a run in which the second try meets the first one's order");
        assert!(found.contains("E23505"), "{found}");
    }

    #[test]
    fn the_same_seed_is_the_same_run() {
        let run = |seed| {
            format!(
                "{:?}",
                failing_over(seed, Handler::Hasty, Mishap::Cut, ServerEvent::StatementBegan, 5)
            )
        };
        for seed in 0..5 {
            assert_eq!(run(seed), run(seed));
        }
    }
}
