//! The budget of retries after lost sessions, shared by all calls of an interaction pool.
//!
//! A plain machine: calls earn, retries spend. While all is well it is full and bounds nothing; when a server goes down
//! under load, retries stay a fifth of the calls instead of doubling them.

/// Counted in fifths of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RetryBudget {
    fifths: u32,
}

const RETRY: u32 = 5;
/// A hundred retries at once, after which they have to be earned.
const FULL: u32 = 100 * RETRY;

impl Default for RetryBudget {
    fn default() -> Self {
        Self { fifths: FULL }
    }
}

impl RetryBudget {
    /// A call was made.
    pub(super) fn earn(&mut self) {
        self.fifths = (self.fifths + 1).min(FULL);
    }

    /// A call wants to be made again; whether it may.
    pub(super) fn spend(&mut self) -> bool {
        match self.fifths.checked_sub(RETRY) {
            Some(left) => {
                self.fifths = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RetryBudget;

    #[test]
    fn retries_beyond_the_first_hundred_are_a_fifth_of_the_calls() {
        let mut budget = RetryBudget::default();
        let mut made = 0;
        for _ in 0..1_000 {
            budget.earn();
            made += u32::from(budget.spend());
        }
        assert!((290..=310).contains(&made), "{made}");
        for _ in 0..10_000 {
            budget.earn();
        }
        assert_eq!(budget, RetryBudget::default(), "no more than full");
    }
}
