//! Makes a failing scenario small: fewer faults, clients and steps, shorter times, a plainer cluster and schedule.
//!
//! A plain machine around one question, whether a scenario still fails by the same oracle. It asks a bounded number of
//! times and never gives back a scenario that was not seen to fail.

use std::collections::BTreeMap;

use crate::fault::{Delay, Fault, Micros, Trigger};
use crate::scenario::{Op, Patience, Savepoint, Scenario};
use crate::schedule::{Choices, Schedule};

/// How often a scenario is run at most while it is being shrunk, unless the caller says otherwise.
pub const SHRINK_TRIES: u32 = 1_500;

/// A scenario on its way to being small.
struct Shrinker<F> {
    best: Scenario,
    /// The choices of the best scenario's run.
    choices: Choices,
    fails: F,
    tries: u32,
    limit: u32,
}

/// The smallest scenario found that fails as `scenario` does, and how often one was run.
///
/// `fails` runs a scenario: `Some` with the run's choices when the same oracle fails, `None` when nothing or something else
/// does. It is asked at most `limit` times.
///
/// ```
/// use gdbpool_sim::scenario::Scenario;
/// use gdbpool_sim::{Choices, shrink};
///
/// // What would fail here is any scenario with a client at all.
/// let fails = |scenario: &Scenario| (!scenario.clients.is_empty()).then(Choices::default);
/// let (small, _) = shrink(Scenario::from_seed(3), Choices::default(), 500, fails);
/// assert_eq!(small.size(), 0);
/// assert_eq!(small.clients.len(), 1);
/// ```
pub fn shrink<F>(scenario: Scenario, choices: Choices, limit: u32, fails: F) -> (Scenario, u32)
where
    F: FnMut(&Scenario) -> Option<Choices>,
{
    let mut shrinker = Shrinker {
        best: scenario,
        choices,
        fails,
        tries: 0,
        limit,
    };
    loop {
        let before = shrinker.best.clone();
        shrinker.faults();
        shrinker.clients();
        shrinker.steps();
        shrinker.topology();
        shrinker.plain_steps();
        shrinker.plain_faults();
        shrinker.schedule();
        shrinker.steps_before_triggers();
        if shrinker.best == before || shrinker.is_spent() {
            return (shrinker.best, shrinker.tries);
        }
    }
}

impl<F> Shrinker<F>
where
    F: FnMut(&Scenario) -> Option<Choices>,
{
    fn is_spent(&self) -> bool {
        self.tries >= self.limit
    }

    /// Takes a candidate if it still fails.
    fn take(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.is_spent() {
            return false;
        }
        self.tries += 1;
        match (self.fails)(&candidate) {
            Some(choices) => {
                (self.best, self.choices) = (candidate, choices);
                true
            }
            None => false,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.take(candidate)
    }

    fn faults(&mut self) {
        let all = self.best.faults.clone();
        self.fewer(&all, |scenario, left| scenario.faults = left);
    }

    fn clients(&mut self) {
        let all = self.best.clients.clone();
        self.fewer(&all, |scenario, left| scenario.clients = left);
    }

    fn steps(&mut self) {
        for client in 0..self.best.clients.len() {
            let Some(program) = self.best.clients.get(client) else {
                break;
            };
            let all = program.steps.clone();
            self.fewer(&all, |scenario, left| {
                if let Some(client) = scenario.clients.get_mut(client) {
                    client.steps = left;
                }
            });
        }
    }

    /// Delta debugging: takes out ever smaller blocks, as long as what is left fails.
    fn fewer<T: Clone>(&mut self, all: &[T], set: impl Fn(&mut Scenario, Vec<T>)) {
        let mut left = all.to_vec();
        let mut block = left.len();
        while block > 0 {
            let mut at = 0;
            let mut removed = false;
            while at < left.len() && !self.is_spent() {
                let end = (at + block).min(left.len());
                let rest: Vec<T> = left[..at].iter().chain(&left[end..]).cloned().collect();
                if self.change(|scenario| set(scenario, rest.clone())) {
                    left = rest;
                    removed = true;
                } else {
                    at = end;
                }
            }
            if block == 1 && !removed {
                break;
            }
            block = if block == 1 { 1 } else { block / 2 };
            if self.is_spent() {
                break;
            }
        }
    }

    fn topology(&mut self) {
        for standbys in 0..self.best.topology.standbys {
            if self.change(|scenario| scenario.topology.standbys = standbys) {
                break;
            }
        }
        self.change(|scenario| scenario.topology.synchronous = false);
        self.change(|scenario| scenario.topology.latency = Delay::default());
        self.change(|scenario| {
            scenario.topology.latency = Delay {
                min: Micros::from_millis(1),
                ..Delay::default()
            };
        });
        self.change(|scenario| scenario.topology.replay_delay = Micros(0));
        self.change(|scenario| scenario.topology.socket_buffer = 65_536);
        for size in 1..self.best.topology.write_size {
            if self.change(|scenario| scenario.topology.write_size = size) {
                break;
            }
        }
        self.change(|scenario| scenario.topology.read_size = 1);
    }

    fn plain_steps(&mut self) {
        for client in 0..self.best.clients.len() {
            for step in 0..self.best.clients[client].steps.len() {
                self.plain_step(client, step);
            }
        }
    }

    fn plain_step(&mut self, client: usize, step: usize) {
        self.change(|scenario| scenario.clients[client].steps[step].pause = Micros(0));
        self.change(|scenario| scenario.clients[client].steps[step].timeout = None);
        if !self.change(|scenario| scenario.clients[client].steps[step].patience = Patience::Await)
            && let Patience::Drop(polls) = self.best.clients[client].steps[step].patience
        {
            for fewer in 0..polls.min(8) {
                if self.change(|scenario| scenario.clients[client].steps[step].patience = Patience::Drop(fewer)) {
                    break;
                }
            }
        }
        for op in plainer(&self.best.clients[client].steps[step].op) {
            self.change(|scenario| scenario.clients[client].steps[step].op = op);
        }
    }

    fn plain_faults(&mut self) {
        for fault in 0..self.best.faults.len() {
            if !self.change(|scenario| scenario.faults[fault].span = None) {
                self.change(|scenario| scenario.faults[fault].span = Some(Micros::from_millis(1)));
            }
            let counts = self.best.faults[fault].trigger.nth().unwrap_or(1);
            for fewer in [1, counts / 2, counts.saturating_sub(1)] {
                let is_fewer = (1..counts).contains(&fewer);
                if is_fewer && self.change(|scenario| count_to(&mut scenario.faults[fault].trigger, |_| fewer)) {
                    break;
                }
            }
        }
    }

    /// Steps that only make up the number that a trigger counts to: they go together with a part of that number.
    fn steps_before_triggers(&mut self) {
        let counts = |fault: &Fault| fault.trigger.nth().is_some_and(|nth| nth > 1);
        if !self.best.faults.iter().any(counts) {
            return;
        }
        for client in 0..self.best.clients.len() {
            let mut step = 0;
            while step < self.best.clients[client].steps.len() && !self.is_spent() {
                let less = [1, 2, 3, 4, 6, 8, 12];
                let gone = less.into_iter().any(|less| {
                    self.change(|scenario| {
                        scenario.clients[client].steps.remove(step);
                        for fault in &mut scenario.faults {
                            count_to(&mut fault.trigger, |nth| nth.saturating_sub(less).max(1));
                        }
                    })
                });
                if !gone {
                    step += 1;
                }
            }
        }
    }

    fn schedule(&mut self) {
        if self.best.schedule == Schedule::Fifo && self.best.choices.is_none() {
            return;
        }
        if self.change(|scenario| {
            scenario.schedule = Schedule::Fifo;
            scenario.choices = None;
        }) {
            return;
        }
        // The same choices by name, and then block by block to first-in first-out.
        let choices = self.choices.clone();
        if self.best.choices.is_none() && !self.change(|scenario| scenario.choices = Some(choices)) {
            return;
        }
        let Some(Choices(made)) = self.best.choices.clone() else {
            return;
        };
        let made: Vec<(u64, u32)> = made.into_iter().collect();
        self.fewer(&made, |scenario, left| {
            scenario.choices = Some(Choices(left.into_iter().collect::<BTreeMap<_, _>>()));
        });
    }
}

fn count_to(trigger: &mut Trigger, change: impl FnOnce(u64) -> u64) {
    if let Some(nth) = trigger.nth_mut() {
        *nth = change(*nth);
    }
}

/// Plainer versions of a call, the plainest first.
fn plainer(op: &Op) -> Vec<Op> {
    match op.clone() {
        Op::Function { rows, savepoint, end } => {
            let one = rows.first().map_or_else(Vec::new, |row| vec![*row]);
            [
                (one.clone(), Savepoint::None),
                (one, savepoint),
                (rows, Savepoint::None),
            ]
            .into_iter()
            .map(|(rows, savepoint)| Op::Function { rows, savepoint, end })
            .collect()
        }
        Op::Pin {
            rows,
            hold,
            lease,
            cursor,
            end,
        } => {
            let one = rows.first().map_or_else(Vec::new, |row| vec![*row]);
            let plain = |rows, hold, cursor| Op::Pin {
                rows,
                hold,
                lease,
                cursor,
                end,
            };
            vec![
                plain(one.clone(), Micros(0), false),
                plain(one, hold, cursor),
                plain(rows.clone(), Micros(0), cursor),
                plain(rows, hold, false),
            ]
        }
        Op::Lease { leaves, .. } => vec![Op::Lease {
            leaves,
            hold: Micros(0),
        }],
        Op::Read { row, .. } => vec![Op::Read { row, marked: true }],
        Op::Listen { channel, span, .. } => vec![Op::Listen {
            channel,
            span,
            queue: false,
        }],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scenario with everything in it.
    fn large() -> Scenario {
        (1..)
            .map(Scenario::from_seed)
            .find(|scenario| scenario.faults.len() > 4 && scenario.clients.len() > 3)
            .expect("one of them")
    }

    #[test]
    fn what_matters_stays_and_all_else_goes() {
        let large = large();
        let wanted = large.faults[2].what.clone();
        let fails = |scenario: &Scenario| {
            let has_fault = scenario.faults.iter().any(|fault| fault.what == wanted);
            let steps = scenario.clients.iter().flat_map(|client| &client.steps);
            (has_fault && steps.count() >= 2).then(Choices::default)
        };
        let (small, tries) = shrink(large, Choices::default(), SHRINK_TRIES, fails);
        assert_eq!(
            (small.faults.len(), small.size()),
            (1, 3),
            "after {tries} tries: {small:?}"
        );
        assert_eq!(small.schedule, Schedule::Fifo);
        assert_eq!(small.topology.standbys, 0);
    }

    #[test]
    fn steps_that_a_trigger_only_counts_go_with_its_count() {
        let mut large = large();
        large.clients.truncate(1);
        let step = large.clients[0].steps[0].clone();
        large.clients[0].steps = vec![step; 9];
        large.faults.truncate(1);
        large.faults[0].trigger = Trigger::Server {
            event: crate::fault::ServerEvent::StatementBegan,
            node: None,
            nth: 8,
        };
        // As if the fault had to strike in the last step but one.
        let fails = |scenario: &Scenario| {
            let steps = scenario.clients.first().map_or(0, |client| client.steps.len() as u64);
            let nth = scenario.faults.first()?.trigger.nth()?;
            (steps == nth + 1).then(Choices::default)
        };
        let (small, _) = shrink(large, Choices::default(), SHRINK_TRIES, fails);
        assert_eq!(small.size(), 3);
    }

    #[test]
    fn tries_are_bounded_and_the_result_was_seen_to_fail() {
        let (mut asked, mut failed) = (0, Vec::new());
        let fails = |scenario: &Scenario| {
            asked += 1;
            let fails = asked % 3 == 0;
            if fails {
                failed.push(scenario.clone());
            }
            fails.then(Choices::default)
        };
        let (small, tries) = shrink(large(), Choices::default(), 10, fails);
        assert_eq!((tries, asked), (10, 10));
        assert_eq!(failed.last(), Some(&small));
    }

    #[test]
    fn choices_are_taken_away_block_by_block() {
        let mut scenario = large();
        scenario.schedule = Schedule::Random;
        let all = Choices((0..100).map(|at| (at, 1)).collect());
        let fails = |scenario: &Scenario| {
            let matters = match &scenario.choices {
                Some(Choices(made)) => made.contains_key(&42),
                None => scenario.schedule == Schedule::Random,
            };
            matters.then(|| all.clone())
        };
        let (small, _) = shrink(scenario, all.clone(), SHRINK_TRIES, fails);
        assert_eq!(small.choices, Some(Choices(BTreeMap::from([(42, 1)]))));
    }
}
