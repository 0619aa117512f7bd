//! Which of several ready tasks comes next, and which of several timers of one instant: every choice of a run.
//!
//! A plain machine under the executor. It numbers the choices and records those that differ from first-in first-out, so
//! that a run can be replayed, and shrunk, choice by choice.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::random::Stream;
use crate::source::debug_as_source;

/// How the next of several ready tasks is chosen, and how timers of one instant are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// In the order in which they became ready.
    Fifo,
    /// Probabilistic concurrency testing: tasks have random priorities, the highest runs; at `depth - 1` random places
    /// the running task falls below all others. It finds orders that a random walk hardly ever takes, and it is unfair.
    Pct {
        /// How many ordering constraints the bug has that is looked for: 2 to 4.
        depth: u32,
    },
    /// Uniformly at random, from the seed.
    Random,
    /// At random, but one task runs only when no other is ready.
    Starve {
        /// Its number: tasks count from one in the order of their spawning, servers' tasks included; zero is the
        /// future given to `block_on`.
        task: u64,
    },
}

/// The choices of a run that were not first-in first-out: at choice `k`, the `i`th of those that were ready.
///
/// With it, [`Sim::replay_choices`](crate::Sim::replay_choices) repeats a run; taking entries away moves the run towards
/// first-in first-out. Entries for choices that never come are ignored, too great places become the last.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices(pub BTreeMap<u64, u32>);

debug_as_source!(Choices, Schedule);

/// The places where PCT lowers the running task lie, on a logarithmic scale, below this many choices.
const PCT_CHOICES_LOG2: u64 = 17;

/// A task that PCT chose so often in a row, while others waited, only yields: it falls below all others.
const PCT_PATIENCE: u32 = 1_000;

/// The source of all choices of one run.
pub(crate) struct Chooser {
    schedule: Schedule,
    /// Another schedule that holds for a while, and the one to go back to.
    before: Option<Schedule>,
    picks: Stream,
    priorities: Stream,
    /// Choices so far; only those between at least two count.
    made: u64,
    taken: Choices,
    replay: Option<Choices>,
    pct: Pct,
}

#[derive(Default)]
struct Pct {
    /// The choices at which the chosen task falls, in order.
    falls: Vec<u64>,
    /// Tasks that fell, the last one lowest.
    fallen: Vec<u64>,
    last: Option<u64>,
    in_a_row: u32,
}

impl Chooser {
    pub(crate) fn new(seed: u64, schedule: Schedule) -> Self {
        let mut chooser = Self {
            schedule,
            before: None,
            picks: Stream::new(seed, "schedule", 0),
            priorities: Stream::new(seed, "priority", 0),
            made: 0,
            taken: Choices::default(),
            replay: None,
            pct: Pct::default(),
        };
        chooser.set_schedule(schedule);
        chooser
    }

    pub(crate) fn schedule(&self) -> Schedule {
        self.schedule
    }

    pub(crate) fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
        self.before = None;
        self.pct = Pct::default();
        if let Schedule::Pct { depth } = schedule {
            let mut falls: Vec<u64> = (1..u64::from(depth))
                .map(|nth| self.made + self.fall_distance(nth))
                .collect();
            falls.sort_unstable();
            self.pct.falls = falls;
        }
    }

    /// Another schedule for a while; `None` goes back.
    pub(crate) fn interlude(&mut self, schedule: Option<Schedule>) {
        match schedule {
            Some(schedule) => {
                let before = *self.before.get_or_insert(self.schedule);
                self.set_schedule(schedule);
                self.before = Some(before);
            }
            None => {
                if let Some(before) = self.before.take() {
                    self.set_schedule(before);
                }
            }
        }
    }

    pub(crate) fn replay(&mut self, choices: Choices) {
        self.replay = Some(choices);
    }

    pub(crate) fn taken(&self) -> &Choices {
        &self.taken
    }

    /// The place of the task to run next. `ready` is not empty.
    pub(crate) fn task(&mut self, ready: &VecDeque<u64>) -> usize {
        if ready.len() < 2 {
            return 0;
        }
        let place = match (self.replayed(ready.len()), self.schedule) {
            (Some(place), _) => place,
            (None, Schedule::Fifo) => 0,
            (None, Schedule::Random) => self.uniform(ready.len()),
            (None, Schedule::Pct { .. }) => self.by_priority(ready),
            (None, Schedule::Starve { task }) => self.starving(ready, task),
        };
        self.made(place);
        place
    }

    /// The place of the next of `count` timers of one instant.
    pub(crate) fn timer(&mut self, count: usize) -> usize {
        if count < 2 {
            return 0;
        }
        let place = match (self.replayed(count), self.schedule) {
            (Some(place), _) => place,
            (None, Schedule::Fifo) => 0,
            (None, _) => self.uniform(count),
        };
        self.made(place);
        place
    }

    fn made(&mut self, place: usize) {
        if place > 0 {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            self.taken.0.insert(self.made, place);
        }
        self.made += 1;
    }

    fn replayed(&self, count: usize) -> Option<usize> {
        let replay = self.replay.as_ref()?;
        let place = replay.0.get(&self.made).copied().unwrap_or(0);
        Some(usize::try_from(place).unwrap_or(usize::MAX).min(count - 1))
    }

    /// Addressed by the number of the choice, so that replacing one choice leaves the others alone.
    fn uniform(&self, count: usize) -> usize {
        let product = u128::from(self.picks.at(self.made)) * count as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    fn starving(&self, ready: &VecDeque<u64>, victim: u64) -> usize {
        let Some(at) = ready.iter().position(|&task| task == victim) else {
            return self.uniform(ready.len());
        };
        let place = self.uniform(ready.len() - 1);
        if place < at { place } else { place + 1 }
    }

    fn by_priority(&mut self, ready: &VecDeque<u64>) -> usize {
        let place = self.highest(ready);
        let task = ready[place];
        self.pct.in_a_row = match self.pct.last {
            Some(last) if last == task => self.pct.in_a_row + 1,
            _ => 0,
        };
        self.pct.last = Some(task);
        let falls = self.pct.falls.first().is_some_and(|&at| at <= self.made);
        if falls {
            self.pct.falls.remove(0);
        }
        if falls || self.pct.in_a_row > PCT_PATIENCE {
            self.pct.in_a_row = 0;
            self.pct.fallen.retain(|&fallen| fallen != task);
            self.pct.fallen.push(task);
        }
        place
    }

    /// The place of the first task of the highest priority.
    fn highest(&self, ready: &VecDeque<u64>) -> usize {
        let rank = |task: u64| match self.pct.fallen.iter().position(|&fallen| fallen == task) {
            None => (0, u64::MAX - self.priorities.at(task)),
            Some(depth) => (1, depth as u64),
        };
        let best = ready
            .iter()
            .enumerate()
            .min_by_key(|&(place, &task)| (rank(task), place));
        best.map_or(0, |(place, _)| place)
    }

    fn fall_distance(&self, nth: u64) -> u64 {
        let number = self.priorities.at(u64::MAX - nth);
        let scale = 1u64 << (number % PCT_CHOICES_LOG2);
        scale + (number >> 32) % scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(chooser: &mut Chooser, tasks: u64) -> Vec<u64> {
        let mut ready: VecDeque<u64> = (1..=tasks).collect();
        let mut order = Vec::new();
        while !ready.is_empty() {
            let place = chooser.task(&ready);
            order.extend(ready.remove(place));
        }
        order
    }

    #[test]
    fn a_replay_repeats_the_choices_and_forgetting_all_is_fifo() {
        for schedule in [
            Schedule::Random,
            Schedule::Pct { depth: 3 },
            Schedule::Starve { task: 2 },
        ] {
            let mut chooser = Chooser::new(7, schedule);
            let first = order(&mut chooser, 9);
            assert_ne!(first, (1..=9).collect::<Vec<_>>());
            let mut again = Chooser::new(8, Schedule::Random);
            again.replay(chooser.taken().clone());
            assert_eq!(order(&mut again, 9), first, "{schedule:?}");
        }
        let mut empty = Chooser::new(7, Schedule::Random);
        empty.replay(Choices::default());
        assert_eq!(order(&mut empty, 9), (1..=9).collect::<Vec<_>>());
        assert_eq!(*empty.taken(), Choices::default());
    }

    #[test]
    fn the_starved_task_comes_last() {
        for seed in 0..20 {
            let mut chooser = Chooser::new(seed, Schedule::Starve { task: 3 });
            assert_eq!(order(&mut chooser, 6).last(), Some(&3), "seed {seed}");
        }
    }

    #[test]
    fn pct_keeps_its_priorities_until_a_fall() {
        let mut chooser = Chooser::new(5, Schedule::Pct { depth: 1 });
        let first = order(&mut chooser, 8);
        assert_eq!(order(&mut chooser, 8), first, "without a fall the order stays");
        let seeds = (0..200u64).filter(|&seed| {
            let mut chooser = Chooser::new(seed, Schedule::Pct { depth: 2 });
            let first = order(&mut chooser, 8);
            (0..10).any(|_| order(&mut chooser, 8) != first)
        });
        assert!(seeds.count() > 20, "falls happen within 80 choices for many seeds");
    }

    #[test]
    fn a_task_that_only_yields_does_not_hold_pct_up() {
        let mut chooser = Chooser::new(1, Schedule::Pct { depth: 1 });
        let ready: VecDeque<u64> = (1..=2).collect();
        let first = chooser.task(&ready);
        let changed = (0..2 * PCT_PATIENCE).any(|_| chooser.task(&ready) != first);
        assert!(changed);
    }
}
