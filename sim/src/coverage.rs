//! What a run has seen: counters by name, per run and merged over many.
//!
//! Fed by the simulated world (faults applied and felt, SQLSTATEs sent, points passed) and by whoever writes
//! [`sometimes!`](crate::sometimes). A search that never sees something it should is told so.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::FaultKind;
use crate::scenario::MOMENTS;

/// Counters by name. A name that was declared but never hit counts zero.
///
/// Names of the simulator's own: `fault.<kind>.applied` and `fault.<kind>.noticed` (somebody's call met it),
/// `fault.network.cut.<lane>.<message type>.noticed`, `sqlstate.<code>`, `point.<name>`, and of scenarios `moment.<name>`.
///
/// ```
/// use gdbpool_sim::{Coverage, Sim, sometimes};
///
/// let sim = Sim::new(1);
/// for number in 0..10 {
///     sometimes!(sim, "a number above seven", number > 7);
///     sometimes!(sim, "a number above ten", number > 10);
/// }
/// let mut all = Coverage::default();
/// all.merge(&sim.coverage());
/// assert_eq!(all.count("a number above seven"), 2);
/// assert_eq!(all.unseen().collect::<Vec<_>>(), ["a number above ten"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
}

/// The SQLSTATEs that a search over scenarios must have seen from the servers.
pub const SQLSTATES: &[&str] = &[
    "01000", "22012", "23505", "25006", "25P01", "25P02", "25P03", "26000", "28P01", "40001", "40P01", "42601",
    "42P01", "53300", "55000", "55P03", "57014", "57P01", "57P02", "57P03",
];

/// Kinds of faults that no call can be said to have met: a new standby that no pool dials, and what becomes of all clocks
/// and tasks at once.
const UNFELT: [&str; 4] = ["replication.join", "time.jump", "time.reschedule", "time.skew"];

/// The named points of the library. They are there when it is built with `--cfg gdbpool_points`, and only then.
pub const POINTS: &[&str] = &[
    "cancel.connecting",
    "cancel.sent",
    "checkin.begun",
    "checkout.granted",
    "checkout.passed_on",
    "checkout.queued",
    "checkout.validating",
    "connect.ready",
    "connect.started",
    "dial.authenticated",
    "dial.connected",
    "fence.admitted",
    "listener.dialling",
    "listener.listen_sent",
    "listener.lost",
    "prepare.queued",
    "settle.begun",
    "settle.cleaning_up",
    "settle.done",
    "settle.rolling_back",
    "transaction.before_commit",
    "transaction.before_rollback",
    "transaction.begin_queued",
    "transaction.commit_answered",
];

/// Counts how often a condition held at a place: `sometimes!(run, "name", condition)`, where `run` is a
/// [`Sim`](crate::Sim) or [`SimRuntime`](crate::SimRuntime). A name whose condition never holds is reported as unseen.
#[macro_export]
macro_rules! sometimes {
    ($run:expr, $name:expr, $condition:expr $(,)?) => {
        $run.sometimes($name, $condition)
    };
}

impl Coverage {
    /// Every name that the simulator knows of, unseen: all kinds of faults, applied and noticed, [`SQLSTATES`], and
    /// [`POINTS`] if the library has them in this build.
    #[must_use]
    pub fn expected() -> Self {
        let mut coverage = Self::default();
        for kind in FaultKind::names() {
            coverage.declare(&format!("fault.{kind}.applied"));
            if !UNFELT.contains(&kind) {
                coverage.declare(&format!("fault.{kind}.noticed"));
            }
        }
        if cfg!(gdbpool_points) {
            POINTS
                .iter()
                .for_each(|point| coverage.declare(&format!("point.{point}")));
        }
        for moment in MOMENTS {
            coverage.declare(moment);
        }
        for code in SQLSTATES {
            coverage.declare(&format!("sqlstate.{code}"));
        }
        coverage
    }

    /// Makes a name known, unseen so far.
    pub fn declare(&mut self, name: &str) {
        self.add(name, 0);
    }

    /// Counts one.
    pub fn hit(&mut self, name: &str) {
        self.add(name, 1);
    }

    /// How often a name was hit.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Adds another run's counters.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            self.add(name, *count);
        }
    }

    /// The names that were never hit, in order.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|&(_, count)| count == 0).map(|(name, _)| name)
    }

    /// All names with their counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, count)| (name.as_str(), *count))
    }

    fn add(&mut self, name: &str, hits: u64) {
        match self.counts.get_mut(name) {
            Some(count) => *count = count.saturating_add(hits),
            None => {
                self.counts.insert(name.to_owned(), hits);
            }
        }
    }
}

/// A table, one name per line, the unseen ones marked.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.iter() {
            match count {
                0 => writeln!(f, "    unseen  {name}")?,
                _ => writeln!(f, "{count:>10}  {name}")?,
            }
        }
        Ok(())
    }
}
