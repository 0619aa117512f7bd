//! The rolling hash over everything that happens in a run.
//!
//! Fed by the executor, the pipes and the servers; read by tests that compare two runs. It never sees a name that is
//! process-global in tokio-postgres (`s<N>`, `p<N>`): servers give it ordinals instead.

use crate::random::mix;

/// What kind of event a line of the trace is.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Event {
    Poll = 1,
    Timer,
    Random,
    Pipe,
    Connect,
    Frontend,
    Backend,
    Manual,
}

/// The hash so far, in two lanes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    low: u64,
    high: u64,
    events: u64,
}

impl Trace {
    pub(crate) fn record(&mut self, event: Event, now: u64, words: &[u64]) {
        self.events += 1;
        self.add(event as u64);
        self.add(now);
        for &word in words {
            self.add(word);
        }
    }

    pub(crate) fn hash(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low ^ mix(self.events))
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    fn add(&mut self, word: u64) {
        self.low = mix(self.low ^ word);
        self.high = mix(self.high.rotate_left(23) ^ mix(word ^ 0x5bd1_e995_9d1b_54a5));
    }
}
