//! The pool report: what a pool looks like at one instant, for people and for metrics. Values only.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::close_reason::CloseReason;
use super::ledger::Counters;
use super::report;
use super::shared::{Books, Shared};
use crate::Instant;
use crate::error::Holder;

/// One pool at one instant: gauges, counters since it was opened, and who holds sessions the longest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// The most sessions it may have.
    pub max: u32,
    /// The fewest it keeps.
    pub min: u32,
    /// Sessions it has, is opening or is closing: the sum of the next six.
    pub size: u32,
    /// Free sessions.
    pub idle: u32,
    /// Sessions held by somebody.
    pub leased: u32,
    /// Returned sessions that have not proved clean yet.
    pub settling: u32,
    /// Sessions that several short statements share.
    pub shared: u32,
    /// Attempts to connect under way.
    pub connecting: u32,
    /// Sessions being closed.
    pub closing: u32,
    /// Callers in the queue.
    pub waiting: u32,
    /// How long the first of them has waited.
    pub oldest_wait: Option<Duration>,
    /// The longest holders, longest first, up to five.
    pub holders: Vec<Holder>,
    /// Whether the pool was closed.
    pub is_closed: bool,
    /// How often all sessions were retired.
    pub epoch: u64,
    /// How long no attempt to connect will begin, after failures.
    pub backoff: Option<Duration>,
    /// Checkouts that were not refused.
    pub checkouts: u64,
    /// Checkouts that had to wait.
    pub waits: u64,
    /// Times a session went to a waiter past an older one: always 0.
    pub overtakes: u64,
    /// Waiters that left before their turn.
    pub abandoned: u64,
    /// Attempts to connect.
    pub dials: u64,
    /// Attempts that brought a session.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Idle sessions that did not answer before they were leased.
    pub pings_failed: u64,
    /// Holds reported as overlong.
    pub overlong_holds: u64,
    /// Checkouts that timed out.
    pub timeouts: u64,
    /// Checkouts refused because too many waited.
    pub queue_full: u64,
    /// Waiters refused because the pool was overloaded.
    pub shed: u64,
    /// Whether waiters are being refused for overload.
    pub is_overloaded: bool,
    /// Waiters turned away because the pool was closed.
    pub turned_away: u64,
    /// Cancel requests sent.
    pub cancels: u64,
    /// Sessions that came back with something under way: a dropped future or stream, a deadline that had passed.
    pub abandoned_work: u64,
    counters: Counters,
}

impl PoolStatus {
    pub(super) fn new(pool: &Shared, books: &Books, now: Instant) -> Self {
        let status = books.ledger.status(now);
        let counters = status.counters;
        Self {
            name: pool.config.name.to_string(),
            max: status.max,
            min: status.min,
            size: status.size,
            idle: status.idle,
            leased: status.leased,
            settling: status.settling,
            shared: status.shared,
            connecting: status.connecting,
            closing: status.closing,
            waiting: status.waiting,
            oldest_wait: status.oldest_wait,
            holders: status.longest_holds.iter().map(report::holder).collect(),
            is_closed: status.is_closed,
            epoch: status.epoch,
            backoff: status.backoff_until.map(|until| until - now),
            checkouts: counters.checkouts,
            waits: counters.waits,
            overtakes: counters.overtakes,
            abandoned: counters.abandoned,
            dials: counters.dials,
            connects: counters.connects,
            connect_failures: counters.connect_failures,
            pings_failed: counters.pings_failed,
            overlong_holds: books.overlong_holds,
            timeouts: pool.timeouts.load(Ordering::Relaxed),
            queue_full: counters.queue_full,
            shed: counters.shed,
            is_overloaded: status.is_overloaded,
            turned_away: counters.turned_away,
            cancels: pool.plan.settings.cancels.load(Ordering::Relaxed),
            abandoned_work: pool.abandoned.load(Ordering::Relaxed),
            counters,
        }
    }

    /// How many sessions ended for `reason`.
    #[must_use]
    pub fn closes(&self, reason: CloseReason) -> u64 {
        self.counters.closes(reason)
    }
}

impl fmt::Display for PoolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} sessions ({} idle, {} leased, {} settling, {} connecting, {} closing), {} waiting; {} checkouts, \
             {} waited, {} connects, {} failed",
            self.name,
            self.size,
            self.max,
            self.idle,
            self.leased,
            self.settling,
            self.connecting,
            self.closing,
            self.waiting,
            self.checkouts,
            self.waits,
            self.connects,
            self.connect_failures
        )?;
        let rare = [
            (self.timeouts, "timed out"),
            (self.queue_full, "refused"),
            (self.shed, "shed"),
            (self.cancels, "cancels"),
            (self.abandoned_work, "abandoned"),
            (self.overlong_holds, "overlong holds"),
        ];
        for (count, what) in rare.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        for reason in CloseReason::ALL {
            let count = self.closes(reason);
            if count > 0 {
                write!(f, ", {count} closed ({reason})")?;
            }
        }
        Ok(())
    }
}
