//! Housekeeping: what to close, when to look again, and the changes that concern the whole pool.
//!
//! Called by the pool's upkeep task and its handle, never on the way of a checkout. It closes nothing itself.

use super::Ledger;
use super::decisions::{Effects, Hold};
use super::slot::{Fate, SlotId, State};
use super::waiters::WaiterId;
use crate::Instant;
use crate::pool::close_reason::CloseReason;

impl Ledger {
    /// The next session that upkeep must close; it calls this until it gives none. Those are: idle ones past their
    /// lifetime, unused past the idle timeout while there are more than `min`, of an old epoch or above `max`; and
    /// returned ones that were not proven clean in time.
    pub(crate) fn reap(&mut self, now: Instant) -> Option<SlotId> {
        let now = self.advance(now);
        if let Some(index) = self.doomed.pop() {
            // Counted when it was doomed.
            self.turn(index as usize, State::Closing);
            return Some(self.id(index as usize));
        }
        let (index, reason) = self.overdue(now).or_else(|| self.spent(now))?;
        match self.slots[index].state {
            State::Idle => self.idle.retain(|idle| *idle as usize != index),
            State::Shared { .. } => self.unlist_shared(index),
            _ => {}
        }
        let effects = self.begin_close(now, index, reason);
        self.balance_reservations(now);
        effects.close
    }

    /// The shell has closed a session: the server process is gone, its capacity free.
    pub(crate) fn closed(&mut self, now: Instant, slot: SlotId) -> Effects {
        let now = self.advance(now);
        match self.find(slot, State::CLOSING) {
            Some(index) => self.free(now, index),
            None => Effects::default(),
        }
    }

    /// When upkeep must look again unless it is woken before: never later than something falls due, sometimes earlier.
    /// It asks after it has called `next_connect`, `reap`, `shed` and `overdue_holds` until they gave nothing, and sleeps.
    pub(crate) fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let now = self.advance(now);
        let mut at = self
            .backoff
            .until(now)
            .filter(|_| !self.closed)
            .unwrap_or(Instant::FAR_FUTURE);
        if !self.doomed.is_empty() || self.connect_due(now) {
            at = now;
        }
        at = at.min(self.shedding_due());
        for index in 0..self.slots.len() {
            at = at.min(self.falls_due(now, index));
        }
        self.wake_at = at;
        (at != Instant::FAR_FUTURE).then_some(at)
    }

    /// Sessions held for longer than the hold warning, each reported once per lease.
    pub(crate) fn overdue_holds(&mut self, now: Instant) -> Vec<Hold> {
        let now = self.advance(now);
        let Some(warning) = self.limits.hold_warning else {
            return Vec::new();
        };
        let mut overdue = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.state == State::Leased && !slot.warned && slot.since + warning <= now {
                slot.warned = true;
                overdue.extend(self.hold(now, index));
            }
        }
        overdue
    }

    /// Changes the bounds. Surplus sessions close when nobody uses them. `true`: upkeep is to be woken.
    pub(crate) fn resize(&mut self, min: u32, max: u32) -> bool {
        let before = (self.limits.min, self.limits.max);
        self.limits.max = max.max(1);
        self.limits.min = min.min(self.limits.max);
        before != (self.limits.min, self.limits.max)
    }

    /// From now on only sessions dialled from now on are given out: idle ones are closed at once, the others when nobody
    /// uses them or when their dial is done. `true`: upkeep is to be woken.
    pub(crate) fn bump_epoch(&mut self) -> bool {
        self.epoch += 1;
        self.useful_dials = 0;
        self.doom_idle(CloseReason::Epoch);
        for index in self.shared.clone() {
            self.unreserve(index as usize);
        }
        self.occupied() > 0
    }

    /// Closes the pool: no more checkouts, idle sessions are closed at once, the others when they come back. The waiters
    /// it gives back have been turned away; the shell tells them, and wakes upkeep.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<WaiterId> {
        let now = self.advance(now);
        self.closed = true;
        self.doom_idle(CloseReason::PoolClosed);
        self.note_rested();
        let mut turned_away = Vec::with_capacity(self.waiters.len() as usize);
        while let Some((id, _)) = self.waiters.pop() {
            turned_away.push(id);
        }
        self.counters.turned_away += turned_away.len() as u64;
        self.balance_reservations(now);
        turned_away
    }

    /// Closed, and no server process is left.
    pub(crate) fn is_drained(&self) -> bool {
        self.closed && self.occupied() == 0
    }

    /// Whether upkeep must be woken to look at `at`.
    pub(super) fn look_again_at(&mut self, at: Instant) -> bool {
        let earlier = at < self.wake_at;
        if earlier {
            self.wake_at = at;
        }
        earlier
    }

    fn doom_idle(&mut self, reason: CloseReason) {
        for index in std::mem::take(&mut self.idle) {
            self.turn(index as usize, State::Doomed);
            self.count_close(index as usize, reason);
            self.doomed.push(index);
        }
        self.idle.reserve(self.slots.len());
    }

    /// A session that should have settled by now.
    fn overdue(&self, now: Instant) -> Option<(usize, CloseReason)> {
        let is_overdue = |index: &usize| self.settles_by(*index).is_some_and(|deadline| deadline <= now);
        (0..self.slots.len())
            .find(is_overdue)
            .map(|index| (index, CloseReason::SettleOverdue))
    }

    fn settles_by(&self, index: usize) -> Option<Instant> {
        let slot = &self.slots[index];
        match (slot.state, slot.fate) {
            (State::Settling { deadline }, _) | (State::Shared { .. }, Fate::Settle(deadline)) => Some(deadline),
            _ => None,
        }
    }

    /// An idle session that may not stay; of several, the one unused for longest.
    fn spent(&self, now: Instant) -> Option<(usize, CloseReason)> {
        let unfit = |index: &u32| self.unfit(now, *index as usize).map(|reason| (*index as usize, reason));
        if let Some(found) = self.idle.iter().find_map(unfit) {
            return Some(found);
        }
        let timeout = self.limits.idle_timeout.filter(|_| self.live() > self.limits.min)?;
        let unused = |index: &&u32| self.slots[**index as usize].used + timeout <= now;
        self.idle
            .iter()
            .find(unused)
            .map(|index| (*index as usize, CloseReason::IdleTimeout))
    }

    /// The earliest instant at which this slot can give upkeep something to do, whatever its users do until then.
    fn falls_due(&self, now: Instant, index: usize) -> Instant {
        let slot = &self.slots[index];
        let idle = slot.state == State::Idle;
        match slot.state {
            // A dial's result wakes upkeep, and so does what frees a slot.
            State::Closing | State::Connecting { .. } | State::Doomed | State::Vacant => return Instant::FAR_FUTURE,
            State::Idle | State::Leased | State::Settling { .. } | State::Shared { .. } => {}
        }
        let mut at = self.settles_by(index).unwrap_or(Instant::FAR_FUTURE);
        // A session in use past its lifetime is closed when it comes back.
        if idle || now < slot.expires {
            at = at.min(slot.expires);
        }
        if let Some(timeout) = self.limits.idle_timeout.filter(|_| self.live() > self.limits.min) {
            at = at.min(if idle { slot.used } else { now } + timeout);
        }
        if let Some(warning) = self.limits.hold_warning {
            let leased = slot.state == State::Leased;
            at = match (leased, slot.warned) {
                (true, false) => at.min(slot.since + warning),
                // Its next holder may come right now.
                _ => at.min(now + warning),
            };
        }
        at
    }
}
