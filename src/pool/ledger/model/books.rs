//! The model's own books: what each answer of the ledger must mean, its upkeep, and the end of every history.
//!
//! Compiled for tests and fuzzing only.

use super::*;

impl Model {
    /// An answer to somebody with this place in line: an idle session if nobody is in front, else the queue.
    pub(super) fn served(&mut self, answer: Checkout, ticket: u64) {
        match answer {
            Checkout::Refused(refusal) => panic!("refused ({refusal:?}) although it must be served"),
            Checkout::Session { slot, ping } => {
                assert!(self.queue.is_empty(), "a checkout overtook the queue");
                assert_eq!(self.idle.pop(), Some(slot), "not the session used last");
                self.lease(slot, ticket, ping);
            }
            Checkout::Wait(waiter) => {
                assert!(self.idle.is_empty(), "told to wait while a session is idle");
                assert!(
                    self.queue.iter().all(|queued| queued.waiter != waiter),
                    "{waiter:?} is in the queue twice"
                );
                assert!(!self.gone_waiters.contains(&waiter), "{waiter:?} is used again");
                let place = self.queue.partition_point(|other| other.ticket < ticket);
                let since = self.now;
                self.queue.insert(place, Queued { waiter, ticket, since });
            }
        }
    }

    /// The last user is done with a session, and left it so.
    pub(super) fn took_back(&mut self, slot: SlotId, how: Return, effects: Effects) {
        if self.slots[&slot].ended {
            return self.freed(slot, effects);
        }
        match how {
            Return::Broken(_) => self.closing(slot, effects),
            Return::Clean => {
                self.known(slot).used = self.now;
                self.offered(slot, effects);
            }
            Return::Settling { deadline } => {
                assert_eq!(
                    (effects.grant, effects.close),
                    (None, None),
                    "given on before it is clean"
                );
                self.known(slot).place = Place::Settling { deadline };
                self.woken |= effects.wake_upkeep;
            }
        }
    }

    /// A clean session that nobody uses: closed if it must be, else granted to the oldest waiter, else idle.
    pub(super) fn offered(&mut self, slot: SlotId, effects: Effects) {
        let known = self.slots[&slot];
        if effects.close.is_some() {
            let allowed = self.closed || self.is_oversized() || !self.surely_usable(&known);
            assert!(allowed, "closed for no reason: {known:?}");
            return self.closing(slot, effects);
        }
        assert!(
            !self.closed && !self.is_oversized() && self.maybe_usable(&known),
            "kept although unfit: {known:?}"
        );
        self.woken |= effects.wake_upkeep;
        match effects.grant {
            Some(Grant::Session {
                waiter,
                slot: granted,
                ping,
            }) => {
                assert_eq!(granted, slot, "another session is granted");
                let Queued {
                    waiter: oldest, ticket, ..
                } = self.queue.pop_front().expect("a grant to nobody");
                assert_eq!(waiter, oldest, "the grant is not for the oldest waiter");
                self.gone_waiters.push(waiter);
                self.lease(slot, ticket, ping);
            }
            None => {
                assert!(self.queue.is_empty(), "a session goes idle while somebody waits");
                self.known(slot).place = Place::Idle;
                self.idle.push(slot);
            }
        }
    }

    fn lease(&mut self, slot: SlotId, ticket: u64, ping: bool) {
        let (epoch, now) = (self.epoch, self.now);
        let ping_after = self.limits.ping_after;
        let known = self.known(slot);
        assert_eq!(known.epoch, epoch, "a session of an old epoch is given out");
        assert!(
            !known.ended && !known.broken && known.settle.is_none(),
            "an unfit session is given out: {known:?}"
        );
        assert_eq!(
            ping,
            ping_after.is_some_and(|after| now - known.used >= after),
            "pinged wrongly"
        );
        known.place = Place::Leased { ticket, since: now };
        known.warned = false;
    }

    pub(super) fn closing(&mut self, slot: SlotId, effects: Effects) {
        assert_eq!((effects.grant, effects.close), (None, Some(slot)), "it must be closed");
        self.known(slot).place = Place::Closing;
        self.woken |= effects.wake_upkeep;
    }

    pub(super) fn freed(&mut self, slot: SlotId, effects: Effects) {
        assert_eq!(
            (effects.grant, effects.close),
            (None, None),
            "there is nothing left to give or close"
        );
        self.idle.retain(|idle| *idle != slot);
        self.slots.remove(&slot);
        self.gone_slots.push(slot);
        self.woken |= effects.wake_upkeep;
    }

    pub(super) fn doom_idle(&mut self) {
        for slot in std::mem::take(&mut self.idle) {
            self.known(slot).place = Place::Doomed;
        }
    }

    /// Upkeep's turn, if it was woken or its time has come.
    pub(super) fn upkeep_if_called(&mut self) {
        self.read_clock(0);
        if !self.woken && self.now < self.wake_at {
            return;
        }
        // What is reaped may make room or leave fewer than the minimum, so once more at most.
        for _ in 0..2 {
            while let Some(slot) = self.ledger.next_connect(self.now) {
                self.dialled(slot);
            }
            while let Some(slot) = self.ledger.reap(self.now) {
                self.reaped(slot);
            }
            while let Some(shed) = self.ledger.shed(self.now) {
                self.refused(shed);
            }
            self.report_holds();
            self.wake_at = self.ledger.next_wake(self.now).unwrap_or(Instant::FAR_FUTURE);
            if self.now < self.wake_at {
                break;
            }
        }
        assert!(self.now < self.wake_at, "upkeep spins");
        self.woken = false;
        self.check_nothing_is_left();
    }

    /// Upkeep goes to sleep: it was given everything that was due.
    fn check_nothing_is_left(&self) {
        let spare = self.live() > self.limits.min as usize;
        for known in self.slots.values() {
            let overdue = match known.place {
                Place::Doomed => true,
                Place::Idle => {
                    let unused = self
                        .limits
                        .idle_timeout
                        .is_some_and(|timeout| self.now - known.used >= timeout);
                    self.is_oversized() || !self.maybe_usable(known) || (unused && spare)
                }
                Place::Settling { deadline } => deadline <= self.now,
                Place::Shared { .. } => {
                    !known.broken && !known.ended && known.settle.is_some_and(|deadline| deadline <= self.now)
                }
                Place::Closing | Place::Connecting | Place::Leased { .. } => false,
            };
            assert!(!overdue, "not reaped: {known:?}");
        }
        let room = self.slots.len() < self.limits.max as usize && self.in_place(State::CONNECTING).count() == 0;
        let wanted = !self.queue.is_empty() || self.live() < self.limits.min as usize;
        let paused = self.ledger.status(self.now).backoff_until.is_some();
        assert!(
            self.closed || paused || !(room && wanted),
            "no dial although one is wanted"
        );
    }

    fn dialled(&mut self, slot: SlotId) {
        let dials = self.in_place(State::CONNECTING).count();
        let useful = self
            .in_place(State::CONNECTING)
            .filter(|slot| self.slots[slot].epoch == self.epoch)
            .count();
        assert!(!self.closed, "a closed pool dials");
        assert!(
            self.slots.len() < self.limits.max as usize,
            "more server processes than max"
        );
        assert!(dials < self.limits.max_connecting as usize, "too many dials at once");
        assert!(
            self.queue.len() > useful || self.live() + useful < self.limits.min as usize,
            "dialled for nobody"
        );
        assert!(
            self.ledger.status(self.now).backoff_until.is_none(),
            "dialled during the pause"
        );
        assert!(!self.gone_slots.contains(&slot), "{slot:?} is used again");
        let known = Known {
            place: Place::Connecting,
            epoch: self.epoch,
            ended: false,
            broken: false,
            settle: None,
            born: self.now,
            used: self.now,
            warned: false,
        };
        assert!(self.slots.insert(slot, known).is_none(), "{slot:?} is in use");
    }

    fn reaped(&mut self, slot: SlotId) {
        let known = self.slots[&slot];
        let overdue = match known.place {
            Place::Doomed => true,
            Place::Idle => {
                let unused = self
                    .limits
                    .idle_timeout
                    .is_some_and(|timeout| self.now - known.used >= timeout);
                let spare = self.live() > self.limits.min as usize;
                self.is_oversized() || !self.surely_usable(&known) || (unused && spare)
            }
            Place::Settling { deadline } => deadline <= self.now,
            Place::Shared { .. } => known.settle.is_some_and(|deadline| deadline <= self.now),
            Place::Closing | Place::Connecting | Place::Leased { .. } => false,
        };
        assert!(overdue, "reaped for no reason: {known:?}");
        self.idle.retain(|idle| *idle != slot);
        self.known(slot).place = Place::Closing;
    }

    /// A waiter is refused for overload: the oldest, past the target, after an interval in which no session was idle.
    fn refused(&mut self, shed: Shed) {
        let (target, interval) = self.limits.shed.expect("this pool does not shed");
        let oldest = self.queue.pop_front().expect("nobody waits");
        assert_eq!(shed.waiter, oldest.waiter, "not the oldest waiter is refused");
        assert_eq!(shed.waited, self.now - oldest.since);
        assert!(shed.waited > target, "refused within the target: {shed:?}");
        assert!(self.idle.is_empty(), "refused while a session is idle");
        assert!(
            self.now - self.idle_at >= interval,
            "refused although a session was idle in the interval"
        );
        self.gone_waiters.push(shed.waiter);
    }

    fn report_holds(&mut self) {
        let mut reported: Vec<SlotId> = Vec::new();
        for hold in self.ledger.overdue_holds(self.now) {
            let Place::Leased { since, .. } = self.slots[&hold.slot].place else {
                panic!("{hold:?} is not held")
            };
            assert_eq!(hold.held, self.now - since);
            reported.push(hold.slot);
        }
        let warning = self.limits.hold_warning.unwrap_or(Duration::MAX);
        for (slot, known) in &mut self.slots {
            let Place::Leased { since, .. } = known.place else {
                continue;
            };
            let due = !known.warned && self.now - since >= warning;
            assert_eq!(reported.contains(slot), due, "hold of {slot:?} is reported wrongly");
            known.warned |= due;
        }
    }

    /// The books agree, and upkeep sleeps only while there is nothing to do.
    pub(super) fn check(&mut self) {
        self.ledger.check();
        if !self.idle.is_empty() {
            self.idle_at = self.now;
        }
        let status = self.ledger.status(self.now);
        let counted = [
            (
                status.closing,
                self.in_place(State::CLOSING).count() + self.in_place(State::DOOMED).count(),
            ),
            (status.connecting, self.in_place(State::CONNECTING).count()),
            (status.idle, self.in_place(State::IDLE).count()),
            (status.leased, self.in_place(State::LEASED).count()),
            (status.settling, self.in_place(State::SETTLING).count()),
            (status.shared, self.in_place(State::SHARED).count()),
            (status.waiting, self.queue.len()),
            (status.size, self.slots.len()),
        ];
        for (row, (theirs, ours)) in counted.into_iter().enumerate() {
            assert_eq!(theirs as usize, ours, "row {row} of the status is wrong");
        }
        assert_eq!((status.epoch, status.is_closed), (self.epoch, self.closed));
        assert!(status.size <= self.ceiling, "the pool grew past its bound");
        self.ceiling = self.limits.max.max(status.size.min(self.ceiling));

        let shared = self
            .in_place(State::SHARED)
            .filter(|slot| self.surely_usable(&self.slots[slot]));
        let open = shared
            .filter(|slot| !self.ledger.is_reserved_for_a_waiter(*slot))
            .count();
        let reserved = self
            .in_place(State::SHARED)
            .filter(|slot| self.ledger.is_reserved_for_a_waiter(*slot))
            .count();
        assert!(
            reserved == self.queue.len() || open == 0,
            "a waiter has no reservation though a session has room"
        );

        if !self.woken && self.now < self.wake_at {
            let mut asleep = self.ledger.clone();
            assert_eq!(
                asleep.next_connect(self.now),
                None,
                "upkeep sleeps although a dial is due"
            );
            assert_eq!(
                asleep.reap(self.now),
                None,
                "upkeep sleeps although a session must be closed"
            );
            assert_eq!(
                asleep.shed(self.now),
                None,
                "upkeep sleeps although a waiter is to be refused"
            );
            assert_eq!(
                asleep.overdue_holds(self.now),
                [],
                "upkeep sleeps although a hold is overlong"
            );
        }
    }

    /// Faults stop: everything under way succeeds, and every waiter must get its turn.
    pub(super) fn serve_everybody(&mut self) {
        for _ in 0..10_000 {
            if self.queue.is_empty() {
                return;
            }
            self.carry_on();
        }
        panic!("waiters are never served: {:?}", self.ledger.status(self.now));
    }

    /// The pool is closed, and must run empty.
    pub(super) fn shut_down(&mut self) {
        self.close();
        for _ in 0..10_000 {
            if self.slots.is_empty() {
                assert!(self.ledger.is_drained(), "empty but not drained");
                return;
            }
            self.carry_on();
        }
        panic!("the pool never drains: {:?}", self.ledger.status(self.now));
    }

    /// One thing that is under way succeeds; if there is none, time passes until upkeep wants to look.
    fn carry_on(&mut self) {
        self.read_clock(0);
        let under_way = |kind: &usize| self.in_place(*kind).next().map(|slot| (*kind, slot));
        let kinds = [
            State::CONNECTING,
            State::CLOSING,
            State::SETTLING,
            State::SHARED,
            State::LEASED,
        ];
        match kinds.iter().find_map(under_way) {
            Some((State::CONNECTING, slot)) => self.connected(slot),
            Some((State::CLOSING, slot)) => self.closed(slot),
            Some((State::SETTLING, slot)) => self.settled(slot, u8::MAX),
            Some((State::SHARED, slot)) => self.leave(slot, 0),
            Some((_, slot)) => self.checkin(slot, 0),
            None if self.woken => {}
            None => {
                assert_ne!(self.wake_at, Instant::FAR_FUTURE, "upkeep sleeps for ever");
                self.time = self.time.max(self.wake_at);
            }
        }
        self.check();
        self.upkeep_if_called();
        self.check();
    }

    /// The ledger is told the time, by a clock that lags.
    pub(super) fn read_clock(&mut self, lag_nanos: u64) {
        self.clock = Instant::from_nanos(self.time.as_nanos() - lag_nanos);
        self.now = self.now.max(self.clock);
        assert_eq!(self.ledger.advance(self.clock), self.now, "time went back");
    }

    /// How a user leaves a session; 0 is clean.
    pub(super) fn returned(&self, how: u8) -> Return {
        match how % 8 {
            0..=3 => Return::Clean,
            4..=6 => Return::Settling {
                deadline: self.now + Duration::from_millis(16 * u64::from(how)),
            },
            _ => Return::Broken(CloseReason::Discarded),
        }
    }

    pub(super) fn known(&mut self, slot: SlotId) -> &mut Known {
        self.slots.get_mut(&slot).expect("a slot the ledger has given")
    }

    pub(super) fn in_place(&self, kind: usize) -> impl Iterator<Item = SlotId> {
        self.slots
            .iter()
            .filter(move |(_, known)| known.place.kind() == kind)
            .map(|(slot, _)| *slot)
    }

    fn live(&self) -> usize {
        let kinds = [State::IDLE, State::LEASED, State::SETTLING, State::SHARED];
        kinds.iter().map(|kind| self.in_place(*kind).count()).sum()
    }

    pub(super) fn is_oversized(&self) -> bool {
        self.live() + self.in_place(State::CONNECTING).count() > self.limits.max as usize
    }

    /// Usable whatever its jitter is.
    pub(super) fn surely_usable(&self, known: &Known) -> bool {
        let shortest = self
            .limits
            .max_lifetime
            .map(|lifetime| lifetime.mul_f64(1.0 - self.limits.lifetime_jitter));
        self.maybe_usable(known) && shortest.is_none_or(|shortest| self.now - known.born < shortest)
    }

    /// Usable unless its jitter ended it already.
    pub(super) fn maybe_usable(&self, known: &Known) -> bool {
        let sound = known.epoch == self.epoch && !known.ended && !known.broken && known.settle.is_none();
        sound
            && self
                .limits
                .max_lifetime
                .is_none_or(|lifetime| self.now - known.born < lifetime)
    }

    pub(super) fn shared_usable(&self) -> usize {
        self.in_place(State::SHARED)
            .filter(|slot| self.maybe_usable(&self.slots[slot]))
            .count()
    }

    pub(super) fn random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random ^ (self.random >> 31)
    }
}
