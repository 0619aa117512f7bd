//! The ledger of one pool: which session is where, who is next, what may be opened and what must be closed.
//! A plain machine: events go in with `now` (and a random number where jitter is wanted), decisions come out as
//! [`Checkout`] and [`Effects`]. It holds no session, only slots; the shell keeps the sessions, indexed by slot. It
//! never awaits, locks, spawns, reads a clock, draws randomness or does I/O, so the same code runs in production, in
//! the property test, in the fuzzer and in the simulator.
//!
//! The rules, asserted by `check` after every step of the property test:
//! - a slot is in one state and in the list of that state; capacity is free only when the session is closed;
//! - whatever becomes free (returned, settled, connected, passed on) goes to the oldest waiter, and nobody takes an idle
//!   session past one; the queue is walked by ticket, so a caller whose session failed its ping keeps its place;
//! - a session of an old epoch is never given out;
//! - a shared session that a waiter has reserved takes no more statements.
//!
//! On the path: `checkout` and `checkin` here; sessions that several statements use in `shared`; dials in `connect`;
//! ends and housekeeping in `upkeep`; refusals under overload in `shedding`; the report in `view`. Unknown and outdated ids change nothing.

mod backoff;
mod connect;
mod decisions;
mod limits;
mod shared;
mod shedding;
mod slot;
mod upkeep;
mod view;
mod waiters;

#[cfg(any(test, fuzzing))]
mod check;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use std::panic::Location;
use std::time::Duration;

#[cfg(fuzzing)]
pub use self::model::run_bytes as fuzz_ledger;

#[cfg(any(test, fuzzing))]
pub(crate) use self::decisions::Shed;
pub(crate) use self::decisions::{Checkout, ConnectFailure, Effects, Grant, Hold, Refusal, Return, Settled};
pub(crate) use self::limits::Limits;
pub(crate) use self::slot::SlotId;
pub(crate) use self::view::{Counters, Status};
pub(crate) use self::waiters::WaiterId;

use self::backoff::Backoff;
use self::shedding::Shedding;
use self::slot::{Fate, Slot, State};
use self::waiters::{Waiter, Waiters};
use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// The accounting of one pool's sessions.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    /// `limits.ping_after` without the arithmetic of `Duration`; the largest number when nothing is pinged.
    ping_after_nanos: u64,
    slots: Vec<Slot>,
    /// Slots that are closing, and slots that are connecting. Nothing is counted that a checkout would change.
    closing: u32,
    connecting: u32,
    vacant: Vec<u32>,
    /// A stack: the session used last is used next, so that the others can age out.
    idle: Vec<u32>,
    shared: Vec<u32>,
    doomed: Vec<u32>,
    /// Shared sessions that go to a waiter when they run dry; never more than there are waiters.
    reserved: u32,
    waiters: Waiters,
    backoff: Backoff,
    /// `None`: nobody is ever refused for overload.
    shedding: Option<Shedding>,
    /// Dials that will bring a session of the present epoch.
    useful_dials: u32,
    epoch: u64,
    next_ticket: u64,
    closed: bool,
    /// The latest instant seen. Callers may read a coarse clock that lags behind upkeep's; in here time never goes back,
    /// or a waiter could believe in a pause that upkeep has already seen end, and nobody would dial.
    latest: Instant,
    /// When upkeep last said it will look again.
    wake_at: Instant,
    counters: Counters,
}

impl Ledger {
    /// An empty pool. Its sessions come from [`next_connect`](Self::next_connect).
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        let limits = limits.consistent();
        let backoff = Backoff::new(&limits);
        let shedding = limits.shed.map(Shedding::new);
        let ping_after = limits.ping_after.unwrap_or(Duration::MAX);
        Self {
            limits,
            ping_after_nanos: u64::try_from(ping_after.as_nanos()).unwrap_or(u64::MAX),
            slots: Vec::new(),
            closing: 0,
            connecting: 0,
            vacant: Vec::new(),
            idle: Vec::new(),
            shared: Vec::new(),
            doomed: Vec::new(),
            reserved: 0,
            waiters: Waiters::new(),
            backoff,
            shedding,
            useful_dials: 0,
            epoch: 0,
            next_ticket: 0,
            closed: false,
            latest: now,
            wake_at: now,
            counters: Counters::default(),
        }
    }

    /// A caller wants a session for itself. Constant time; no allocation while a session is idle.
    pub(crate) fn checkout(&mut self, now: Instant, at: &'static Location<'static>) -> Checkout {
        let now = self.advance(now);
        if self.closed {
            return Checkout::Refused(Refusal::Closed);
        }
        if self.waiters.len() >= self.limits.max_waiters && (self.idle.is_empty() || !self.waiters.is_empty()) {
            self.counters.queue_full += 1;
            return Checkout::Refused(Refusal::QueueFull);
        }
        self.counters.checkouts += 1;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.serve(now, Waiter { ticket, since: now, at })
    }

    /// A lease ends.
    pub(crate) fn checkin(&mut self, now: Instant, slot: SlotId, how: Return) -> Effects {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::LEASED) else {
            return Effects::default();
        };
        if self.slots[index].warned {
            let late = self.hold(now, index);
            let effects = self.take_back(now, index, how);
            return Effects { late, ..effects };
        }
        self.take_back(now, index, how)
    }

    /// A session that came back unproven has been proven clean, or given up.
    pub(crate) fn settled(&mut self, now: Instant, slot: SlotId, how: Settled) -> Effects {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::SETTLING) else {
            return Effects::default();
        };
        match how {
            Settled::Broken(reason) => self.begin_close(now, index, reason),
            Settled::Clean => {
                self.slots[index].used = now;
                self.offer(now, index)
            }
        }
    }

    /// A waiter gives up. `false`: it has been granted a session already, which the shell must
    /// [`pass_on`](Self::pass_on).
    pub(crate) fn abandon(&mut self, now: Instant, waiter: WaiterId) -> bool {
        let now = self.advance(now);
        let queued = self.waiters.remove(waiter);
        if queued {
            self.counters.abandoned += 1;
            self.note_left();
            self.balance_reservations(now);
        }
        queued
    }

    /// How many callers stand before this waiter.
    pub(crate) fn ahead_of(&self, waiter: WaiterId) -> u32 {
        self.waiters.ahead_of(waiter)
    }

    /// A session was granted or checked out but nobody took it: it goes to the next waiter, else back to the stack.
    /// Not a use: idle timeout and ping count from where they did.
    pub(crate) fn pass_on(&mut self, now: Instant, slot: SlotId) -> Effects {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::LEASED) else {
            return Effects::default();
        };
        self.counters.passed_on += 1;
        if self.slots[index].fate == Fate::Ended {
            return self.free(now, index);
        }
        let mut effects = self.offer(now, index);
        if self.slots[index].state == State::Idle {
            // Unused for longer than upkeep expects of a session that was out.
            let due = self
                .limits
                .idle_timeout
                .map_or(Instant::FAR_FUTURE, |timeout| self.slots[index].used + timeout);
            effects.wake_upkeep |= self.look_again_at(due);
        }
        effects
    }

    /// The session did not answer its ping: it is closed, and its caller gets the next idle one or stands in line where
    /// it would stand had it never been served.
    pub(crate) fn revalidate(
        &mut self,
        now: Instant,
        slot: SlotId,
        at: &'static Location<'static>,
    ) -> (Effects, Checkout) {
        let now = self.advance(now);
        let Some(index) = self.find(slot, State::LEASED) else {
            return (Effects::default(), self.checkout(now, at));
        };
        self.counters.pings_failed += 1;
        let ticket = self.slots[index].ticket;
        let mut effects = match self.slots[index].fate {
            Fate::Ended => self.free(now, index),
            _ => self.begin_close(now, index, CloseReason::PingFailed),
        };
        if self.closed {
            return (effects, Checkout::Refused(Refusal::Closed));
        }
        let checkout = self.serve(now, Waiter { ticket, since: now, at });
        effects.wake_upkeep |= self.wake_for_waiter(now);
        (effects, checkout)
    }

    /// `now`, or the latest instant seen if that is later.
    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Gives an idle session, or a place in line.
    fn serve(&mut self, now: Instant, waiter: Waiter) -> Checkout {
        if self.waiters.is_empty()
            && let Some(index) = self.idle.pop()
        {
            let (slot, ping) = self.lease(now, index as usize, waiter);
            return Checkout::Session { slot, ping };
        }
        self.counters.waits += 1;
        let id = self.waiters.insert(waiter);
        self.note_joined(now);
        self.balance_reservations(now);
        Checkout::Wait(id)
    }

    /// The last user of a session is done with it.
    fn take_back(&mut self, now: Instant, index: usize, how: Return) -> Effects {
        if self.slots[index].fate == Fate::Ended {
            return self.free(now, index);
        }
        match how {
            Return::Broken(reason) => self.begin_close(now, index, reason),
            Return::Clean => {
                self.slots[index].used = now;
                self.offer(now, index)
            }
            // Also when it will be closed anyway: the server process works on until what it runs has been cancelled.
            Return::Settling { deadline } => {
                self.turn(index, State::Settling { deadline });
                Effects {
                    wake_upkeep: self.look_again_at(deadline),
                    ..Effects::default()
                }
            }
        }
    }

    /// A clean session that nobody uses: out if it may not stay, else to the oldest waiter, else onto the stack.
    fn offer(&mut self, now: Instant, index: usize) -> Effects {
        if let Some(reason) = self.unfit(now, index) {
            return self.begin_close(now, index, reason);
        }
        let Some((id, waiter)) = self.waiters.pop() else {
            self.turn(index, State::Idle);
            self.idle.push(index as u32);
            self.note_rested();
            return Effects::default();
        };
        if self.waiters.first().is_some_and(|first| first.ticket < waiter.ticket) {
            self.counters.overtakes += 1;
        }
        self.counters.grants += 1;
        self.note_served(now.saturating_since(waiter.since));
        let (slot, ping) = self.lease(now, index, waiter);
        self.balance_reservations(now);
        Effects {
            grant: Some(Grant::Session { waiter: id, slot, ping }),
            ..Effects::default()
        }
    }

    /// Why a session that nobody uses may not stay.
    fn unfit(&self, now: Instant, index: usize) -> Option<CloseReason> {
        let slot = &self.slots[index];
        if self.closed {
            Some(CloseReason::PoolClosed)
        } else if slot.epoch != self.epoch {
            Some(CloseReason::Epoch)
        } else if self.is_oversized() {
            Some(CloseReason::Resized)
        } else if slot.expires <= now {
            Some(CloseReason::Lifetime)
        } else {
            None
        }
    }

    fn lease(&mut self, now: Instant, index: usize, waiter: Waiter) -> (SlotId, bool) {
        self.turn(index, State::Leased);
        let slot = &mut self.slots[index];
        debug_assert_eq!(slot.epoch, self.epoch, "a session of an old epoch is given out");
        slot.warned = false;
        slot.since = now;
        slot.ticket = waiter.ticket;
        slot.at = Some(waiter.at);
        let unused = now.as_nanos().saturating_sub(slot.used.as_nanos());
        let ping = unused >= self.ping_after_nanos;
        (self.id(index), ping)
    }

    /// The shell is to close this session. Its capacity stays used until [`closed`](Self::closed).
    fn begin_close(&mut self, now: Instant, index: usize, reason: CloseReason) -> Effects {
        self.count_close(index, reason);
        self.turn(index, State::Closing);
        Effects {
            close: Some(self.id(index)),
            wake_upkeep: self.connect_due(now),
            ..Effects::default()
        }
    }

    /// The session is gone: its slot can be used again, under another generation.
    fn free(&mut self, now: Instant, index: usize) -> Effects {
        self.turn(index, State::Vacant);
        let slot = &mut self.slots[index];
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            ..Slot::VACANT
        };
        self.vacant.push(index as u32);
        Effects {
            wake_upkeep: self.connect_due(now),
            ..Effects::default()
        }
    }

    fn turn(&mut self, index: usize, state: State) {
        let before = std::mem::replace(&mut self.slots[index].state, state);
        match before {
            State::Closing => self.closing -= 1,
            State::Connecting { .. } => self.connecting -= 1,
            _ => {}
        }
        match state {
            State::Closing => self.closing += 1,
            State::Connecting { .. } => self.connecting += 1,
            _ => {}
        }
    }

    /// The slot this id names, if it is in a state of this kind.
    fn find(&self, id: SlotId, kind: usize) -> Option<usize> {
        let slot = self.slots.get(id.index())?;
        (slot.generation == id.generation && slot.state.kind() == kind).then_some(id.index())
    }

    fn id(&self, index: usize) -> SlotId {
        SlotId {
            index: index as u32,
            generation: self.slots[index].generation,
        }
    }

    fn hold(&self, now: Instant, index: usize) -> Option<Hold> {
        let slot = &self.slots[index];
        slot.at.map(|at| Hold {
            slot: self.id(index),
            at,
            held: now.saturating_since(slot.since),
        })
    }

    /// Server processes this pool has or is getting.
    fn occupied(&self) -> u32 {
        (self.slots.len() - self.vacant.len()) as u32
    }

    /// Sessions that exist and are not on their way out.
    fn live(&self) -> u32 {
        self.staying() - self.connecting
    }

    /// Sessions that exist or are on their way in, and are not on their way out.
    fn staying(&self) -> u32 {
        self.occupied() - self.closing - self.doomed.len() as u32
    }

    /// More sessions than `max`, also when all that are closing are gone.
    fn is_oversized(&self) -> bool {
        self.staying() > self.limits.max
    }
}
