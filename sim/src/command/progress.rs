//! How far an exploration is: a bar on a terminal, plain lines elsewhere. Knows the wall clock.

#![expect(clippy::disallowed_methods, reason = "the command reports real rates to people")]

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Cells of the bar.
const WIDTH: usize = 30;
const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Prints how far an exploration is.
pub(crate) struct Progress {
    began: Instant,
    printed: Option<Instant>,
    total: u64,
    longest: Option<Duration>,
    terminal: bool,
}

impl Progress {
    /// Begins to measure: so many scenarios, so much time.
    pub(crate) fn new(total: u64, longest: Option<Duration>) -> Self {
        Self {
            began: Instant::now(),
            printed: None,
            total,
            longest,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.longest.is_some_and(|longest| self.began.elapsed() >= longest)
    }

    /// So many scenarios have run, so many of them failed.
    pub(crate) fn show(&mut self, done: u64, failures: u64) {
        let every = if self.terminal { BAR_EVERY } else { LINE_EVERY };
        if self.printed.is_some_and(|printed| printed.elapsed() < every) {
            return;
        }
        self.printed = Some(Instant::now());
        let rate = self.per_minute(done);
        if self.terminal {
            let part = self.part(done);
            let filled = (part * WIDTH as f64) as usize;
            let bar: String = (0..WIDTH).map(|cell| if cell < filled { '#' } else { '.' }).collect();
            eprint!("\r[{bar}] {done} scenarios, {failures} failures, {rate:.0}/min ");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{done} scenarios, {failures} failures, {rate:.0} per minute");
        }
    }

    /// Leaves the bar's line.
    pub(crate) fn end(&self) {
        if self.terminal && self.printed.is_some() {
            eprintln!();
        }
    }

    /// The rate so far.
    pub(crate) fn per_minute(&self, done: u64) -> f64 {
        let seconds = self.began.elapsed().as_secs_f64();
        if seconds > 0.0 {
            done as f64 * 60.0 / seconds
        } else {
            0.0
        }
    }

    fn part(&self, done: u64) -> f64 {
        let by_count = done as f64 / self.total.max(1) as f64;
        let by_time = self.longest.map_or(0.0, |longest| {
            self.began.elapsed().as_secs_f64() / longest.as_secs_f64().max(0.001)
        });
        by_count.max(by_time).min(1.0)
    }
}
