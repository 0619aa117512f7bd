//! The cluster on which the library's documentation runs: a shop's database on `db1` and its standby `db2`.
//!
//! For the hidden lines of examples only. No part of the interface; nothing else uses it.

use gdbpool::{ConnectionPool, Error, InteractionPool, PoolConfig};

use crate::{Cluster, ClusterConfig, Sim, SimRuntime};

/// What the examples find.
const TABLES: &str = "\
    CREATE TABLE users (id serial PRIMARY KEY, name text, renamed timestamptz); \
    INSERT INTO users (id, name) VALUES (7, 'Eve'), (42, 'Bob'); \
    SELECT setval('users_id_seq', 100); \
    CREATE TABLE accounts (name text PRIMARY KEY, balance int8 NOT NULL); \
    INSERT INTO accounts VALUES ('Ann', 100); \
    CREATE TABLE jobs (id int4 PRIMARY KEY, state text NOT NULL); \
    INSERT INTO jobs VALUES (1, 'done'), (2, 'new'), (3, 'new'); \
    CREATE TABLE carts (id int4 PRIMARY KEY, stale bool NOT NULL); \
    INSERT INTO carts VALUES (1, true), (2, false); \
    CREATE TABLE tenants (host text, schema text); \
    INSERT INTO tenants VALUES ('db1', 'tenant1')";

/// Runs an example that opens its pools itself.
///
/// # Panics
/// When the example fails.
pub fn with_runtime(example: impl AsyncFnOnce(SimRuntime) -> Result<(), Error>) {
    let sim = Sim::new(1);
    let cluster = Cluster::new(&sim, ClusterConfig::new().standbys(1).database("shop"));
    cluster.set_up_in("shop", TABLES).expect("the tables of the examples");
    for (host, node) in [("db1", "n0"), ("db2", "n1")] {
        sim.add_host(host, cluster.address(node));
    }
    if let Err(error) = sim.block_on(example(sim.runtime())) {
        panic!("the example failed: {error}: {error:?}");
    }
}

/// Runs an example on named pools: `primary` for writes, `replica` for reads.
///
/// # Panics
/// When the example fails.
pub fn with_pools(example: impl AsyncFnOnce(InteractionPool) -> Result<(), Error>) {
    with_runtime(async |runtime| {
        let db = InteractionPool::builder(runtime)
            .pool(PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.default_write())
            .pool(PoolConfig::new("replica", "host=db2 user=app dbname=shop")?.default_read())
            .open()
            .await?;
        example(db).await
    });
}

/// Runs an example on the pool `primary` alone.
///
/// # Panics
/// When the example fails.
pub fn with_pool(example: impl AsyncFnOnce(ConnectionPool) -> Result<(), Error>) {
    with_pools(async |db| example(db.pool("primary")?).await);
}
