//! `InteractionPool`: the user's handle on all named pools.
//!
//! Where every call begins. It keeps the list of pools and delegates: to the route for the choice, to the interaction for
//! the work, to the pools for everything about sessions.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::config::PoolConfig;
use crate::error::{BadInput, Error};
use crate::interaction::{Door, IntoInteraction, Notify, Transact, Transaction};
use crate::listener::{Listen, Listeners};
use crate::pool::{CloseReport, ConnectionPool, EVENTS, Events, PoolStatus, Stats};
use crate::route::{Access, NamedPools};
use crate::runtime::Runtime;

/// A pool of connection pools: named pools over a primary and its standbys, and the interactions that run on them.
///
/// Cheap to clone; all clones are the same pool. Made by [`builder`](Self::builder). When the last clone goes, all pools
/// are closed; [`close`](Self::close) does the same and waits.
///
/// ```
/// # gdbpool_sim::doc::with_runtime(async |smol| {
/// use gdbpool::{InteractionPool, PoolConfig};
///
/// let db = InteractionPool::builder(smol)
///     .pool(PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.size(10).default_write())
///     .pool(PoolConfig::new("replica", "host=db2 user=app dbname=shop")?.size(20).default_read())
///     .open()
///     .await?;
/// let rows = db.run("SELECT id, name FROM users WHERE id = $1").bind(42i32).read().await?;
/// let changed = db.run("UPDATE users SET name = $1 WHERE id = $2").args(&[&"Ann", &42i32]).execute().await?;
/// # assert_eq!((rows.len(), changed), (1, 1));
/// # Ok(())
/// # });
/// ```
#[derive(Clone)]
pub struct InteractionPool {
    pools: Arc<NamedPools>,
    listeners: Arc<Listeners>,
}

/// Collects named pools; made by [`InteractionPool::builder`].
#[must_use = "a builder does nothing until it is opened"]
pub struct InteractionPoolBuilder {
    runtime: Arc<dyn Runtime>,
    configs: Vec<PoolConfig>,
    events: usize,
}

impl InteractionPool {
    /// Begins a pool on the given runtime: its executor, clock, randomness and network.
    pub fn builder(runtime: impl Runtime) -> InteractionPoolBuilder {
        InteractionPoolBuilder {
            runtime: Arc::new(runtime),
            configs: Vec::new(),
            events: EVENTS,
        }
    }

    /// An interaction: one SQL statement, to be given its parameters and options, and awaited; or a function over a
    /// transaction, as with [`transact`](Self::transact), whose parameter's type must be written out then.
    ///
    /// Without options it is a write on the default write pool; SQL gives all its rows.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// use gdbpool::Transaction;
    ///
    /// let rows = db.run("SELECT name FROM users WHERE id = $1").bind(7i32).read().await?;
    /// let added = db
    ///     .run(|tx: Transaction| async move { tx.execute("INSERT INTO users (name) VALUES ('Ann')", &[]).await })
    ///     .await?;
    /// # Ok(())
    /// # });
    /// ```
    #[track_caller]
    pub fn run<'db, I, Kind>(&'db self, interaction: I) -> I::Interaction
    where
        I: IntoInteraction<'db, Kind>,
    {
        interaction.into_interaction(Door(&self.pools), Location::caller())
    }

    /// A function interaction: what `function` does is one transaction, committed when it returns `Ok`, rolled back when it
    /// returns `Err`, panics or is dropped, and run again as a whole where that is safe; see [`Transact`].
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// use gdbpool::Isolation;
    ///
    /// let account = String::from("Ann");
    /// let balance: i64 = db
    ///     .transact(|tx| {
    ///         let account = account.clone(); // once for each run
    ///         async move {
    ///             let sql = "UPDATE accounts SET balance = balance - $1 WHERE name = $2 RETURNING balance";
    ///             Ok(tx.query_one(sql, &[&10i64, &account]).await?.get(0))
    ///         }
    ///     })
    ///     .isolation(Isolation::Serializable)
    ///     .await?;
    /// # Ok(())
    /// # });
    /// ```
    #[track_caller]
    pub fn transact<F, Fut, T>(&self, function: F) -> Transact<'_, 'static, F>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        Transact::new(&self.pools, function, Location::caller())
    }

    /// A subscription to a channel of NOTIFY, to be begun with [`subscribe`](Listen::subscribe) or
    /// [`into_queue`](Listen::into_queue). Listens on the server of the default write pool.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// use gdbpool::ListenEvent;
    ///
    /// let mut jobs = db.listen_on("jobs").subscribe().await?;
    /// # db.notify("jobs", "7").await?;
    /// while let Some(event) = jobs.next().await {
    ///     # let last = matches!(event, ListenEvent::Notification(_));
    ///     match event {
    ///         ListenEvent::Notification(job) => println!("{}", job.payload()),
    ///         ListenEvent::Subscribed | ListenEvent::Resumed => println!("read the table anew"),
    ///         other => println!("{other:?}"),
    ///     }
    ///     # if last { break; }
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn listen_on(&self, channel: impl Into<String>) -> Listen<'_> {
        Listen::new(&self.pools, &self.listeners, channel.into())
    }

    /// A notification to a channel, sent when it is awaited, and received by its listeners when it is committed, which is at
    /// once.
    #[track_caller]
    pub fn notify(&self, channel: impl Into<String>, payload: impl Into<String>) -> Notify<'_> {
        Notify::new(&self.pools, channel.into(), payload.into(), Location::caller())
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
        let report = self.pools.remove(name)?.close(timeout).await;
        self.listeners.rest().await;
        Ok(report)
    }

    /// The reports of all pools, in the order they were added.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        self.pools.all().iter().map(ConnectionPool::status).collect()
    }

    /// A snapshot of all pools, to print or to export: their reports, and what is counted over all of them.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.pools.stats()
    }

    /// What happens to the pools from now on, as a stream: connects and failures, sessions that end, overlong holds, work
    /// that was abandoned and what became of it.
    ///
    /// Any number of readers; each sees everything, up to a bound that [`events`](InteractionPoolBuilder::events) sets.
    /// Nothing is made while nobody reads.
    pub fn events(&self) -> Events {
        self.pools.events()
    }

    /// Closes all pools, each given `timeout` for its leases to come back, and reports what was cut.
    ///
    /// # Cancel safety
    /// Yes: all pools are closed from the first poll on.
    pub async fn close(&self, timeout: Duration) -> Vec<CloseReport> {
        let pools = self.pools.all();
        let reports = futures_util::future::join_all(pools.iter().map(|pool| pool.close(timeout))).await;
        self.listeners.rest().await;
        reports
    }
}

impl InteractionPoolBuilder {
    /// Adds a named pool. The first one is the default for everything not said otherwise.
    pub fn pool(mut self, config: PoolConfig) -> Self {
        self.configs.push(config);
        self
    }

    /// How many events a reader of [`events`](InteractionPool::events) may fall behind before it loses the oldest. At least
    /// 1; default 1,024; each costs some tens of bytes while anybody reads.
    pub fn events(mut self, capacity: usize) -> Self {
        self.events = capacity;
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
        let pools = NamedPools::new(self.runtime, self.events);
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
        Ok(InteractionPool {
            pools: Arc::new(pools),
            listeners: Arc::default(),
        })
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
