//! What the rounds showed: medians of per-round ratios, as a table for people and as pairs for programs.
//!
//! Behind the scenarios. Values in, text out.

use std::fmt::Write as _;
use std::time::Duration;

use crate::slice::Slice;

/// The slices of one scenario, by contender and round. The first contender is this library.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) scenario: &'static str,
    contenders: Vec<(&'static str, Vec<Slice>)>,
}

impl Results {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            contenders: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, contender: &'static str, slice: Slice) {
        match self.contenders.iter_mut().find(|(name, _)| *name == contender) {
            Some((_, slices)) => slices.push(slice),
            None => self.contenders.push((contender, vec![slice])),
        }
    }

    /// Operations per second, and by how much this library is faster.
    pub(crate) fn throughput(&self) -> String {
        let mut text = format!(
            "\n{}\n{:<14}{:>12}{:>9}{:>10}{:>24}\n",
            self.scenario, "", "per second", "ours/it", "CPU, us", "per task, min to max"
        );
        for (name, slices) in &self.contenders {
            let rate = median(slices.iter().map(Slice::per_second));
            let ratio = self.ratio(name, Slice::per_second);
            let cpu = median(slices.iter().map(Slice::cpu_micros));
            let spread = spread(slices);
            let _ = writeln!(text, "{name:<14}{rate:>12.0}{ratio:>9.2}{cpu:>10.3}{spread:>24}");
        }
        text
    }

    /// Who waited how long, and in which order callers were served.
    pub(crate) fn waits(&self) -> String {
        let mut text = format!(
            "\n{}\n{:<14}{:>15}{:>9}{:>12}{:>12}{:>12}{:>24}\n",
            self.scenario, "", "worst wait, ms", "it/ours", "grants", "overtakes", "passed by", "per task, min to max"
        );
        for (name, slices) in &self.contenders {
            let worst = median(slices.iter().map(worst_wait)) * 1e3;
            let ratio = 1.0 / self.ratio(name, worst_wait);
            let grants: u64 = slices.iter().map(|slice| slice.order.grants).sum();
            let overtakes: u64 = slices.iter().map(|slice| slice.order.overtakes).sum();
            let passed_by = slices.iter().map(|slice| slice.order.passed_by).max().unwrap_or(0);
            let spread = spread(slices);
            let _ = writeln!(
                text,
                "{name:<14}{worst:>15.3}{ratio:>9.2}{grants:>12}{overtakes:>12}{passed_by:>12}{spread:>24}"
            );
        }
        text
    }

    /// `scenario.peer=ratio` of operations per second: ours over theirs.
    pub(crate) fn throughput_pairs(&self) -> Vec<String> {
        self.pairs(self.scenario, |name| self.ratio(name, Slice::per_second))
    }

    /// `name.peer=ratio` of the worst waits: theirs over ours.
    pub(crate) fn wait_pairs(&self, name: &str) -> Vec<String> {
        self.pairs(name, |peer| 1.0 / self.ratio(peer, worst_wait))
    }

    /// The most that anybody was passed by, by contender.
    pub(crate) fn passed_by_pairs(&self, name: &str) -> Vec<String> {
        let most = |slices: &[Slice]| slices.iter().map(|slice| slice.order.passed_by).max().unwrap_or(0);
        self.contenders
            .iter()
            .map(|(contender, slices)| format!("{name}.{contender}={}", most(slices)))
            .collect()
    }

    fn pairs(&self, name: &str, ratio: impl Fn(&str) -> f64) -> Vec<String> {
        let peers = self.contenders.iter().skip(1);
        peers
            .map(|(peer, _)| format!("{name}.{peer}={:.3}", ratio(peer)))
            .collect()
    }

    /// The median over the rounds of our value over the peer's.
    fn ratio(&self, peer: &str, value: impl Fn(&Slice) -> f64) -> f64 {
        let slices = |wanted: &str| {
            let found = self.contenders.iter().find(|(name, _)| *name == wanted);
            found.map_or(&[][..], |(_, slices)| slices)
        };
        let ours = self.contenders.first().map_or("", |(name, _)| *name);
        let rounds = slices(ours).iter().zip(slices(peer));
        median(rounds.map(|(our, their)| value(our) / value(their)))
    }
}

/// The fewest and the most operations of a task in a slice.
fn spread(slices: &[Slice]) -> String {
    let done = || slices.iter().flat_map(|slice| &slice.done);
    format!("{} to {}", done().min().unwrap_or(&0), done().max().unwrap_or(&0))
}

fn worst_wait(slice: &Slice) -> f64 {
    slice.worst_wait.max(Duration::from_nanos(1)).as_secs_f64()
}

/// The middle value; not a number when there is none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
