//! The ledger's invariants, asserted by the model after every step.
//!
//! Compiled for tests and fuzzing only. It reads the machine and changes nothing.

use super::Ledger;
use super::slot::{Fate, SlotId, State};

impl Ledger {
    /// Panics if the ledger contradicts itself.
    pub(super) fn check(&self) {
        self.check_lists();
        self.check_slots();
        self.waiters.check();
        let connecting = self.connecting;
        assert!(
            connecting <= self.limits.max_connecting,
            "{connecting} dials are under way"
        );
        assert!(self.useful_dials <= connecting, "more useful dials than dials");
        assert!(
            self.idle.is_empty() || self.waiters.is_empty(),
            "somebody waits while a session is idle"
        );
        assert!(
            self.reserved <= self.waiters.len(),
            "more sessions are reserved than callers wait"
        );
        assert!(
            !self.is_overloaded() || self.idle.is_empty(),
            "overloaded while a session is idle"
        );
        assert_eq!(self.counters.overtakes, 0, "a waiter was overtaken");
        if self.closed {
            assert!(
                self.waiters.is_empty() && self.idle.is_empty(),
                "a closed pool keeps waiters or idle sessions"
            );
        }
    }

    /// Whether this shared session takes no more statements because a waiter gets it next.
    pub(super) fn is_reserved_for_a_waiter(&self, id: SlotId) -> bool {
        self.find(id, State::SHARED)
            .is_some_and(|index| self.is_reserved(index))
    }

    /// Each slot is in the list of its state, once, and in no other.
    fn check_lists(&self) {
        let lists = [
            (&self.vacant, State::VACANT),
            (&self.idle, State::IDLE),
            (&self.shared, State::SHARED),
            (&self.doomed, State::DOOMED),
        ];
        for (list, kind) in lists {
            assert_eq!(
                list.len(),
                self.count(kind) as usize,
                "list and count of kind {kind} differ"
            );
            for (place, index) in list.iter().enumerate() {
                assert_eq!(
                    self.slots[*index as usize].state.kind(),
                    kind,
                    "slot {index} is in the wrong list"
                );
                assert!(!list[..place].contains(index), "slot {index} is twice in a list");
            }
        }
        assert_eq!(
            self.count(State::CLOSING),
            self.closing,
            "closing slots are counted wrongly"
        );
        assert_eq!(
            self.count(State::CONNECTING),
            self.connecting,
            "dials are counted wrongly"
        );
    }

    fn check_slots(&self) {
        let mut reserved = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            assert!(slot.epoch <= self.epoch, "slot {index} comes from a future epoch");
            match slot.state {
                State::Idle => {
                    assert_eq!(slot.epoch, self.epoch, "slot {index} is idle in an old epoch");
                    assert_eq!(
                        slot.fate,
                        Fate::Open,
                        "slot {index} is idle although something is wrong with it"
                    );
                }
                State::Leased => assert!(slot.at.is_some(), "nobody knows who holds slot {index}"),
                State::Shared {
                    users,
                    reserved: is_reserved,
                } => {
                    assert!(users > 0, "slot {index} is shared by nobody");
                    let usable = slot.fate == Fate::Open && slot.epoch == self.epoch;
                    assert!(
                        !is_reserved || usable,
                        "slot {index} is reserved but will not be usable"
                    );
                    reserved += u32::from(is_reserved);
                }
                State::Closing | State::Connecting { .. } | State::Doomed | State::Settling { .. } => {}
                State::Vacant => assert_eq!(slot.fate, Fate::Open, "vacant slot {index} remembers its session"),
            }
        }
        assert_eq!(reserved, self.reserved, "the number of reservations is wrong");
    }
}
