//! Whether a function interaction is run again, and how long it pauses first.
//!
//! A plain machine: what became of a run in, a pause or the end out. Only what is rolled back for certain is run again:
//! conflicts that the server found, and sessions that were lost before COMMIT was written.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{Error, ErrorKind, Outcome};

/// How often a function is run again, unless its caller says otherwise.
pub(super) const RERUNS: u32 = 10;
/// Pauses are drawn between nothing and this, doubled with each run.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One call's runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reruns {
    made: u32,
    limit: u32,
}

/// Why a run may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server could not put it in an order with others (40001), or ended a deadlock with it (40P01).
    Conflict,
    /// The session was lost.
    Lost,
}

/// Why a run that ended so may be made again, if it may. `failed_with`: the SQLSTATE of a failure that the function kept
/// to itself.
pub(super) fn cause(error: &Error, failed_with: Option<&SqlState>) -> Option<Cause> {
    if !matches!(error.outcome(), Outcome::RolledBack | Outcome::NotExecuted) {
        return None;
    }
    let is_conflict =
        |state: &SqlState| [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(state);
    let told = error.database().is_some_and(|report| is_conflict(report.code()));
    let kept = matches!(error.kind(), ErrorKind::TransactionFailed) && failed_with.is_some_and(is_conflict);
    if told || kept {
        return Some(Cause::Conflict);
    }
    matches!(error.kind(), ErrorKind::Lost).then_some(Cause::Lost)
}

impl Reruns {
    pub(super) fn new(limit: u32) -> Self {
        Self { made: 0, limit }
    }

    /// The longest pause before the next run; `None` when there is none.
    pub(super) fn next(&mut self) -> Option<Duration> {
        if self.made == self.limit {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.made.min(16)).min(LONGEST_PAUSE);
        self.made += 1;
        Some(pause)
    }

    pub(super) fn made(&self) -> u32 {
        self.made
    }
}

/// A part of `longest`, drawn by `random`.
pub(super) fn jitter(longest: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.saturating_add(1).max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_postgres::error::SqlState;

    use super::{Cause, Reruns, cause, jitter};
    use crate::error::{Error, ErrorKind, Outcome, Phase};

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let mut reruns = Reruns::new(12);
        let pauses: Vec<_> = std::iter::from_fn(|| reruns.next()).collect();
        assert_eq!(pauses.len(), 12);
        assert_eq!(pauses[0], Duration::from_millis(4));
        assert!(pauses.is_sorted());
        assert_eq!(pauses[11], Duration::from_secs(1));
        assert_eq!(Reruns::new(0).next(), None);
    }

    #[test]
    fn a_pause_is_no_longer_than_its_bound() {
        let longest = Duration::from_millis(4);
        for random in [0, 1, 3_999_999, 4_000_000, 4_000_001, u64::MAX] {
            assert!(jitter(longest, random) <= longest);
        }
        assert_eq!(jitter(Duration::ZERO, 7), Duration::ZERO);
    }

    #[test]
    fn only_what_is_rolled_back_for_certain_is_run_again() {
        let lost = |outcome| Error::new(ErrorKind::Lost, outcome, Phase::Executing);
        assert_eq!(cause(&lost(Outcome::RolledBack), None), Some(Cause::Lost));
        assert_eq!(cause(&lost(Outcome::NotExecuted), None), Some(Cause::Lost));
        assert_eq!(cause(&lost(Outcome::Unknown), None), None);
        assert_eq!(cause(&lost(Outcome::Committed), None), None);
        let failed = Error::new(ErrorKind::TransactionFailed, Outcome::RolledBack, Phase::Committing);
        assert_eq!(
            cause(&failed, Some(&SqlState::T_R_SERIALIZATION_FAILURE)),
            Some(Cause::Conflict)
        );
        assert_eq!(cause(&failed, Some(&SqlState::UNIQUE_VIOLATION)), None);
        assert_eq!(cause(&failed, None), None);
        let user = Error::user("no").with_outcome(Outcome::RolledBack);
        let conflict = Some(&SqlState::T_R_SERIALIZATION_FAILURE);
        assert_eq!(cause(&user, conflict), None, "the function's own decision");
    }
}
