//! `InteractionPool`: the user's handle on all named pools.
//!
//! Where every call begins. It keeps the list of pools and delegates: to the route for the choice, to the interaction for
//! the work, to the pools for everything about sessions.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::config::PoolConfig;
use crate::error::{BadInput, Error};
use crate::interaction::Run;
use crate::pool::{CloseReport, ConnectionPool, PoolStatus};
use crate::route::{Access, NamedPools};
use crate::runtime::Runtime;

/// A pool of connection pools: named pools over a primary and its standbys, and the interactions that run on them.
///
/// Cheap to clone; all clones are the same pool. Made by [`builder`](Self::builder). When the last clone goes, all pools
/// are closed; [`close`](Self::close) does the same and waits.
///
/// ```
/// # async fn example(smol: impl gdbpool::Runtime) -> Result<(), gdbpool::Error> {
/// use gdbpool::{InteractionPool, PoolConfig};
///
/// let db = InteractionPool::builder(smol)
///     .pool(PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.size(10).default_write())
///     .pool(PoolConfig::new("replica", "host=db2 user=app dbname=shop")?.size(20).default_read())
///     .open()
///     .await?;
/// let rows = db.run("SELECT id, name FROM users WHERE id = $1").bind(42i32).read().await?;
/// let changed = db.run("UPDATE users SET name = $1 WHERE id = $2").args(&[&"Ann", &42i32]).execute().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InteractionPool {
    pools: Arc<NamedPools>,
}

/// Collects named pools; made by [`InteractionPool::builder`].
#[must_use = "a builder does nothing until it is opened"]
pub struct InteractionPoolBuilder {
    runtime: Arc<dyn Runtime>,
    configs: Vec<PoolConfig>,
}

impl InteractionPool {
    /// Begins a pool on the given runtime: its executor, clock, randomness and network.
    pub fn builder(runtime: impl Runtime) -> InteractionPoolBuilder {
        InteractionPoolBuilder {
            runtime: Arc::new(runtime),
            configs: Vec::new(),
        }
    }

    /// An interaction: one SQL statement, to be given its parameters and options, and awaited.
    ///
    /// Without options it is a write on the default write pool, and gives all its rows.
    #[track_caller]
    pub fn run<'a>(&'a self, sql: impl Into<Cow<'a, str>>) -> Run<'a> {
        Run::new(&self.pools, sql.into(), Location::caller())
    }

    /// The pool of this name, to check out sessions from or to look at.
    ///
    /// # Errors
    /// [`BadInput::UnknownPool`], which names the ones there are.
    pub fn pool(&self, name: &str) -> Result<ConnectionPool, Error> {
        self.pools.choose(Access::Write, Some(name))
    }

    /// Adds a named pool at run time.
    ///
    /// # Errors
    /// [`BadInput::DuplicatePool`] for a name that is taken, [`BadInput::Conflict`] for a second default pool, and
    /// everything [`PoolConfig`] checks.
    pub fn add_pool(&self, config: PoolConfig) -> Result<(), Error> {
        self.pools.add(config)
    }

    /// Takes a named pool out, also while it is in use: no more interactions are routed to it, and those on it get
    /// `timeout` to end before they are cut. Reports what was cut.
    ///
    /// # Errors
    /// [`BadInput::UnknownPool`]; [`BadInput::Conflict`] for the default pool while there are others, because they would be
    /// left without one.
    ///
    /// # Cancel safety
    /// Yes: the pool is out from the first poll on; a dropped future only stops waiting and cutting.
    pub async fn remove_pool(&self, name: &str, timeout: Duration) -> Result<CloseReport, Error> {
        Ok(self.pools.remove(name)?.close(timeout).await)
    }

    /// The reports of all pools, in the order they were added.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        self.pools.all().iter().map(ConnectionPool::status).collect()
    }

    /// Closes all pools, each given `timeout` for its leases to come back, and reports what was cut.
    ///
    /// # Cancel safety
    /// Yes: all pools are closed from the first poll on.
    pub async fn close(&self, timeout: Duration) -> Vec<CloseReport> {
        let pools = self.pools.all();
        futures_util::future::join_all(pools.iter().map(|pool| pool.close(timeout))).await
    }
}

impl InteractionPoolBuilder {
    /// Adds a named pool. The first one is the default for everything not said otherwise.
    pub fn pool(mut self, config: PoolConfig) -> Self {
        self.configs.push(config);
        self
    }

    /// Opens the pools, and waits for each to have its [`min_size`](PoolConfig::min_size) of sessions, as long as one
    /// connect may take. A node that cannot be reached now is no error: its pool goes on trying.
    ///
    /// # Errors
    /// [`BadInput::NoPool`], [`BadInput::DuplicatePool`], [`BadInput::Conflict`], and everything [`PoolConfig`] checks.
    ///
    /// # Cancel safety
    /// Yes: a dropped future closes what it opened.
    pub async fn open(self) -> Result<InteractionPool, Error> {
        if self.configs.is_empty() {
            return Err(Error::bad_input(BadInput::NoPool));
        }
        let pools = NamedPools::new(self.runtime);
        for config in self.configs {
            pools.add(config)?;
        }
        let all = pools.all();
        let warmed = all.iter().map(|pool| pool.warm_up(pool.config().connect_timeout));
        for (pool, warmed) in all.iter().zip(futures_util::future::join_all(warmed).await) {
            if let Err(error) = warmed {
                tracing::warn!(pool = pool.name(), %error, "the pool starts without its minimum of sessions");
            }
        }
        Ok(InteractionPool { pools: Arc::new(pools) })
    }
}

impl fmt::Debug for InteractionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InteractionPool").field(&self.pools).finish()
    }
}

impl fmt::Debug for InteractionPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InteractionPoolBuilder")
            .field("pools", &self.configs)
            .finish_non_exhaustive()
    }
}
