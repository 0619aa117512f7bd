//! Work that nobody waits for any more, until it is known what became of it.
//!
//! Between a lease's return and the settling of its session. Dropped with its settling, wherever that happens, it says
//! that nothing is known.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::events::PoolEvent;
use super::shared::Shared;
use crate::session::Abandoned;

/// Tells what became of the work when it is dropped.
pub(super) struct Abandonment {
    pool: Arc<Shared>,
    pid: i32,
    at: &'static Location<'static>,
    outcome: Abandoned,
}

impl Abandonment {
    pub(super) fn new(pool: &Arc<Shared>, pid: i32, at: &'static Location<'static>) -> Self {
        pool.abandoned.fetch_add(1, Ordering::Relaxed);
        Self {
            pool: Arc::clone(pool),
            pid,
            at,
            outcome: Abandoned::Unknown,
        }
    }

    pub(super) fn found(&mut self, outcome: Abandoned) {
        self.outcome = outcome;
    }
}

impl Drop for Abandonment {
    fn drop(&mut self) {
        let (pool, pid, at, outcome) = (&self.pool, self.pid, self.at, self.outcome);
        tracing::debug!(pool = &*pool.config.name, pid, %at, %outcome, "abandoned work has ended");
        pool.events.send(|| PoolEvent::Abandoned {
            pool: Arc::clone(&pool.config.name),
            pid: Some(pid),
            at,
            outcome,
        });
    }
}
