//! Dials: when one may begin, and what becomes of its result.
//!
//! The pool owns its dials: they are begun by upkeep for whoever waits, outlive the caller that asked, and their result
//! goes to the oldest waiter. This part of the machine never dials.

use super::Ledger;
use super::decisions::{ConnectFailure, Effects};
use super::slot::{Fate, Slot, SlotId, State};
use crate::Instant;
use crate::pool::close_reason::CloseReason;

impl Ledger {
    /// Whether [`next_connect`](Self::next_connect) has something to dial: somebody waits for whom no dial is under way,
    /// or fewer than `min` sessions exist; and capacity, concurrency and backoff allow it.
    pub(crate) fn connect_due(&self, now: Instant) -> bool {
        let now = now.max(self.latest);
        let wanted = self.waiters.len() > self.useful_dials || self.live() + self.useful_dials < self.limits.min;
        wanted
            && !self.closed
            && self.occupied() < self.limits.max
            && self.connecting < self.limits.max_connecting
            && self.backoff.is_open(now)
    }

    /// Reserves a slot for a dial; upkeep calls this until it gives none.
    pub(crate) fn next_connect(&mut self, now: Instant) -> Option<SlotId> {
        let now = self.advance(now);
        if !self.connect_due(now) {
            return None;
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::VACANT);
            // Room for every slot, so that no return ever allocates.
            self.idle.reserve(self.slots.len() - self.idle.len());
            (self.slots.len() - 1) as u32
        }) as usize;
        let round = self.backoff.begin();
        self.turn(index, State::Connecting { round });
        let slot = &mut self.slots[index];
        slot.epoch = self.epoch;
        slot.since = now;
        self.useful_dials += 1;
        self.counters.dials += 1;
        Some(self.id(index))
    }

    /// A dial brought a session. `random` fixes how long it may live.
    pub(crate) fn connected(&mut self, now: Instant, slot: SlotId, random: u64) -> Effects {
        let now = self.advance(now);
        let Some((index, round)) = self.end_dial(slot) else {
            return Effects::default();
        };
        self.backoff.succeeded(round, &self.limits);
        self.counters.connects += 1;
        let expires = self
            .limits
            .lifetime(random)
            .map_or(Instant::FAR_FUTURE, |lifetime| now + lifetime);
        let entry = &mut self.slots[index];
        entry.used = now;
        entry.expires = expires;
        let effects = match entry.fate {
            Fate::Close(reason) => self.begin_close(now, index, reason),
            _ => self.offer(now, index),
        };
        // One more session to age, and perhaps a wider ramp.
        Effects {
            wake_upkeep: true,
            ..effects
        }
    }

    /// A dial failed. `random` draws the pause before the next one.
    pub(crate) fn connect_failed(
        &mut self,
        now: Instant,
        slot: SlotId,
        failure: ConnectFailure,
        random: u64,
    ) -> Effects {
        let now = self.advance(now);
        let Some((index, round)) = self.end_dial(slot) else {
            return Effects::default();
        };
        self.backoff.failed(now, round, failure, random, &self.limits);
        self.counters.connect_failures += 1;
        let effects = self.free(now, index);
        Effects {
            wake_upkeep: true,
            ..effects
        }
    }

    /// The driver says that a session has ended. A lease keeps its slot until it is given back; a session that is being
    /// closed keeps it until [`closed`](Self::closed).
    pub(crate) fn session_ended(&mut self, now: Instant, slot: SlotId, reason: CloseReason) -> Effects {
        let now = self.advance(now);
        let index = slot.index();
        let Some(entry) = self
            .slots
            .get_mut(index)
            .filter(|entry| entry.generation == slot.generation)
        else {
            return Effects::default();
        };
        match entry.state {
            State::Closing | State::Vacant => return Effects::default(),
            State::Connecting { .. } => {
                entry.fate = entry.fate.max(Fate::Close(reason));
                return Effects::default();
            }
            State::Leased | State::Shared { .. } if entry.fate == Fate::Ended => return Effects::default(),
            State::Leased => {
                entry.fate = Fate::Ended;
                self.count_close(index, reason);
                return Effects::default();
            }
            State::Shared { .. } => {
                self.doom_shared(now, index, Fate::Ended);
                self.count_close(index, reason);
                return Effects::default();
            }
            // Counted when it was doomed.
            State::Doomed => self.doomed.retain(|doomed| *doomed as usize != index),
            State::Idle => {
                self.idle.retain(|idle| *idle as usize != index);
                self.count_close(index, reason);
            }
            State::Settling { .. } => self.count_close(index, reason),
        }
        self.free(now, index)
    }

    fn end_dial(&mut self, slot: SlotId) -> Option<(usize, u32)> {
        let index = self.find(slot, State::CONNECTING)?;
        let State::Connecting { round } = self.slots[index].state else {
            return None;
        };
        if self.slots[index].epoch == self.epoch {
            self.useful_dials -= 1;
        }
        Some((index, round))
    }
}
