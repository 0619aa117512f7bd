//! `Limits`: the numbers the ledger decides by.
//!
//! Validated settings in, made consistent here once more so that no value can stop the machine. It reads no clock.

use std::time::Duration;

/// Everything about one pool that the ledger decides by.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Sessions kept open even when nobody needs them. At most `max`.
    pub(crate) min: u32,
    /// Server processes this pool may have at once: connecting, in use, idle and closing together. At least 1.
    pub(crate) max: u32,
    /// Dials under way at once. At least 1.
    pub(crate) max_connecting: u32,
    /// Callers that may queue; one more is refused.
    pub(crate) max_waiters: u32,
    /// Age at which a session is closed once nobody uses it.
    pub(crate) max_lifetime: Option<Duration>,
    /// Up to this fraction of the lifetime is taken off at birth, so that sessions opened together do not end together.
    pub(crate) lifetime_jitter: f64,
    /// How long a session above `min` may stay unused.
    pub(crate) idle_timeout: Option<Duration>,
    /// A session unused for this long is pinged before it is used.
    pub(crate) ping_after: Option<Duration>,
    /// A session held for this long is reported, once.
    pub(crate) hold_warning: Option<Duration>,
    /// Target and interval of shedding; see the file of that name.
    pub(crate) shed: Option<(Duration, Duration)>,
    /// Upper end of the first pause after a failed dial.
    pub(crate) backoff_base: Duration,
    /// Upper end of every pause after failed dials.
    pub(crate) backoff_cap: Duration,
}

impl Limits {
    /// The same limits with contradictions removed.
    pub(super) fn consistent(mut self) -> Self {
        self.max = self.max.max(1);
        self.min = self.min.min(self.max);
        self.max_connecting = self.max_connecting.max(1);
        self.shed = self
            .shed
            .map(|(target, interval)| (target, interval.max(SHORTEST_BACKOFF)));
        self.backoff_base = self.backoff_base.max(SHORTEST_BACKOFF);
        self.backoff_cap = self.backoff_cap.max(self.backoff_base);
        // The comparison is false for NaN as well.
        self.lifetime_jitter = if self.lifetime_jitter > 0.0 {
            self.lifetime_jitter.min(1.0)
        } else {
            0.0
        };
        self
    }

    /// How long a session born with this random number may live.
    pub(super) fn lifetime(&self, random: u64) -> Option<Duration> {
        let lifetime = self.max_lifetime?;
        let most = lifetime.mul_f64(self.lifetime_jitter).min(lifetime);
        Some(lifetime - share_of(most, random))
    }
}

/// The part of `span` that `random` stands for, from nothing (0) to all but a nanosecond (`u64::MAX`).
pub(super) fn share_of(span: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(((u128::from(nanos) * u128::from(random)) >> 64) as u64)
}

/// Below this a pause is no pause.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);
