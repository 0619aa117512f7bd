//! `Status`: what the ledger looks like at one instant, for statistics and for errors that say why.
//!
//! Made on demand, off the path of a checkout: the longest holds are looked for here and nowhere else.

use std::time::Duration;

use super::Ledger;
use super::decisions::Hold;
use super::slot::{SlotId, State};
use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// A snapshot of one pool's ledger.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Slots in use, the sum of the six numbers below: server processes the pool has, is getting or is ending.
    pub(crate) size: u32,
    pub(crate) closing: u32,
    pub(crate) connecting: u32,
    pub(crate) idle: u32,
    pub(crate) leased: u32,
    pub(crate) settling: u32,
    pub(crate) shared: u32,
    /// Callers in line.
    pub(crate) waiting: u32,
    pub(crate) epoch: u64,
    pub(crate) is_closed: bool,
    pub(crate) counters: Counters,
    /// Up to [`LONGEST_HOLDS`](Self::LONGEST_HOLDS) leases, the longest first.
    pub(crate) longest_holds: Vec<Hold>,
    /// How long the oldest waiter has been waiting.
    /// Whether waiters are being refused for overload.
    pub(crate) is_overloaded: bool,
    pub(crate) oldest_wait: Option<Duration>,
    /// No dial begins before this instant.
    pub(crate) backoff_until: Option<Instant>,
}

impl Status {
    /// How many holds a status names.
    pub(crate) const LONGEST_HOLDS: usize = 5;
}

/// What has happened since the ledger was made. Each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Checkouts that were not refused.
    pub(crate) checkouts: u64,
    /// Times a caller had to stand in line.
    pub(crate) waits: u64,
    /// Sessions handed to waiters.
    pub(crate) grants: u64,
    /// Grants that went past an older waiter: 0, or the ledger is wrong.
    pub(crate) overtakes: u64,
    /// Sessions given to a caller that no longer took them.
    pub(crate) passed_on: u64,
    /// Waiters that gave up.
    pub(crate) abandoned: u64,
    /// Waiters turned away because the pool was closed.
    pub(crate) turned_away: u64,
    /// Checkouts refused because too many waited.
    pub(crate) queue_full: u64,
    /// Waiters refused because the pool was overloaded.
    pub(crate) shed: u64,
    /// Statements that joined a shared session.
    pub(crate) joins: u64,
    /// Dials begun.
    pub(crate) dials: u64,
    /// Dials that brought a session.
    pub(crate) connects: u64,
    /// Dials that failed.
    pub(crate) connect_failures: u64,
    /// Sessions that did not answer the ping before a checkout.
    pub(crate) pings_failed: u64,
    closes: [u64; CloseReason::ALL.len()],
}

impl Counters {
    /// Sessions that ended for this reason.
    pub(crate) const fn closes(&self, reason: CloseReason) -> u64 {
        self.closes[reason as usize]
    }

    pub(super) const fn count_close(&mut self, reason: CloseReason) {
        self.closes[reason as usize] += 1;
    }
}

impl Ledger {
    /// A snapshot, in time proportional to the number of slots.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let now = now.max(self.latest);
        Status {
            min: self.limits.min,
            max: self.limits.max,
            size: self.occupied(),
            closing: self.closing + self.doomed.len() as u32,
            connecting: self.connecting,
            idle: self.idle.len() as u32,
            leased: self.count(State::LEASED),
            settling: self.count(State::SETTLING),
            shared: self.shared.len() as u32,
            waiting: self.waiters.len(),
            epoch: self.epoch,
            is_closed: self.closed,
            counters: self.counters,
            longest_holds: self.longest_holds(now),
            is_overloaded: self.is_overloaded(),
            oldest_wait: self.waiters.first().map(|first| now.saturating_since(first.since)),
            backoff_until: self.backoff.until(now),
        }
    }

    /// Why the session of this slot ends, once that is known.
    pub(crate) fn close_reason(&self, slot: SlotId) -> Option<CloseReason> {
        let entry = self.slots.get(slot.index())?;
        (entry.generation == slot.generation).then_some(entry.reason)?
    }

    /// The lease of this slot, with the place that took it.
    pub(crate) fn hold_of(&self, now: Instant, slot: SlotId) -> Option<Hold> {
        let index = self.find(slot, State::LEASED)?;
        self.hold(now.max(self.latest), index)
    }

    pub(super) fn count_close(&mut self, index: usize, reason: CloseReason) {
        self.counters.count_close(reason);
        self.slots[index].reason = Some(reason);
    }

    pub(super) fn count(&self, kind: usize) -> u32 {
        self.slots.iter().filter(|slot| slot.state.kind() == kind).count() as u32
    }

    /// Callers and sessions in use, per session there may be. Constant time.
    pub(crate) fn load(&self) -> f64 {
        let away = self.idle.len() as u32 + self.connecting + self.closing + self.doomed.len() as u32;
        let busy = self.occupied().saturating_sub(away);
        f64::from(busy + self.waiters.len()) / f64::from(self.limits.max)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether this id still names a slot in use.
    pub(crate) fn knows(&self, slot: SlotId) -> bool {
        self.slots
            .get(slot.index())
            .is_some_and(|entry| entry.generation == slot.generation)
    }

    /// Everybody who holds a session, the longest first.
    pub(crate) fn holds(&self, now: Instant) -> Vec<Hold> {
        let leased = |index: &usize| self.slots[*index].state == State::Leased;
        let mut holds: Vec<Hold> = (0..self.slots.len())
            .filter(leased)
            .filter_map(|index| self.hold(now, index))
            .collect();
        holds.sort_unstable_by_key(|hold| (std::cmp::Reverse(hold.held), hold.slot));
        holds
    }

    /// Server processes of earlier epochs.
    pub(crate) fn retiring(&self) -> Vec<SlotId> {
        let old = |index: &usize| self.slots[*index].state != State::Vacant && self.slots[*index].epoch != self.epoch;
        (0..self.slots.len()).filter(old).map(|index| self.id(index)).collect()
    }

    fn longest_holds(&self, now: Instant) -> Vec<Hold> {
        let mut holds = self.holds(now);
        holds.truncate(Status::LONGEST_HOLDS);
        holds
    }
}
