//! What a pool's handle, leases and tasks share: the ledger with the sessions it accounts for, behind one lock.
//!
//! The shell around the ledger: it feeds events in, and carries the effects out after the lock is released. It holds no
//! policy, and nothing awaits while the lock is held.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;

use super::abandonment::Abandonment;
use super::checkout::Granted;
use super::clock::{CoarseClock, TICK};
use super::close_reason::CloseReason;
use super::deadlines::Deadlines;
use super::events::PoolEvent;
use super::handoff::{Delivery, HandOff, Shelf};
use super::ledger::{ConnectFailure, Effects, Grant, Hold, Ledger, Return, Settled, SlotId, WaiterId};
use crate::Instant;
use crate::cancel::Cancel;
use crate::config::PoolConfig;
use crate::error::Error;
use crate::observe::{self, Broadcast, PoolMetrics};
use crate::runtime::{Runtime, point};
use crate::session::{DialPlan, Dropped, Ending, Need, Session, SettleError, Verdict, settle};

/// One pool.
pub(super) struct Shared {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) config: PoolConfig,
    pub(super) plan: DialPlan,
    pub(super) clock: CoarseClock,
    pub(super) deadlines: Deadlines,
    /// Set when the pool is closed, for what works beside it.
    pub(super) closed: Cancel,
    /// Notified when the last session of a closed pool is gone.
    pub(super) drained: Event,
    pub(super) events: Broadcast<PoolEvent>,
    pub(super) metrics: PoolMetrics,
    /// Checkouts that timed out.
    pub(super) timeouts: AtomicU64,
    /// Returned sessions on which something was still under way.
    pub(super) abandoned: AtomicU64,
    books: Mutex<Books>,
}

/// What the lock guards.
pub(super) struct Books {
    pub(super) ledger: Ledger,
    pub(super) shelf: Shelf,
    /// By slot: the session while nobody holds it, and the means to end it, always.
    berths: Vec<Berth>,
    /// By waiter: where to deliver.
    waiting: Vec<Option<HandOff>>,
    /// Sessions that have been asked to end, and when they are dropped if they do not.
    pub(super) closing: Vec<(Instant, SlotId)>,
    pub(super) last_connect_error: Option<Arc<Error>>,
    /// Holds that were reported as overlong, ever.
    pub(super) overlong_holds: u64,
}

#[derive(Default)]
struct Berth {
    session: Option<Arc<Session>>,
    ending: Option<Arc<Ending>>,
    pid: i32,
}

/// What to do once the lock is released.
#[derive(Default)]
struct Errands {
    hand_off: Option<HandOff>,
    delivery: Option<Delivery>,
    /// Dropped outside the lock: the last clone of a session says goodbye to the server.
    farewell: Option<Arc<Session>>,
    wake_upkeep: bool,
}

impl Shared {
    pub(super) fn new(
        runtime: Arc<dyn Runtime>,
        config: PoolConfig,
        plan: DialPlan,
        ledger: Ledger,
        events: Broadcast<PoolEvent>,
    ) -> Self {
        let books = Books {
            ledger,
            shelf: Shelf::default(),
            berths: Vec::new(),
            waiting: Vec::new(),
            closing: Vec::new(),
            last_connect_error: None,
            overlong_holds: 0,
        };
        Self {
            runtime,
            metrics: PoolMetrics::new(&config.name),
            config,
            plan,
            events,
            timeouts: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            clock: CoarseClock::default(),
            deadlines: Deadlines::default(),
            closed: Cancel::new(),
            drained: Event::new(),
            books: Mutex::new(books),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present instant, a little old at most.
    pub(super) fn coarse_now(&self) -> Instant {
        let (now, wake) = self.clock.read(&*self.runtime);
        if wake {
            self.wake_upkeep();
        }
        now
    }

    /// The present instant, exact enough for a span that begins now: to a twentieth of it.
    pub(super) fn now_for(&self, span: Duration) -> Instant {
        if self.is_long(span) {
            self.coarse_now()
        } else {
            self.runtime.now()
        }
    }

    /// Whether the coarse clock's lag is at most a twentieth of this span.
    pub(super) fn is_long(&self, span: Duration) -> bool {
        span >= TICK * 20
    }

    pub(super) fn wake_upkeep(&self) {
        self.deadlines.wake.notify(1);
    }

    /// A lease ended.
    pub(super) fn give_back(
        self: &Arc<Self>,
        slot: SlotId,
        session: Arc<Session>,
        discard: bool,
        hand_off: Option<HandOff>,
    ) {
        point!(self.runtime, "checkin.begun");
        session.close_fence();
        let now = self.coarse_now();
        let verdict = session.verdict();
        let how = match verdict {
            // What still runs on it is cancelled first, discarded or not.
            Verdict::Clean if discard => Return::Broken(CloseReason::Discarded),
            Verdict::Clean => Return::Clean,
            Verdict::Settle(_) => Return::Settling {
                deadline: now + self.config.settle_timeout,
            },
            Verdict::Broken if session.ended().is_some() => Return::Broken(CloseReason::ClosedByServer),
            Verdict::Broken => Return::Broken(CloseReason::Broken),
        };
        if how == Return::Clean {
            session.reset_marks();
        }
        // Off the fast path: nothing of this is asked for a clean session.
        let dropped = (verdict != Verdict::Clean).then(|| session.dropped()).flatten();
        let mut books = self.lock();
        books.shelf.take_back(hand_off);
        let hold = (dropped.is_some() || PoolMetrics::ON)
            .then(|| books.ledger.hold_of(now, slot))
            .flatten();
        let effects = books.ledger.checkin(now, slot, how);
        let late = effects.late;
        match verdict {
            Verdict::Settle(need) => {
                // Kept out of the berth while it settles: the job holds it.
                self.carry_out(books, effects);
                let abandoned = self.abandoned(dropped, &session, hold);
                self.start_settling(slot, session, need, discard, abandoned);
            }
            // What is not wanted any more is said goodbye to: its slot is free when the server's process is gone.
            Verdict::Clean => {
                books.moor(slot, session);
                self.carry_out(books, effects);
            }
            Verdict::Broken => {
                session.kill();
                self.carry_out(books, effects);
                drop(self.abandoned(dropped, &session, hold));
            }
        }
        if let Some(hold) = hold {
            self.metrics.used(hold.held);
        }
        if let Some(late) = late {
            tracing::info!(pool = &*self.config.name, at = %late.at, held = ?late.held, "an overlong lease came back");
        }
    }

    /// A granted session that nobody took.
    pub(super) fn pass_on(self: &Arc<Self>, slot: SlotId, session: Arc<Session>) {
        let now = self.coarse_now();
        let mut books = self.lock();
        let effects = books.ledger.pass_on(now, slot);
        books.moor(slot, session);
        self.carry_out(books, effects);
    }

    fn abandoned(
        self: &Arc<Self>,
        dropped: Option<Dropped>,
        session: &Session,
        hold: Option<Hold>,
    ) -> Option<(Dropped, Abandonment)> {
        let (dropped, hold) = (dropped?, hold?);
        Some((dropped, Abandonment::new(self, session.pid(), hold.at)))
    }

    fn start_settling(
        self: &Arc<Self>,
        slot: SlotId,
        session: Arc<Session>,
        need: Need,
        discard: bool,
        abandoned: Option<(Dropped, Abandonment)>,
    ) {
        let pool = Arc::clone(self);
        let settling = Arc::clone(&session);
        let job = Box::pin(async move {
            let (dropped, mut abandonment) = abandoned.unzip();
            let found = |outcome| {
                if let Some(abandonment) = &mut abandonment {
                    abandonment.found(outcome);
                }
            };
            let ended = settle(&settling, need, dropped, found).await;
            pool.settled(slot, settling, ended, discard);
            // Told once the session is at rest, or given up.
            drop(abandonment);
        });
        if !session.submit(job) {
            // The driver is gone, or about to go: its end frees the slot.
            session.kill();
        }
    }

    fn settled(self: &Arc<Self>, slot: SlotId, session: Arc<Session>, ended: Result<(), SettleError>, discard: bool) {
        let at_rest = ended.is_ok();
        let how = match ended {
            Ok(()) if discard => Settled::Broken(CloseReason::Discarded),
            Ok(()) => Settled::Clean,
            Err(error) => {
                tracing::debug!(pool = &*self.config.name, pid = session.pid(), %error, "a session could not be settled");
                session.kill();
                Settled::Broken(match error {
                    SettleError::CancelInDoubt | SettleError::Unsettled => CloseReason::Unsettled,
                    SettleError::CleanUpFailed | SettleError::PlansLost => CloseReason::CleanUpFailed,
                    SettleError::Ended => CloseReason::ClosedByServer,
                })
            }
        };
        let now = self.coarse_now();
        let mut books = self.lock();
        let effects = books.ledger.settled(now, slot, how);
        if at_rest {
            books.moor(slot, session);
        }
        self.carry_out(books, effects);
    }

    /// A dial brought a session.
    pub(super) fn connected(
        self: &Arc<Self>,
        slot: SlotId,
        session: Arc<Session>,
        ending: Arc<Ending>,
        since: Instant,
    ) {
        let now = self.runtime.now();
        let (pid, took) = (session.pid(), now - since);
        let namespace = self.plan.target.dbname.as_deref();
        observe::connected(&self.config.name, namespace, session.endpoint(), pid, took);
        self.metrics.created(took);
        // Before anybody can have it, so that its end comes after.
        self.events.send(|| PoolEvent::Connected {
            pool: Arc::clone(&self.config.name),
            pid,
            took,
        });
        let random = self.runtime.random();
        let mut books = self.lock();
        books.last_connect_error = None;
        let berth = books.berth(slot);
        berth.session = Some(session);
        berth.ending = Some(ending);
        berth.pid = pid;
        let effects = books.ledger.connected(now, slot, random);
        self.carry_out(books, effects);
    }

    /// A dial failed, or was dropped with its executor.
    pub(super) fn connect_failed(self: &Arc<Self>, slot: SlotId, failure: ConnectFailure, error: Option<Arc<Error>>) {
        let now = self.runtime.now();
        // Without an error, its task is being dropped: no jitter is wanted, and a drop may only ask for the time.
        let random = error.as_ref().map_or(0, |_| self.runtime.random());
        if let Some(error) = &error {
            self.events.send(|| PoolEvent::ConnectFailed {
                pool: Arc::clone(&self.config.name),
                error: Arc::clone(error),
            });
        }
        let mut books = self.lock();
        if error.is_some() {
            books.last_connect_error = error;
        }
        let effects = books.ledger.connect_failed(now, slot, failure, random);
        self.carry_out(books, effects);
    }

    /// The driver of a session has ended; its server process is gone or going.
    pub(super) fn ended(self: &Arc<Self>, slot: SlotId, reason: CloseReason) {
        let now = self.runtime.now();
        let mut books = self.lock();
        // What was decided before it ended counts.
        let reason = books.ledger.close_reason(slot).unwrap_or(reason);
        let ended = books.ledger.session_ended(now, slot, reason);
        let closed = books.ledger.closed(now, slot);
        let berth = std::mem::take(books.berth(slot));
        books.closing.retain(|(_, closing)| *closing != slot);
        debug_assert!(
            ended.grant.is_none() && closed.grant.is_none(),
            "an ended session cannot be granted"
        );
        self.carry_out(
            books,
            Effects {
                wake_upkeep: true,
                ..Effects::default()
            },
        );
        let pid = berth.pid;
        self.events.send(|| PoolEvent::SessionClosed {
            pool: Arc::clone(&self.config.name),
            pid,
            reason,
        });
        // Outside the lock, like every last clone of a session.
        drop(berth);
    }

    /// Closes the pool: turns waiters away and says goodbye to idle sessions, here and now.
    pub(super) fn shut(&self) {
        let now = self.runtime.now();
        let mut books = self.lock();
        let was_open = !books.ledger.is_closed();
        let turned_away: Vec<_> = books
            .ledger
            .close(now)
            .into_iter()
            .filter_map(|waiter| books.forget_waiter(waiter))
            .collect();
        let overdue = now + self.config.close_timeout;
        let mut farewells = Vec::new();
        while let Some(slot) = books.ledger.reap(now) {
            farewells.extend(books.begin_close(overdue, slot));
        }
        drop(books);
        for hand_off in turned_away {
            hand_off.deliver(Delivery::Closed);
        }
        drop(farewells);
        self.closed.cancel();
        if was_open {
            self.events.send(|| PoolEvent::PoolClosed {
                pool: Arc::clone(&self.config.name),
            });
        }
        self.wake_upkeep();
    }

    /// Does what the ledger decided: takes what is needed from the books, releases the lock, then delivers.
    pub(super) fn carry_out(self: &Arc<Self>, mut books: MutexGuard<'_, Books>, effects: Effects) {
        let mut errands = Errands {
            wake_upkeep: effects.wake_upkeep,
            ..Errands::default()
        };
        if let Some(Grant::Session { waiter, slot, ping }) = effects.grant {
            let session = books.berth(slot).session.take();
            errands.hand_off = books.waiting.get_mut(waiter.index()).and_then(Option::take);
            errands.delivery = session.map(|session| Delivery::Session(Granted::new(self, slot, session, ping)));
        }
        if let Some(slot) = effects.close {
            errands.farewell = books.begin_close(self.runtime.now() + self.config.close_timeout, slot);
            errands.wake_upkeep = true;
        }
        drop(books);
        if errands.wake_upkeep {
            self.wake_upkeep();
        }
        if let (Some(hand_off), Some(delivery)) = (errands.hand_off, errands.delivery) {
            hand_off.deliver(delivery);
        }
        drop(errands.farewell);
    }
}

impl Books {
    /// Where a waiter is to be delivered to.
    pub(super) fn await_delivery(&mut self, waiter: WaiterId, hand_off: HandOff) {
        let index = waiter.index();
        if self.waiting.len() <= index {
            self.waiting.resize_with(index + 1, || None);
        }
        self.waiting[index] = Some(hand_off);
    }

    pub(super) fn forget_waiter(&mut self, waiter: WaiterId) -> Option<HandOff> {
        self.waiting.get_mut(waiter.index()).and_then(Option::take)
    }

    pub(super) fn pid(&mut self, slot: SlotId) -> i32 {
        self.berth(slot).pid
    }

    /// Takes the session of a slot that was just leased.
    pub(super) fn take_session(&mut self, slot: SlotId) -> Option<Arc<Session>> {
        self.berth(slot).session.take()
    }

    /// Keeps a session that nobody holds, unless its slot is gone already.
    fn moor(&mut self, slot: SlotId, session: Arc<Session>) {
        if self.ledger.knows(slot) {
            self.berth(slot).session = Some(session);
        }
    }

    fn berth(&mut self, slot: SlotId) -> &mut Berth {
        let index = slot.index();
        if self.berths.len() <= index {
            self.berths.resize_with(index + 1, Berth::default);
        }
        &mut self.berths[index]
    }

    /// Asks a session to end: politely if nobody uses it, else at once. Upkeep drops it at `overdue`.
    pub(super) fn begin_close(&mut self, overdue: Instant, slot: SlotId) -> Option<Arc<Session>> {
        self.closing.push((overdue, slot));
        let berth = self.berth(slot);
        let session = berth.session.take();
        if session.is_none()
            && let Some(ending) = &berth.ending
        {
            ending.kill();
        }
        session
    }

    /// Drops sessions whose goodbye takes too long.
    pub(super) fn drop_overdue(&mut self, now: Instant) -> Option<Instant> {
        let overdue: Vec<SlotId> = self
            .closing
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, slot)| *slot)
            .collect();
        for slot in overdue {
            if let Some(ending) = &self.berth(slot).ending {
                ending.kill();
            }
        }
        self.closing.retain(|(at, _)| *at > now);
        self.closing.iter().map(|(at, _)| *at).min()
    }

    /// Ends these sessions at once, whatever runs on them.
    pub(super) fn kill(&mut self, slots: &[SlotId]) {
        for slot in slots {
            if self.ledger.knows(*slot)
                && let Some(ending) = &self.berth(*slot).ending
            {
                ending.kill();
            }
        }
    }

    /// Ends every session that is out, whatever runs on it.
    pub(super) fn kill_all(&mut self) {
        for berth in &self.berths {
            if let Some(ending) = &berth.ending {
                ending.kill();
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
