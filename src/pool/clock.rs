//! The coarse clock: the present instant without asking the runtime, for stamps that may be a little old.
//!
//! Beside the fast path. Upkeep sets it at each of its rounds and keeps ticking while somebody reads it; when nobody does,
//! it goes stale, and the next reader asks the runtime and wakes upkeep. It never goes backwards.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::Instant;
use crate::runtime::Runtime;

/// How far the coarse clock may lag while it is kept.
pub(super) const TICK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct CoarseClock {
    nanos: AtomicU64,
    kept: AtomicBool,
    read: AtomicBool,
}

impl CoarseClock {
    /// The present instant, at most about one [`TICK`] old; `true` when upkeep is to be woken to keep it.
    pub(super) fn read(&self, runtime: &dyn Runtime) -> (Instant, bool) {
        if self.kept.load(Ordering::Acquire) {
            if !self.read.load(Ordering::Relaxed) {
                self.read.store(true, Ordering::Relaxed);
            }
            return (Instant::from_nanos(self.nanos.load(Ordering::Relaxed)), false);
        }
        let now = self.advance(runtime.now());
        self.read.store(true, Ordering::Relaxed);
        (now, !self.kept.swap(true, Ordering::AcqRel))
    }

    /// Upkeep's round: sets the clock, and says whether it must come back after a [`TICK`].
    pub(super) fn keep(&self, now: Instant) -> bool {
        self.advance(now);
        let read = self.read.swap(false, Ordering::Relaxed);
        self.kept.store(read, Ordering::Release);
        read
    }

    fn advance(&self, now: Instant) -> Instant {
        let before = self.nanos.fetch_max(now.as_nanos(), Ordering::Relaxed);
        Instant::from_nanos(before.max(now.as_nanos()))
    }
}
