//! A tour of the library on a primary and a standby, simulated or real: `cargo run --release --example tour`.
//!
//! The program opens named pools on the servers that `nodes` makes or finds, and walks through the chapters (`interactions`,
//! `options`, `transactions`, `listening`, `leases`, `in_time`, `queue`, `nonsense`). `guide` prints what ran where and keeps
//! count: the exit status is 0 only when every step went as expected. It never leaves a server, and on yours no table, behind.

#[path = "../../tests/support/cluster.rs"]
mod cluster;
mod guide;
mod in_time;
mod interactions;
mod leases;
mod listening;
mod nodes;
mod nonsense;
mod options;
mod queue;
mod transactions;

use std::env;
use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gdbpool::{Error, Instant, InteractionPool, PoolConfig, Runtime};

use crate::guide::Guide;
use crate::nodes::{Nodes, Wanted};

const USAGE: &str = "\
Usage: cargo run --release --example tour [-- [--seed N] | [--real] [--runtime smol|async-std|tokio]]

Runs on DATABASE_URL (a primary) and REPLICA_URL (a standby of it) when they are set, else on a simulated primary and
standby, in virtual time; each seed is another order of events. --real: on throwaway servers instead, which are started
from the machine's PostgreSQL programs and removed again; --runtime says --real, too.
Other runtimes than smol need their feature: cargo run --release --features tokio --example tour -- --runtime tokio";

/// The runtimes whose features this build has.
const BUILT_IN: &[&str] = &[
    #[cfg(feature = "smol")]
    "smol",
    #[cfg(feature = "async-std")]
    "async-std",
    #[cfg(feature = "tokio")]
    "tokio",
];

/// What ends a chapter early: an error of the library, or of a row that is not what the chapter asked for.
type BoxError = Box<dyn StdError + Send + Sync>;

fn main() -> ExitCode {
    let asked = match Asked::read(env::args().skip(1)) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => {
            eprintln!("error: {complaint}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Nodes::find(&asked.wanted).and_then(|nodes| run_on(&asked.runtime, &nodes)) {
        Ok(guide) => guide.verdict(),
        Err(complaint) => {
            eprintln!("error: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
struct Asked {
    runtime: String,
    wanted: Wanted,
}

impl Asked {
    /// `None` when help is wanted.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut runtime, mut seed, mut real) = (None, None, false);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--real" => real = true,
                "--runtime" => runtime = Some(arguments.next().ok_or("--runtime takes a name")?),
                "--seed" => {
                    let number = arguments.next().and_then(|number| number.parse().ok());
                    seed = Some(number.ok_or("--seed takes a number")?);
                }
                other => return Err(format!("unknown argument {other:?}")),
            }
        }
        let wanted = match (seed, real || runtime.is_some()) {
            (Some(_), true) => return Err("--seed is for the simulator, the others are for real servers".to_owned()),
            (seed, false) => Wanted::Simulated(seed.unwrap_or(1)),
            (None, true) => Wanted::Throwaway,
        };
        let built_in = || BUILT_IN.first().copied().unwrap_or("(none)").to_owned();
        let runtime = runtime.unwrap_or_else(built_in);
        Ok(Some(Self { runtime, wanted }))
    }
}

/// The whole tour on the runtime of this name; the library never finds out which one it is.
fn run_on(name: &str, nodes: &Nodes) -> Result<Guide, String> {
    if let Some(sim) = &nodes.sim {
        println!("Runtime: the simulator's");
        let guide = sim.block_on(walk(Arc::new(sim.runtime()), nodes));
        let span = sim.now() - Instant::from_nanos(0);
        println!("\n{:.1} simulated seconds have passed.", span.as_secs_f64());
        return guide;
    }
    println!("Runtime: {name}");
    match name {
        #[cfg(feature = "smol")]
        "smol" => smol::block_on(walk(Arc::new(gdbpool::Smol::new()), nodes)),
        #[cfg(feature = "async-std")]
        "async-std" => async_std::task::block_on(walk(Arc::new(gdbpool::AsyncStd::new()), nodes)),
        #[cfg(feature = "tokio")]
        "tokio" => {
            let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("tokio does not start: {error}"))?;
            let adapter = gdbpool::Tokio::new(runtime.handle().clone());
            runtime.block_on(walk(Arc::new(adapter), nodes))
        }
        other => Err(format!(
            "no runtime {other:?} in this build, which has: {}",
            BUILT_IN.join(", ")
        )),
    }
}

/// What every chapter needs.
struct Tour<'a> {
    db: InteractionPool,
    nodes: &'a Nodes,
    runtime: Arc<dyn Runtime>,
    /// The tour's own table.
    table: String,
}

impl Tour<'_> {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    async fn pause(&self, span: Duration) {
        self.runtime.sleep_until(self.now() + span).await;
    }
}

async fn walk(runtime: Arc<dyn Runtime>, nodes: &Nodes) -> Result<Guide, String> {
    let db = open(Arc::clone(&runtime), nodes)
        .await
        .map_err(|error| guide::with_causes(&error).join(": "))?;
    let tour = Tour {
        db,
        nodes,
        runtime,
        table: nodes.table(),
    };
    let mut guide = Guide::default();

    let done = interactions::named_pools(&tour, &mut guide).await;
    let reachable = done.is_ok();
    guide.finish(done);
    if !reachable {
        // Every further chapter would wait and then say the same.
        return Ok(guide);
    }
    let done = interactions::answers(&tour, &mut guide).await;
    guide.finish(done);
    let done = interactions::refused_write(&tour, &mut guide).await;
    guide.finish(done);
    let done = options::options(&tour, &mut guide).await;
    guide.finish(done);
    let done = transactions::functions(&tour, &mut guide).await;
    guide.finish(done);
    let done = transactions::pinned(&tour, &mut guide).await;
    guide.finish(done);
    let done = listening::listening(&tour, &mut guide).await;
    guide.finish(done);
    let done = leases::leftovers(&tour, &mut guide).await;
    guide.finish(done);
    let done = in_time::dropped(&tour, &mut guide).await;
    guide.finish(done);
    let done = in_time::stopped(&tour, &mut guide).await;
    guide.finish(done);
    let done = leases::copy(&tour, &mut guide).await;
    guide.finish(done);
    let done = queue::twenty_callers(&tour, &mut guide).await;
    guide.finish(done);
    let done = queue::reports(&tour, &mut guide).await;
    guide.finish(done);
    let done = nonsense::nonsense(&tour, &mut guide).await;
    guide.finish(done);
    let done = leave(&tour, &mut guide).await;
    guide.finish(done);
    Ok(guide)
}

/// The pools: one that writes, two that share the reads, and a narrow one to show what happens on a single session.
async fn open(runtime: Arc<dyn Runtime>, nodes: &Nodes) -> Result<InteractionPool, Error> {
    let db = InteractionPool::builder(runtime)
        .pool(pool("primary", &nodes.primary)?.size(4).default_write())
        .pool(pool("replica-a", &nodes.replica)?.size(2).default_read())
        .pool(pool("replica-b", &nodes.replica)?.size(2).default_read())
        .open()
        .await?;
    db.add_pool(pool("narrow", &nodes.primary)?.size(1))?;
    Ok(db)
}

/// The server shows each session under its pool's name, and the chapters ask the server where they ran.
fn pool(name: &str, dsn: &str) -> Result<PoolConfig, Error> {
    let config = PoolConfig::new(name, dsn)?.application_name(&format!("gdbpool-tour/{name}"));
    Ok(config.checkout_timeout(Duration::from_secs(10)))
}

/// Removes the table and closes the pools.
async fn leave(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Leaving: the table is dropped, all pools are closed");
    tour.db
        .run(format!("DROP TABLE IF EXISTS {}", tour.table))
        .execute()
        .await?;
    for report in tour.db.close(Duration::from_secs(5)).await {
        let expected = report.cut.is_empty() && report.remaining == 0;
        let note = format!(
            "{}: {} leases cut, {} sessions remain",
            report.pool,
            report.cut.len(),
            report.remaining
        );
        guide.note(&note, expected);
    }
    Ok(())
}
