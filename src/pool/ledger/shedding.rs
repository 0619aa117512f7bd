//! Shedding: which waiters are refused while the pool is overloaded. A plain machine.
//!
//! Controlled delay (CoDel: Nichols and Jacobson, 2012) with a bound on every wait while it lasts, as in "Fail at Scale"
//! (Maurer, 2015): when for a whole interval nobody was served within the target and no session was idle, waiters are
//! refused as soon as they have waited longer than the target, the oldest first. That ends with the first interval in
//! which nobody had to be refused, or with the first idle session. Called by the queue and by upkeep; it never refuses a
//! newcomer, and never chooses who is served: that stays first come, first served.

use std::time::Duration;

use super::Ledger;
use super::decisions::Shed;
use super::waiters::Waiter;
use crate::Instant;

/// The state of one pool's shedding.
#[derive(Clone, Debug)]
pub(super) struct Shedding {
    target: Duration,
    interval: Duration,
    /// The present interval; `None` while nobody waits.
    ends: Option<Instant>,
    /// Somebody was served within the target in it.
    short: bool,
    /// Somebody was refused in it.
    shed: bool,
    overloaded: bool,
}

impl Shedding {
    pub(super) fn new((target, interval): (Duration, Duration)) -> Self {
        Self {
            target,
            interval,
            ends: None,
            short: false,
            shed: false,
            overloaded: false,
        }
    }

    /// A caller joins the queue.
    fn joined(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.begin(now);
        }
    }

    /// A waiter is served after this span.
    fn served(&mut self, wait: Duration) {
        self.short |= wait <= self.target;
    }

    /// A session has nobody to go to: whatever there was has passed.
    fn rested(&mut self) {
        self.overloaded = false;
        self.ends = None;
    }

    /// A waiter gave up and left nobody behind: whether the queue would have moved is unknown.
    fn left(&mut self) {
        if !self.overloaded {
            self.ends = None;
        }
    }

    fn begin(&mut self, now: Instant) {
        self.ends = Some(now + self.interval);
        self.short = false;
        self.shed = false;
    }

    /// Judges the interval that is over, if one is.
    fn turn(&mut self, now: Instant, somebody_waits: bool) {
        let Some(ends) = self.ends.filter(|ends| *ends <= now) else {
            return;
        };
        // While waiters are refused at the target, nobody is served after it: what counts then is whether any was refused.
        self.overloaded = if self.overloaded { self.shed } else { !self.short };
        // Nobody looked for longer than an interval: what was seen is too old to refuse anybody for.
        self.overloaded &= now < ends + self.interval;
        if somebody_waits || self.overloaded {
            self.begin(now);
        } else {
            self.ends = None;
        }
    }

    /// When somebody who came at `since` is refused, or the interval judged.
    fn due(&self, oldest: Option<Instant>) -> Instant {
        let refused = oldest.filter(|_| self.overloaded).map(|since| {
            let longest = since + self.target;
            Instant::from_nanos(longest.as_nanos().saturating_add(1))
        });
        let judged = self.ends.unwrap_or(Instant::FAR_FUTURE);
        refused.map_or(judged, |refused| refused.min(judged))
    }
}

impl Ledger {
    /// The next waiter that is refused because the pool is overloaded; upkeep calls this until it gives none. The shell
    /// tells it.
    pub(crate) fn shed(&mut self, now: Instant) -> Option<Shed> {
        let now = self.advance(now);
        let oldest = self.waiters.first().copied();
        let shedding = self.shedding.as_mut()?;
        shedding.turn(now, oldest.is_some());
        let waited = now.saturating_since(oldest?.since);
        if !shedding.overloaded || waited <= shedding.target {
            return None;
        }
        shedding.shed = true;
        let (waiter, Waiter { at, .. }) = self.waiters.pop()?;
        self.counters.shed += 1;
        self.balance_reservations(now);
        Some(Shed { waiter, at, waited })
    }

    /// Whether waiters are being refused.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.shedding.as_ref().is_some_and(|shedding| shedding.overloaded)
    }

    /// A caller has joined the queue. `true`: upkeep is to be woken, for it or for the order of the queue.
    pub(crate) fn wake_for_waiter(&mut self, now: Instant) -> bool {
        let due = self.shedding_due();
        let earlier = due != Instant::FAR_FUTURE && self.look_again_at(due);
        self.connect_due(now) || earlier
    }

    pub(super) fn note_joined(&mut self, now: Instant) {
        if let Some(shedding) = &mut self.shedding {
            shedding.joined(now);
        }
    }

    pub(super) fn note_served(&mut self, wait: Duration) {
        if let Some(shedding) = &mut self.shedding {
            shedding.served(wait);
        }
    }

    pub(super) fn note_left(&mut self) {
        if let Some(shedding) = self.shedding.as_mut().filter(|_| self.waiters.is_empty()) {
            shedding.left();
        }
    }

    pub(super) fn note_rested(&mut self) {
        if let Some(shedding) = &mut self.shedding {
            shedding.rested();
        }
    }

    /// When upkeep must look at the queue.
    pub(super) fn shedding_due(&self) -> Instant {
        match &self.shedding {
            Some(shedding) => shedding.due(self.waiters.first().map(|first| first.since)),
            None => Instant::FAR_FUTURE,
        }
    }
}
