//! A second, naive ledger that watches the first: applies a list of operations and checks every answer.
//!
//! Compiled for tests and fuzzing only. The model keeps its own books from what the ledger returned, predicts each
//! answer from them, and lets the ledger check itself after every step. It also plays upkeep, faithfully: it runs only
//! when woken or when the ledger said so, hence a lost wake-up is a failure. At the end faults stop and everybody must be
//! served.

mod books;
mod op;

use std::collections::{BTreeMap, VecDeque};
use std::panic::Location;
use std::time::Duration;

pub(crate) use self::op::Op;

use super::slot::State;
use super::{
    Checkout, ConnectFailure, Effects, Grant, Ledger, Limits, Refusal, Return, Settled, Shed, SlotId, WaiterId,
};
use crate::Instant;
use crate::pool::close_reason::CloseReason;

/// What fixes the limits of a pool, how many callers it has, and how calm its life is.
pub(crate) type Setup = [u8; 10];

/// Runs a history over a pool whose limits the first ten bytes give. Panics where the ledger is wrong.
#[cfg(fuzzing)]
pub fn run_bytes(bytes: &[u8]) {
    let Some((setup, rest)) = bytes.split_first_chunk::<10>() else {
        return;
    };
    let ops: Vec<Op> = rest
        .chunks_exact(4)
        .map(|op| Op::decode([op[0], op[1], op[2], op[3]]))
        .collect();
    run(*setup, &ops);
}

/// Runs a history. Panics where the ledger is wrong.
pub(crate) fn run(setup: Setup, ops: &[Op]) {
    let mut model = Model::new(setup);
    for op in ops {
        model.apply(*op);
        model.check();
    }
    model.serve_everybody();
    model.shut_down();
}

fn limits([min, max, connecting, waiters, lifetime, idle, ping, jitter, ..]: Setup) -> Limits {
    let span = |byte: u8, millis: u64| (byte > 127).then(|| Duration::from_millis(millis * u64::from(byte)));
    let max = 1 + u32::from(max % 6);
    Limits {
        min: u32::from(min) % (max + 1),
        max,
        max_connecting: 1 + u32::from(connecting % 3),
        max_waiters: u32::from(waiters % 32),
        max_lifetime: span(lifetime, 20),
        lifetime_jitter: f64::from(jitter) / 512.0,
        idle_timeout: span(idle, 4),
        ping_after: span(ping, 4),
        hold_warning: span(idle ^ ping, 10),
        // Of every four pools one sheds; often fast enough to be caught at it.
        shed: (waiters ^ lifetime >= 192).then(|| {
            let target = Duration::from_millis(1 + u64::from(waiters % 8) * 5);
            (target, target * (1 + u32::from(ping % 4)))
        }),
        backoff_base: Duration::from_millis(10),
        backoff_cap: Duration::from_millis(300),
    }
}

/// What the model knows of one slot.
#[derive(Clone, Copy, Debug)]
struct Known {
    place: Place,
    epoch: u64,
    /// The session has ended while somebody uses it or dials it.
    ended: bool,
    /// Somebody left it broken, or with work in flight until this instant.
    broken: bool,
    settle: Option<Instant>,
    born: Instant,
    used: Instant,
    warned: bool,
}

/// A caller in line.
#[derive(Clone, Copy, Debug)]
struct Queued {
    waiter: WaiterId,
    ticket: u64,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Closing,
    Connecting,
    Doomed,
    Idle,
    Leased { ticket: u64, since: Instant },
    Settling { deadline: Instant },
    Shared { users: u32 },
}

impl Place {
    fn kind(self) -> usize {
        match self {
            Self::Closing => State::CLOSING,
            Self::Connecting => State::CONNECTING,
            Self::Doomed => State::DOOMED,
            Self::Idle => State::IDLE,
            Self::Leased { .. } => State::LEASED,
            Self::Settling { .. } => State::SETTLING,
            Self::Shared { .. } => State::SHARED,
        }
    }
}

#[derive(Debug)]
struct Model {
    ledger: Ledger,
    limits: Limits,
    /// The true time; what a caller's clock shows, which may lag; and the latest instant the ledger has seen.
    time: Instant,
    clock: Instant,
    now: Instant,
    random: u64,
    epoch: u64,
    closed: bool,
    slots: BTreeMap<SlotId, Known>,
    /// Oldest use first.
    idle: Vec<SlotId>,
    queue: VecDeque<Queued>,
    /// When a session was idle last: nobody is refused for an interval from then on.
    idle_at: Instant,
    tickets: u64,
    gone_slots: Vec<SlotId>,
    gone_waiters: Vec<WaiterId>,
    woken: bool,
    wake_at: Instant,
    /// How many of 64 faults do not happen.
    calm: u8,
    /// How many callers there are: few leave sessions idle, many fill the queue.
    callers: usize,
    /// The size may not pass this: `max`, or what was there when it shrank.
    ceiling: u32,
}

impl Model {
    fn new(setup: Setup) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let limits = limits(setup);
        Self {
            ledger: Ledger::new(limits.clone(), now),
            ceiling: limits.max,
            limits,
            time: now,
            clock: now,
            now,
            random: u64::from(setup[0]) << 8 | u64::from(setup[9]),
            epoch: 0,
            closed: false,
            slots: BTreeMap::new(),
            idle: Vec::new(),
            queue: VecDeque::new(),
            idle_at: now,
            tickets: 0,
            callers: 1 + usize::from(setup[8] / 16).min(if setup[8] % 16 < 8 { 2 } else { 16 }),
            calm: setup[9] % 4 * 21,
            gone_slots: Vec::new(),
            gone_waiters: Vec::new(),
            woken: true,
            wake_at: now,
        }
    }

    fn apply(&mut self, op: Op) {
        let lag = self.random() % 4 * (self.random() % 3_000_000);
        self.read_clock(lag);
        if op.is_fault() && self.random() % 64 < u64::from(self.calm) {
            return;
        }
        match op {
            Op::Abandon { pick } => self.abandon(pick),
            Op::Advance { millis } => self.time = self.time + Duration::from_millis(u64::from(millis)),
            Op::BumpEpoch => self.bump_epoch(),
            Op::Checkin { pick, how } => self.with(State::LEASED, pick, |model, slot| model.checkin(slot, how)),
            Op::Checkout => self.checkout(),
            Op::Close => self.close(),
            Op::Closed { pick } => self.with(State::CLOSING, pick, Self::closed),
            Op::ConnectFailed { pick, how } => {
                self.with(State::CONNECTING, pick, |model, slot| model.connect_failed(slot, how));
            }
            Op::Connected { pick } => self.with(State::CONNECTING, pick, Self::connected),
            Op::Ended { pick } => self.ended(pick),
            Op::Join { depth } => self.join(1 + u32::from(depth % 4)),
            Op::Leave { pick, how } => self.with(State::SHARED, pick, |model, slot| model.leave(slot, how)),
            Op::PassOn { pick } => self.with(State::LEASED, pick, Self::pass_on),
            Op::Resize { min, max } => self.resize(u32::from(min % 7), 1 + u32::from(max % 6)),
            Op::Revalidate { pick } => self.with(State::LEASED, pick, Self::revalidate),
            Op::Settled { pick, how } => self.with(State::SETTLING, pick, |model, slot| model.settled(slot, how)),
            Op::Share { pick } => self.with(State::LEASED, pick, Self::share),
            Op::Stale { pick } => self.stale(pick),
            Op::Upkeep => self.upkeep_if_called(),
        }
    }

    /// Does something with one of the slots in a place, if there is any.
    fn with(&mut self, kind: usize, pick: u8, act: impl FnOnce(&mut Self, SlotId)) {
        let there: Vec<SlotId> = self.in_place(kind).collect();
        if !there.is_empty() {
            act(self, there[usize::from(pick) % there.len()]);
        }
    }

    fn checkout(&mut self) {
        if self.queue.len() + self.in_place(State::LEASED).count() >= self.callers {
            return;
        }
        let answer = self.ledger.checkout(self.clock, Location::caller());
        if !matches!(answer, Checkout::Refused(_)) {
            self.tickets += 1;
        }
        let full = self.queue.len() >= self.limits.max_waiters as usize && self.idle.is_empty();
        match answer {
            Checkout::Refused(Refusal::Closed) => assert!(self.closed, "refused by an open pool"),
            Checkout::Refused(Refusal::QueueFull) => assert!(full && !self.closed, "refused although there is room"),
            _ => {
                assert!(
                    !full || self.queue.is_empty() && !self.idle.is_empty(),
                    "queued past the bound"
                );
                self.served(answer, self.tickets - 1);
            }
        }
        self.woken |= self.ledger.wake_for_waiter(self.clock);
    }

    fn checkin(&mut self, slot: SlotId, how: u8) {
        let how = self.returned(how);
        let effects = self.ledger.checkin(self.clock, slot, how);
        assert_eq!(
            effects.late.is_some(),
            self.slots[&slot].warned,
            "a late return goes unnoticed"
        );
        self.took_back(slot, how, effects);
    }

    fn settled(&mut self, slot: SlotId, how: u8) {
        if how < 64 {
            let effects = self
                .ledger
                .settled(self.clock, slot, Settled::Broken(CloseReason::CleanUpFailed));
            self.took_back(slot, Return::Broken(CloseReason::CleanUpFailed), effects);
        } else {
            let effects = self.ledger.settled(self.clock, slot, Settled::Clean);
            self.took_back(slot, Return::Clean, effects);
        }
    }

    fn connected(&mut self, slot: SlotId) {
        let random = self.random();
        let effects = self.ledger.connected(self.clock, slot, random);
        let now = self.now;
        let known = self.known(slot);
        (known.born, known.used) = (now, now);
        if known.ended {
            self.closing(slot, effects);
        } else {
            self.offered(slot, effects);
        }
    }

    fn connect_failed(&mut self, slot: SlotId, how: u8) {
        let failure = [
            ConnectFailure::Transient,
            ConnectFailure::Overloaded,
            ConnectFailure::Permanent,
        ][usize::from(how % 3)];
        let random = self.random();
        let effects = self.ledger.connect_failed(self.clock, slot, failure, random);
        assert!(effects.wake_upkeep, "upkeep does not learn of the pause");
        self.freed(slot, effects);
    }

    fn ended(&mut self, pick: u8) {
        let Some(slot) = self
            .slots
            .keys()
            .nth(usize::from(pick) % self.slots.len().max(1))
            .copied()
        else {
            return;
        };
        let effects = self.ledger.session_ended(self.clock, slot, CloseReason::ClosedByServer);
        match self.slots[&slot].place {
            Place::Closing => assert_eq!(effects, Effects::default()),
            Place::Connecting | Place::Leased { .. } | Place::Shared { .. } => {
                assert_eq!(effects, Effects::default());
                self.known(slot).ended = true;
            }
            Place::Doomed | Place::Idle | Place::Settling { .. } => self.freed(slot, effects),
        }
    }

    fn closed(&mut self, slot: SlotId) {
        let effects = self.ledger.closed(self.clock, slot);
        self.freed(slot, effects);
    }

    fn abandon(&mut self, pick: u8) {
        if pick < 64
            && let Some(waiter) = self
                .gone_waiters
                .get(usize::from(pick) % self.gone_waiters.len().max(1))
                .copied()
        {
            assert!(
                !self.ledger.abandon(self.clock, waiter),
                "a waiter leaves the queue twice"
            );
        } else if !self.queue.is_empty() {
            let Queued { waiter, .. } = self
                .queue
                .remove(usize::from(pick) % self.queue.len())
                .expect("picked among them");
            assert!(
                self.ledger.abandon(self.clock, waiter),
                "a waiter is missing from the queue"
            );
            self.gone_waiters.push(waiter);
        }
    }

    fn pass_on(&mut self, slot: SlotId) {
        let effects = self.ledger.pass_on(self.clock, slot);
        if self.slots[&slot].ended {
            self.freed(slot, effects);
        } else {
            self.offered(slot, effects);
        }
    }

    fn revalidate(&mut self, slot: SlotId) {
        let Place::Leased { ticket, .. } = self.slots[&slot].place else {
            unreachable!("picked among the leased")
        };
        let (effects, answer) = self.ledger.revalidate(self.clock, slot, Location::caller());
        self.took_back(slot, Return::Broken(CloseReason::PingFailed), effects);
        if self.closed {
            assert_eq!(answer, Checkout::Refused(Refusal::Closed));
        } else {
            self.served(answer, ticket);
        }
    }

    fn share(&mut self, slot: SlotId) {
        assert!(self.ledger.share(self.clock, slot), "a lease cannot be shared");
        self.known(slot).place = Place::Shared { users: 1 };
    }

    fn join(&mut self, max_depth: u32) {
        let takes = |known: &&Known| matches!(known.place, Place::Shared { users } if users < max_depth);
        let possible = !self.closed && self.idle.is_empty() && !self.is_oversized();
        let open = self
            .slots
            .values()
            .filter(takes)
            .filter(|known| self.surely_usable(known))
            .count();
        let Some(slot) = self.ledger.join_shared(self.clock, max_depth) else {
            // Any of them may be among the reserved.
            assert!(
                !possible || open <= self.queue.len(),
                "no session takes a statement although one could"
            );
            return;
        };
        let known = self.slots[&slot];
        assert!(
            possible && takes(&&known) && self.maybe_usable(&known),
            "a statement joined {known:?}"
        );
        assert!(
            !self.ledger.is_reserved_for_a_waiter(slot),
            "a statement joined past a reservation"
        );
        assert!(
            self.shared_usable() > self.queue.len(),
            "all shared sessions belong to waiters"
        );
        let Place::Shared { users } = known.place else {
            unreachable!("it takes statements")
        };
        self.known(slot).place = Place::Shared { users: users + 1 };
    }

    fn leave(&mut self, slot: SlotId, how: u8) {
        let how = self.returned(how);
        let effects = self.ledger.leave_shared(self.clock, slot, how);
        let known = self.known(slot);
        match how {
            Return::Broken(_) => known.broken = true,
            Return::Clean => {}
            Return::Settling { deadline } => known.settle = known.settle.max(Some(deadline)),
        }
        let Place::Shared { users } = known.place else {
            unreachable!("picked among the shared")
        };
        if users > 1 {
            known.place = Place::Shared { users: users - 1 };
            assert_eq!((effects.grant, effects.close), (None, None), "others still use it");
            self.woken |= effects.wake_upkeep;
            return;
        }
        let how = match (known.broken, known.settle.take()) {
            (true, _) => Return::Broken(CloseReason::Broken),
            (false, Some(deadline)) => Return::Settling { deadline },
            (false, None) => Return::Clean,
        };
        known.broken = false;
        self.took_back(slot, how, effects);
    }

    fn resize(&mut self, min: u32, max: u32) {
        self.woken |= self.ledger.resize(min, max);
        self.limits.max = max;
        self.limits.min = min.min(max);
        self.ceiling = max.max(self.slots.len() as u32);
    }

    fn bump_epoch(&mut self) {
        self.woken |= self.ledger.bump_epoch();
        self.epoch += 1;
        self.doom_idle();
    }

    fn close(&mut self) {
        let turned_away = self.ledger.close(self.clock);
        let queue: Vec<WaiterId> = self.queue.drain(..).map(|queued| queued.waiter).collect();
        assert_eq!(turned_away, queue, "not all waiters are told, or not in order");
        self.gone_waiters.extend(queue);
        self.closed = true;
        self.woken = true;
        self.doom_idle();
    }

    /// Calls that do not fit the slot, or name one that is gone, change nothing.
    fn stale(&mut self, pick: u8) {
        let ids: Vec<SlotId> = self.gone_slots.iter().chain(self.slots.keys()).copied().collect();
        let Some(id) = ids.get(usize::from(pick) % ids.len().max(1)).copied() else {
            return;
        };
        let kind = self.slots.get(&id).map_or(State::VACANT, |known| known.place.kind());
        let (now, ledger) = (self.clock, &mut self.ledger);
        type Call = fn(&mut Ledger, Instant, SlotId) -> Effects;
        let calls: [(usize, Call); 7] = [
            (State::LEASED, |ledger, now, id| ledger.checkin(now, id, Return::Clean)),
            (State::LEASED, Ledger::pass_on),
            (State::SETTLING, |ledger, now, id| {
                ledger.settled(now, id, Settled::Clean)
            }),
            (State::CONNECTING, |ledger, now, id| ledger.connected(now, id, 0)),
            (State::CONNECTING, |ledger, now, id| {
                ledger.connect_failed(now, id, ConnectFailure::Transient, 0)
            }),
            (State::CLOSING, Ledger::closed),
            (State::SHARED, |ledger, now, id| {
                ledger.leave_shared(now, id, Return::Clean)
            }),
        ];
        for (fits, call) in calls {
            if fits != kind {
                assert_eq!(
                    call(ledger, now, id),
                    Effects::default(),
                    "a call for kind {fits} acts on kind {kind}"
                );
            }
        }
        if kind == State::VACANT {
            assert_eq!(ledger.session_ended(now, id, CloseReason::Broken), Effects::default());
            assert!(!ledger.share(now, id));
        }
    }
}
