//! What the network does to one lane at present: plain values that link faults add up to.
//!
//! Computed by `network/links.rs` when a fault begins or ends, kept by each lane, so that moving bytes asks nobody.

use std::time::Duration;

use crate::fault::{Delay, Jitter};
use crate::random::Stream;

/// The conditions of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// Each adds to the time under way.
    pub(crate) delays: Vec<Delay>,
    /// Bytes per second.
    pub(crate) bandwidth: Option<u64>,
    /// The longest piece and the gap between two.
    pub(crate) slice: Option<(u32, Duration)>,
    /// Nothing is delivered.
    pub(crate) held: bool,
    /// What is held is lost, and sent again only some time after that is over.
    pub(crate) lost: bool,
    pub(crate) max_read: Option<usize>,
    pub(crate) max_write: Option<usize>,
    /// In how many of a hundred cases a call is pending for nothing.
    pub(crate) storm: u8,
    /// How much later an end is seen.
    pub(crate) close_delay: Duration,
    /// The coverage names of the faults that make these conditions.
    pub(crate) by: Vec<&'static str>,
}

/// Exponential delays end at so many times their mean.
const LONGEST_EXPONENTIAL: u32 = 20;

impl Conditions {
    pub(crate) fn are_none(&self) -> bool {
        self.by.is_empty()
    }

    /// The time under way of the `frame`th piece.
    pub(crate) fn delay(&self, stream: &Stream, frame: u64) -> Duration {
        let each = self.delays.iter().enumerate();
        each.map(|(place, delay)| draw(*delay, stream.at(frame * 16 + place as u64)))
            .fold(Duration::ZERO, Duration::saturating_add)
    }
}

/// One delay, from one random number.
pub(crate) fn draw(delay: Delay, number: u64) -> Duration {
    let min = delay.min.span();
    let extra = match delay.jitter {
        Jitter::None => Duration::ZERO,
        Jitter::Uniform(most) => scaled(most.span(), number),
        Jitter::Tail { percent, extra } if number % 100 < u64::from(percent) => extra.span(),
        Jitter::Tail { .. } => Duration::ZERO,
        Jitter::Exponential(mean) => exponential(mean.span(), number),
    };
    min.saturating_add(extra)
}

/// `span` times the fraction that `number` is of all numbers.
pub(crate) fn scaled(span: Duration, number: u64) -> Duration {
    let nanos = (span.as_nanos().min(u128::from(u64::MAX)) * u128::from(number)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Exponential without floating point, whose functions differ between machines: each halving of probability adds the
/// same span, with a straight line between two halvings.
fn exponential(mean: Duration, number: u64) -> Duration {
    let halvings = number.leading_zeros().min(40);
    let rest = number.wrapping_shl(halvings + 1);
    // mean * ln 2 for every halving.
    let step = mean.saturating_mul(693) / 1_000;
    let whole = step.saturating_mul(halvings);
    let part = step.saturating_sub(scaled(step, rest));
    whole.saturating_add(part).min(mean.saturating_mul(LONGEST_EXPONENTIAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Micros;

    #[test]
    fn exponential_delays_have_their_mean_and_their_tail() {
        let stream = Stream::new(3, "test", 0);
        let delay = Delay {
            min: Micros(10),
            jitter: Jitter::Exponential(Micros(1_000)),
        };
        let drawn: Vec<u128> = (0..20_000).map(|n| draw(delay, stream.at(n)).as_micros()).collect();
        let mean = drawn.iter().sum::<u128>() / 20_000;
        assert!((900..1_150).contains(&mean), "mean {mean}");
        assert!(drawn.iter().any(|&micros| micros > 5_000));
        assert!(drawn.iter().all(|&micros| (10..=20_010).contains(&micros)));
    }

    #[test]
    fn a_tail_is_rare_and_uniform_stays_below() {
        let stream = Stream::new(4, "test", 0);
        let of = |jitter| {
            let delay = Delay { min: Micros(0), jitter };
            (0..1_000)
                .map(|n| draw(delay, stream.at(n)).as_micros())
                .collect::<Vec<_>>()
        };
        let tail = of(Jitter::Tail {
            percent: 5,
            extra: Micros(700),
        });
        let hits = tail.iter().filter(|&&micros| micros == 700).count();
        assert!(
            (25..90).contains(&hits) && tail.iter().all(|&micros| micros == 0 || micros == 700),
            "{hits}"
        );
        assert!(of(Jitter::Uniform(Micros(50))).iter().all(|&micros| micros < 50));
    }
}
