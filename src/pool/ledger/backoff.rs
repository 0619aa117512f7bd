//! When the next dial may begin, and how many may run at once after a failure.
//!
//! Part of the ledger's machine, asked by `next_connect`. Dials are counted in rounds: all that began before a failure
//! was known belong to one round and count as one failure, so a burst that fails together pauses like a single dial.
//! After a failure one dial goes ahead alone; each success admits one more, up to the limit, so the number doubles from
//! one generation of dials to the next. Jitter is full: the pause is drawn from nearly nothing up to a ceiling that
//! doubles, so pools that failed together do not return together.

use std::time::Duration;

use super::decisions::ConnectFailure;
use super::limits::{Limits, share_of};
use crate::Instant;

/// Pause and ramp of one pool's dials.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    /// Doublings so far.
    level: u32,
    not_before: Instant,
    round: u32,
    /// Dials of this round under way.
    dialling: u32,
    /// Dials of this round that may be under way.
    window: u32,
}

impl Backoff {
    pub(super) const fn new(limits: &Limits) -> Self {
        let not_before = Instant::from_nanos(0);
        Self {
            level: 0,
            not_before,
            round: 0,
            dialling: 0,
            window: limits.max_connecting,
        }
    }

    /// Whether a dial may begin now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.dialling < self.window && self.not_before <= now
    }

    /// The end of the pause, if there is one at `now`.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        (self.not_before > now).then_some(self.not_before)
    }

    /// A dial begins; the round it belongs to.
    pub(super) const fn begin(&mut self) -> u32 {
        self.dialling += 1;
        self.round
    }

    pub(super) fn succeeded(&mut self, round: u32, limits: &Limits) {
        // A dial that began before the failure says nothing about the server after it.
        if round != self.round {
            return;
        }
        self.dialling -= 1;
        self.level = 0;
        self.not_before = Instant::from_nanos(0);
        self.window = self.window.saturating_add(1).min(limits.max_connecting);
    }

    pub(super) fn failed(&mut self, now: Instant, round: u32, failure: ConnectFailure, random: u64, limits: &Limits) {
        if round != self.round {
            return;
        }
        self.round = self.round.wrapping_add(1);
        self.dialling = 0;
        self.window = 1;
        let doublings = if failure == ConnectFailure::Overloaded { 2 } else { 1 };
        self.level = self.level.saturating_add(doublings);
        let (floor, ceiling) = match failure {
            ConnectFailure::Permanent => (limits.backoff_cap / 2, limits.backoff_cap),
            ConnectFailure::Overloaded | ConnectFailure::Transient => (limits.backoff_base / 4, self.ceiling(limits)),
        };
        self.not_before = now + floor + share_of(ceiling - floor, random);
    }

    fn ceiling(&self, limits: &Limits) -> Duration {
        let factor = 1u32.checked_shl(self.level.saturating_sub(1)).unwrap_or(u32::MAX);
        limits.backoff_base.saturating_mul(factor).min(limits.backoff_cap)
    }
}
