//! Sessions that several short statements use at once.
//!
//! A caller shares the session it holds; further statements join while no session is idle. A caller that wants a session
//! for itself is not starved by them: while it waits, one shared session is reserved, takes no more statements, and goes
//! to the oldest waiter when it runs dry. This part of the machine does not know what a statement is.

use super::Ledger;
use super::decisions::{Effects, Return};
use super::slot::{Fate, SlotId, State};
use crate::Instant;

#[cfg_attr(
    not(any(test, fuzzing)),
    allow(dead_code, reason = "pipelining of short statements is built on it")
)]
impl Ledger {
    /// A leased session becomes shared, with its holder as first user. `false`: this id holds no lease.
    pub(crate) fn share(&mut self, now: Instant, slot: SlotId) -> bool {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::LEASED) else {
            return false;
        };
        self.turn(
            index,
            State::Shared {
                users: 1,
                reserved: false,
            },
        );
        self.shared.push(index as u32);
        self.balance_reservations(now);
        true
    }

    /// A statement joins the shared session with the fewest users, if none is idle and one takes it.
    pub(crate) fn join_shared(&mut self, now: Instant, max_depth: u32) -> Option<SlotId> {
        let now = self.advance(now);
        // A pool that must shrink lets its shared sessions run dry.
        if self.closed || !self.idle.is_empty() || self.is_oversized() {
            return None;
        }
        self.balance_reservations(now);
        let (index, users) = self.least_used_shared(now)?;
        if users >= max_depth {
            return None;
        }
        self.slots[index].state = State::Shared {
            users: users + 1,
            reserved: false,
        };
        self.counters.joins += 1;
        Some(self.id(index))
    }

    /// A statement is done with a shared session. `how` speaks of this statement alone; the worst one counts when the
    /// last leaves.
    pub(crate) fn leave_shared(&mut self, now: Instant, slot: SlotId, how: Return) -> Effects {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::SHARED) else {
            return Effects::default();
        };
        let fate = match how {
            Return::Broken(reason) => Fate::Close(reason),
            Return::Clean => Fate::Open,
            Return::Settling { deadline } => Fate::Settle(deadline),
        };
        self.doom_shared(now, index, fate);
        let State::Shared { users, reserved } = self.slots[index].state else {
            return Effects::default();
        };
        if users > 1 {
            self.slots[index].state = State::Shared {
                users: users - 1,
                reserved,
            };
            let wake_upkeep = match self.slots[index].fate {
                Fate::Settle(deadline) => self.look_again_at(deadline),
                _ => false,
            };
            return Effects {
                wake_upkeep,
                ..Effects::default()
            };
        }
        self.unlist_shared(index);
        let how = match self.slots[index].fate {
            Fate::Close(reason) => Return::Broken(reason),
            Fate::Settle(deadline) => Return::Settling { deadline },
            Fate::Ended | Fate::Open => Return::Clean,
        };
        let effects = self.take_back(now, index, how);
        // What was known about this stay has been acted on; a slot whose session ended is vacant by now.
        self.slots[index].fate = Fate::Open;
        self.balance_reservations(now);
        effects
    }

    /// Takes a session off the list of shared ones, before it changes its state.
    pub(super) fn unlist_shared(&mut self, index: usize) {
        self.shared.retain(|shared| *shared as usize != index);
        self.unreserve(index);
    }

    /// Something is known about the end of a shared session: it takes no more statements, nor a reservation.
    pub(super) fn doom_shared(&mut self, now: Instant, index: usize, fate: Fate) {
        let slot = &mut self.slots[index];
        slot.fate = slot.fate.max(fate);
        if slot.fate != Fate::Open {
            self.unreserve(index);
            self.balance_reservations(now);
        }
    }

    /// As many shared sessions are reserved as callers wait, as far as there are any that
    /// will be usable then. Called whenever either changes, and before a statement joins, since sessions age meanwhile.
    pub(super) fn balance_reservations(&mut self, now: Instant) {
        if self.shared.is_empty() {
            return;
        }
        for place in 0..self.shared.len() {
            let index = self.shared[place] as usize;
            if self.slots[index].expires <= now {
                self.unreserve(index);
            }
        }
        while self.reserved < self.waiters.len() {
            let Some((index, users)) = self.least_used_shared(now) else {
                break;
            };
            self.slots[index].state = State::Shared { users, reserved: true };
            self.reserved += 1;
        }
        while self.reserved > self.waiters.len() {
            let Some(index) = self
                .shared
                .iter()
                .rev()
                .copied()
                .find(|index| self.is_reserved(*index as usize))
            else {
                break;
            };
            self.unreserve(index as usize);
        }
    }

    pub(super) fn is_reserved(&self, index: usize) -> bool {
        matches!(self.slots[index].state, State::Shared { reserved: true, .. })
    }

    pub(super) fn unreserve(&mut self, index: usize) {
        if let State::Shared { users, reserved: true } = self.slots[index].state {
            self.slots[index].state = State::Shared { users, reserved: false };
            self.reserved -= 1;
        }
    }

    /// Of the shared sessions that will be usable when they run dry and are not reserved, the one with fewest users.
    fn least_used_shared(&self, now: Instant) -> Option<(usize, u32)> {
        let candidate = |index: &u32| {
            let slot = &self.slots[*index as usize];
            let usable = slot.fate == Fate::Open && slot.epoch == self.epoch && now < slot.expires;
            match slot.state {
                State::Shared { users, reserved: false } if usable => Some((*index as usize, users)),
                _ => None,
            }
        };
        self.shared.iter().filter_map(candidate).min_by_key(|(_, users)| *users)
    }
}
