//! `Stats`: all pools at one instant, and what is counted over all of them. Values only.

use std::fmt;

use super::status::PoolStatus;

/// A snapshot over all pools of an [`InteractionPool`](crate::InteractionPool): plain data, printable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The report of each pool, in the order they were added.
    pub pools: Vec<PoolStatus>,
    /// Times an interaction was run again, or met a dead session, and went on without its caller noticing.
    pub retries: u64,
}

impl Stats {
    pub(crate) fn new(pools: Vec<PoolStatus>, retries: u64) -> Self {
        Self { pools, retries }
    }

    /// The report of the pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&PoolStatus> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The sum of one number over all pools.
    ///
    /// ```
    /// # gdbpool_sim::doc::with_pools(async |db| {
    /// let stats = db.stats();
    /// let failures = stats.total(|pool| pool.connect_failures);
    /// let idle = stats.total(|pool| pool.idle.into());
    /// # assert_eq!((failures, idle), (0, 0));
    /// # Ok(())
    /// # });
    /// ```
    #[must_use]
    pub fn total(&self, number: impl Fn(&PoolStatus) -> u64) -> u64 {
        self.pools.iter().map(number).sum()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pool in &self.pools {
            writeln!(f, "{pool}")?;
        }
        write!(
            f,
            "{} pools: {} sessions, {} waiting, {} checkouts, {} retries",
            self.pools.len(),
            self.total(|pool| pool.size.into()),
            self.total(|pool| pool.waiting.into()),
            self.total(|pool| pool.checkouts),
            self.retries
        )
    }
}
