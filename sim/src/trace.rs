//! Everything that happens in a run, in order, each event with its cause: a rolling hash, and the events themselves.
//!
//! Fed by the executor, the network and the servers; read by whoever compares two runs or looks for the way to a failure.
//! Words are hashed, texts are not: a text may show a name that is process-global in tokio-postgres (`s<N>`, `p<N>`),
//! a word never does. The hash is always kept; events only as far as somebody asked for them.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use gdbpool::Instant;
use serde::{Deserialize, Serialize};

use crate::random::mix;

/// What kind of event a line of the trace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Fault,
}

/// The hash is noted after every so many events, to find the first difference of two runs.
const INTERVAL: u64 = 1_024;

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Its number, from one.
    pub seq: u64,
    /// The number of the event that led to it; zero for none.
    pub cause: u64,
    /// When, in nanoseconds of virtual time.
    pub nanos: u64,
    /// What kind: `Poll`, `Timer`, `Frontend` and so on.
    pub kind: String,
    /// What the hash covers.
    pub words: Vec<u64>,
    /// What it was, for readers.
    pub text: String,
}

/// What is needed to compare two runs: the hash, and hashes on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The hash over all events, in two halves.
    pub hash: (u64, u64),
    /// How many events.
    pub events: u64,
    /// The hash after every 1,024 events.
    pub checkpoints: Vec<(u64, u64)>,
}

/// The trace of one run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    low: u64,
    high: u64,
    events: u64,
    checkpoints: Vec<(u64, u64)>,
    /// The event that those to come are caused by.
    cause: u64,
    keep: Keep,
    kept: VecDeque<TraceEvent>,
}

#[derive(Debug, Default)]
enum Keep {
    #[default]
    Nothing,
    Last(usize),
    Between(Range<u64>),
}

impl Trace {
    /// Records an event caused by the present one.
    pub(crate) fn record(&mut self, event: Event, now: Instant, words: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.add(event as u64);
        self.add(now.as_nanos());
        for &word in words {
            self.add(word);
        }
        if self.events.is_multiple_of(INTERVAL) {
            self.checkpoints.push((self.high, self.low));
        }
        let wanted = match &self.keep {
            Keep::Nothing => false,
            Keep::Last(_) => true,
            Keep::Between(range) => range.contains(&self.events),
        };
        if wanted {
            self.kept.push_back(TraceEvent {
                seq: self.events,
                cause: self.cause,
                nanos: now.as_nanos(),
                kind: format!("{event:?}"),
                words: words.to_vec(),
                text: text(),
            });
            if matches!(self.keep, Keep::Last(most) if self.kept.len() > most) {
                self.kept.pop_front();
            }
        }
    }

    /// Records an event that was caused earlier; what follows is caused by it.
    pub(crate) fn turn(&mut self, event: Event, now: Instant, words: &[u64], cause: u64) {
        self.cause = cause;
        self.record(event, now, words, String::new);
        self.cause = self.events;
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.events
    }

    pub(crate) fn hash(&self) -> u128 {
        (u128::from(self.high) << 64) | u128::from(self.low ^ mix(self.events))
    }

    pub(crate) fn summary(&self) -> TraceSummary {
        TraceSummary {
            hash: (self.high, self.low ^ mix(self.events)),
            events: self.events,
            checkpoints: self.checkpoints.clone(),
        }
    }

    pub(crate) fn keep_last(&mut self, events: usize) {
        self.keep = Keep::Last(events);
    }

    pub(crate) fn keep_between(&mut self, range: Range<u64>) {
        self.keep = Keep::Between(range);
    }

    pub(crate) fn kept(&self) -> Vec<TraceEvent> {
        self.kept.iter().cloned().collect()
    }

    fn add(&mut self, word: u64) {
        self.low = mix(self.low ^ word);
        self.high = mix(self.high.rotate_left(23) ^ mix(word ^ 0x5bd1_e995_9d1b_54a5));
    }
}

impl TraceSummary {
    /// Where the first difference lies: the numbers of the events among which it is. `None` for equal runs.
    ///
    /// To see it, run both again with [`Sim::keep_trace_between`](crate::Sim::keep_trace_between) and compare what
    /// [`Sim::kept_trace`](crate::Sim::kept_trace) gives.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<Range<u64>> {
        if self == other {
            return None;
        }
        let pairs = self.checkpoints.iter().zip(&other.checkpoints);
        let equal = pairs.take_while(|(one, two)| one == two).count() as u64;
        Some(equal * INTERVAL + 1..(equal + 1) * INTERVAL + 1)
    }
}

/// The first events that differ in two lists, as text; `None` if they are equal, texts and causes aside.
#[must_use]
pub fn first_difference(one: &[TraceEvent], two: &[TraceEvent]) -> Option<String> {
    let differ = |one: &TraceEvent, two: &TraceEvent| {
        (one.seq, one.nanos, &one.kind, &one.words) != (two.seq, two.nanos, &two.kind, &two.words)
    };
    let longest = one.len().max(two.len());
    let at = (0..longest).find(|&at| match (one.get(at), two.get(at)) {
        (Some(one), Some(two)) => differ(one, two),
        _ => true,
    })?;
    let shown = |event: Option<&TraceEvent>| event.map_or("(nothing)".to_owned(), ToString::to_string);
    Some(format!("one: {}\ntwo: {}", shown(one.get(at)), shown(two.get(at))))
}

/// The chain of causes that ends in the last of `events`, oldest first, at most `most` of them, as text.
#[must_use]
pub fn causes(events: &[TraceEvent], most: usize) -> String {
    let mut lines = Vec::new();
    let mut next = events.last();
    while let Some(event) = next.filter(|_| lines.len() < most) {
        lines.push(event.to_string());
        let place = events.binary_search_by_key(&event.cause, |event| event.seq).ok();
        next = place.map(|place| &events[place]);
    }
    lines.reverse();
    lines.join("\n")
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.nanos / 1_000;
        write!(
            f,
            "{}.{:06} s #{} after #{} {}",
            micros / 1_000_000,
            micros % 1_000_000,
            self.seq,
            self.cause,
            self.kind
        )?;
        match self.text.as_str() {
            "" => write!(f, " {:x?}", self.words),
            text => write!(f, " {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(different: u64) -> Trace {
        let mut trace = Trace::default();
        trace.keep_between(2_049..3_073);
        for number in 0..5_000u64 {
            let word = if number == different { 0 } else { number };
            trace.record(Event::Poll, Instant::from_nanos(number), &[word], String::new);
        }
        trace
    }

    #[test]
    fn the_first_difference_is_found() {
        let (one, two) = (trace(5_001), trace(3_000));
        let range = one.summary().first_difference(&two.summary()).unwrap();
        assert_eq!(range, 2_049..3_073);
        let text = first_difference(&one.kept(), &two.kept()).unwrap();
        assert!(
            text.contains("#3001 ") && text.contains("[bb8]") && text.contains("[0]"),
            "{text}"
        );
        assert_eq!(one.summary().first_difference(&trace(5_001).summary()), None);
    }

    #[test]
    fn causes_lead_back() {
        let mut trace = Trace::default();
        trace.keep_last(10);
        let now = Instant::from_nanos(1_500_000);
        trace.turn(Event::Poll, now, &[1], 0);
        trace.record(Event::Pipe, now, &[2], || "hello".to_owned());
        trace.turn(Event::Poll, now, &[3], 0);
        trace.turn(Event::Poll, now, &[4], 2);
        let text = causes(&trace.kept(), 9);
        assert_eq!(
            text,
            "0.001500 s #1 after #0 Poll [1]\n0.001500 s #2 after #1 Pipe hello\n0.001500 s #4 after #2 Poll [4]"
        );
    }
}
