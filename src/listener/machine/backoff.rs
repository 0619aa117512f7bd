//! When the next dial may begin: after each failure a pause with full jitter, under a ceiling that doubles.
//!
//! A plain machine, part of the listener's. A loss counts as a failure, so that a server which ends every connection at
//! once is not dialled in a loop; the answer to a LISTEN ends the row.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) const fn new((base, cap): (Duration, Duration)) -> Self {
        Self { base, cap, failures: 0 }
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure; the whole of the longest one where trying again soon will not help.
    pub(super) fn failed(&mut self, is_permanent: bool, random: u64) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let (floor, ceiling) = if is_permanent {
            (self.cap / 2, self.cap)
        } else {
            let ceiling = self.base.saturating_mul(factor).min(self.cap);
            (self.base / 4, ceiling)
        };
        floor + share_of(ceiling.saturating_sub(floor), random)
    }
}

/// The part of `span` that `random` draws, evenly.
fn share_of(span: Duration, random: u64) -> Duration {
    let nanos = span.as_nanos() * u128::from(random) / (u128::from(u64::MAX) + 1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_anew_after_a_success() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new((base, cap));
        let ceilings: Vec<_> = (0..6).map(|_| backoff.failed(false, u64::MAX).as_millis()).collect();
        assert_eq!(ceilings, [99, 199, 399, 799, 999, 999]);
        backoff.succeeded();
        assert_eq!(backoff.failed(false, 0), base / 4);
        assert_eq!(backoff.failed(true, 0), cap / 2);
    }
}
