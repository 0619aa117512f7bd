//! Tools of the ecosystem with this library: `cargo run --example ecosystem`.
//!
//! `migrations` runs refinery's on a lease, `shop` uses the derives of `postgres-types` and `postgres-from-row`. Works on
//! DATABASE_URL, in a schema that it makes and drops, or on a throwaway server.

#[path = "../../tests/support/cluster.rs"]
mod cluster;
mod migrations;
mod shop;

use std::env;
use std::error::Error as StdError;

use gdbpool::{InteractionPool, PoolConfig, Smol};

use crate::cluster::{Cluster, ClusterOptions, Server};
use crate::shop::{Address, Customer, Email, Mood};

type BoxError = Box<dyn StdError + Send + Sync>;

/// All of it happens in this schema.
const SCHEMA: &str = "gdbpool_ecosystem";

fn main() -> Result<(), BoxError> {
    let cluster;
    let dsn = match env::var("DATABASE_URL") {
        Ok(dsn) => dsn,
        Err(_) => {
            cluster = Cluster::start(ClusterOptions::new(Server::V15));
            cluster.dsn()
        }
    };
    smol::block_on(show(&dsn))
}

async fn show(dsn: &str) -> Result<(), BoxError> {
    let config = PoolConfig::new("main", dsn)?.setting("search_path", SCHEMA);
    let db = InteractionPool::builder(Smol::new()).pool(config).open().await?;
    db.run(format!("CREATE SCHEMA {SCHEMA}")).execute().await?;
    let shown = tools(&db).await;
    db.run(format!("DROP SCHEMA {SCHEMA} CASCADE")).execute().await?;
    shown
}

async fn tools(db: &InteractionPool) -> Result<(), BoxError> {
    let pool = db.pool("main")?;
    let runner = migrations::embedded::migrations::runner();
    for round in ["first", "second"] {
        let report = migrations::migrate(&pool, &runner).await?;
        let names: Vec<String> = report.applied_migrations().iter().map(ToString::to_string).collect();
        println!("{round} run of the migrations: {names:?}");
    }
    let ann = Customer {
        id: 1,
        name: "Ann".into(),
        mood: Mood::Happy,
        address: Some(Address {
            street: "High Street".into(),
            number: 7,
        }),
        email: Email("ann@example.org".into()),
    };
    shop::add(db, &ann).await?;
    let customers = shop::all(db).await?;
    println!("{customers:#?}");
    if customers != [ann] {
        return Err("another customer came out than went in".into());
    }
    Ok(())
}
