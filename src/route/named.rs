//! The named pools at one time, and the choice among them.
//!
//! Between interaction and pool: it keeps the list, asks the route, and gives out handles. The list is replaced as a whole
//! when a pool is added or removed, so that no call waits for another.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::RetryBudget;
use super::{Access, Candidate, Choice, route};
use crate::config::PoolConfig;
use crate::error::{BadInput, Error};
use crate::observe::Broadcast;
use crate::pool::{ConnectionPool, Events, PoolEvent, Stats};
use crate::runtime::Runtime;

/// All named pools of one [`InteractionPool`](crate::InteractionPool), with the runtime they share.
pub(crate) struct NamedPools {
    runtime: Arc<dyn Runtime>,
    events: Broadcast<PoolEvent>,
    /// Times a call was run again.
    retries: AtomicU64,
    pools: Mutex<Arc<Pools>>,
    budget: Mutex<RetryBudget>,
}

/// One state of the list.
#[derive(Default)]
struct Pools {
    candidates: Vec<Candidate>,
    pools: Vec<ConnectionPool>,
}

impl NamedPools {
    /// `events`: how far a reader of events may fall behind.
    pub(crate) fn new(runtime: Arc<dyn Runtime>, events: usize) -> Self {
        Self {
            runtime,
            events: Broadcast::new(events),
            retries: AtomicU64::new(0),
            pools: Mutex::default(),
            budget: Mutex::default(),
        }
    }

    fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that may be made again after a lost session has begun.
    pub(crate) fn earn_retry(&self) {
        self.budget().earn();
    }

    /// Whether a call may be made again after a lost session.
    pub(crate) fn may_retry(&self) -> bool {
        self.budget().spend()
    }

    pub(crate) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// What happens to any of the pools from now on.
    pub(crate) fn events(&self) -> Events {
        Events::new(&self.events, None)
    }

    /// A call is run again.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        let pools = self.all().iter().map(ConnectionPool::status).collect();
        Stats::new(pools, self.retries.load(Ordering::Relaxed))
    }

    /// Opens a pool and adds it.
    pub(crate) fn add(&self, config: PoolConfig) -> Result<(), Error> {
        let mut pools = self.lock();
        let next = pools.with(Arc::clone(&self.runtime), config, &self.events)?;
        *pools = Arc::new(next);
        Ok(())
    }

    /// Takes a pool out; whoever has a handle on it still can use it.
    pub(crate) fn remove(&self, name: &str) -> Result<ConnectionPool, Error> {
        let mut pools = self.lock();
        let (next, removed) = pools.without(name)?;
        *pools = Arc::new(next);
        Ok(removed)
    }

    /// All pools, in the order they were added.
    pub(crate) fn all(&self) -> Vec<ConnectionPool> {
        self.lock().pools.clone()
    }

    /// The pool for an interaction.
    pub(crate) fn choose(&self, access: Access, name: Option<&str>) -> Result<ConnectionPool, Error> {
        let pools = Arc::clone(&self.lock());
        let at = match route(&pools.candidates, access, name, || self.runtime.random())? {
            Choice::One(at) => at,
            Choice::Either(a, b) if pools.pools[b].load() < pools.pools[a].load() => b,
            Choice::Either(a, _) => a,
        };
        Ok(pools.pools[at].clone())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Pools>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    /// These pools and one more.
    fn with(
        &self,
        runtime: Arc<dyn Runtime>,
        config: PoolConfig,
        events: &Broadcast<PoolEvent>,
    ) -> Result<Self, Error> {
        let name = Arc::clone(&config.name);
        if self.candidates.iter().any(|pool| pool.name == name) {
            return Err(Error::bad_input(BadInput::DuplicatePool { name }));
        }
        let duties = config.duties;
        if duties.default
            && let Some(other) = self.candidates.iter().find(|pool| pool.is_default)
        {
            let reason = format!("pool \"{name}\" cannot be the default pool: \"{}\" is", other.name);
            return Err(Error::bad_input(BadInput::Conflict { reason }));
        }
        let pool = ConnectionPool::open_with(runtime, config, events.clone())?;
        let candidate = Candidate {
            name,
            is_default: duties.default,
            is_read: duties.read,
            is_write: duties.write,
        };
        let mut next = Self {
            candidates: self.candidates.clone(),
            pools: self.pools.clone(),
        };
        next.candidates.push(candidate);
        next.pools.push(pool);
        Ok(next)
    }

    /// These pools without one.
    fn without(&self, name: &str) -> Result<(Self, ConnectionPool), Error> {
        let Choice::One(at) = route(&self.candidates, Access::Write, Some(name), || 0)? else {
            return Err(Error::bad_input(BadInput::NoPool));
        };
        let default = self
            .candidates
            .iter()
            .position(|pool| pool.is_default)
            .unwrap_or_default();
        if at == default && self.pools.len() > 1 {
            let reason = format!("pool \"{name}\" is the default pool and cannot be removed while there are others");
            return Err(Error::bad_input(BadInput::Conflict { reason }));
        }
        let mut next = Self {
            candidates: self.candidates.clone(),
            pools: self.pools.clone(),
        };
        next.candidates.remove(at);
        let removed = next.pools.remove(at);
        Ok((next, removed))
    }
}

impl fmt::Debug for NamedPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.lock().candidates.iter().map(|pool| &pool.name))
            .finish()
    }
}
