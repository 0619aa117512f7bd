//! Runs many scenarios on several threads, and shrinks the first one that fails.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use gdbpool_sim::oracle::{Violation, check};
use gdbpool_sim::scenario::{Ran, SavedScenario, Scenario, as_test, replay_line, run, still_fails};
use gdbpool_sim::{Choices, Coverage, SHRINK_TRIES, shrink};

use super::Explore;
use super::progress::Progress;

/// How often the printing thread looks at the clock.
const GLANCE: Duration = Duration::from_millis(100);

/// What a thread has found out about a seed.
struct Verdict {
    scenario: Scenario,
    violations: Vec<Violation>,
    choices: Choices,
    coverage: Coverage,
}

/// Where the threads take their seeds from.
struct Seeds {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
}

/// What all scenarios together came to.
struct Summary {
    done: u64,
    failures: u64,
    first: Option<(u64, Verdict)>,
    coverage: Coverage,
}

/// Explores, prints, and says by its status whether anything failed.
pub(crate) fn explore(options: &Explore) -> ExitCode {
    // A panic inside a run is that run's result.
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name() == Some("main") {
            eprintln!("{info}");
        }
    }));
    let seeds = Seeds {
        next: AtomicU64::new(options.first),
        end: options.first.saturating_add(options.seeds),
        stop: AtomicBool::new(false),
    };
    let longest = options.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let mut progress = Progress::new(options.seeds, longest);
    let (sender, verdicts) = channel();
    let summary = std::thread::scope(|scope| {
        for _ in 0..options.threads {
            let sender = sender.clone();
            let seeds = &seeds;
            scope.spawn(move || work(seeds, &sender));
        }
        drop(sender);
        collect(options, &seeds, &verdicts, &mut progress)
    });
    progress.end();
    print!("{}", summary.coverage);
    if let Some((number, verdict)) = summary.first {
        report(options, number, verdict);
    }
    println!(
        "scenarios={} failures={} unseen={} scenarios_per_minute={:.0}",
        summary.done,
        summary.failures,
        summary.coverage.unseen().count(),
        progress.per_minute(summary.done)
    );
    if summary.failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn work(seeds: &Seeds, sender: &Sender<Verdict>) {
    while !seeds.stop.load(Ordering::Relaxed) {
        let seed = seeds.next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        let scenario = Scenario::from_seed(seed);
        let ran = run(&scenario);
        let violations = check(&scenario, &ran);
        let Ran { choices, coverage, .. } = ran;
        let verdict = Verdict {
            scenario,
            violations,
            choices,
            coverage,
        };
        if sender.send(verdict).is_err() {
            return;
        }
    }
}

fn collect(options: &Explore, seeds: &Seeds, verdicts: &Receiver<Verdict>, progress: &mut Progress) -> Summary {
    let mut summary = Summary {
        done: 0,
        failures: 0,
        first: None,
        coverage: Coverage::expected(),
    };
    loop {
        match verdicts.recv_timeout(GLANCE) {
            Ok(verdict) => {
                summary.done += 1;
                summary.coverage.merge(&verdict.coverage);
                if !verdict.violations.is_empty() {
                    summary.failures += 1;
                    if options.keep_going {
                        let oracles: Vec<_> = verdict.violations.iter().map(|found| found.oracle).collect();
                        eprintln!("seed {} fails: {oracles:?}", verdict.scenario.seed);
                    } else {
                        seeds.stop.store(true, Ordering::Relaxed);
                    }
                    // Threads finish in any order; the lowest seed is the one that is told.
                    let is_lower = |(_, first): &(u64, Verdict)| verdict.scenario.seed < first.scenario.seed;
                    if summary.first.as_ref().is_none_or(is_lower) {
                        summary.first = Some((verdict.scenario.seed - options.first + 1, verdict));
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return summary,
        }
        progress.show(summary.done, summary.failures);
        if progress.is_over() {
            seeds.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Shrinks, saves and prints a failure. The line that replays it comes first and last.
fn report(options: &Explore, number: u64, verdict: Verdict) {
    let Verdict {
        scenario,
        violations,
        choices,
        ..
    } = verdict;
    let oracle = violations[0].oracle;
    let (seed, events) = (scenario.seed, scenario.size());
    let (small, tries) = shrink(scenario, choices, SHRINK_TRIES, |candidate| {
        still_fails(candidate, oracle)
    });
    let ran = run(&small);
    let file = options.out.join(format!("{oracle:?}-{seed}.json"));
    let saved = SavedScenario::new(small.clone(), Some(oracle), ran.trace_hash);
    let replay = match saved.save(&file) {
        Ok(()) => replay_line(&file),
        Err(error) => format!("{}: {error}; by its seed: replay {seed}", file.display()),
    };
    println!("to replay: {replay}");
    for violation in check(&small, &ran) {
        println!("{violation}");
    }
    println!("{}", as_test(&small));
    println!(
        "failure: oracle={oracle:?} seed={seed} scenarios={number} events={} of {events} tries={tries}",
        small.size()
    );
    println!("to replay: {replay}");
}
