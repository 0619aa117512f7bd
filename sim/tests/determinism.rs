//! The same seed gives the same run in three legs: twice on one thread (statement names go on counting there), on a fresh
//! thread, and in a fresh process. A difference is bisected to the first event, and both are shown.

#[path = "support/program.rs"]
mod program;

use std::ops::Range;
use std::process::Command;

use gdbpool_sim::fault::{Delay, Fault, FaultKind, Jitter, Link, Micros, NetworkFault, TimeFault, Trigger};
use gdbpool_sim::{PipeOptions, Schedule, Sim, TraceEvent, TraceSummary, first_difference};

const SEEDS: u64 = 12;

/// Says to the test that stands in for a fresh process which seed to run, and which events to show.
const CHILD: &str = "GDBPOOL_SIM_DETERMINISM_CHILD";

/// What a leg gives: the whole run in short, and the events asked for.
type Leg = (TraceSummary, Vec<TraceEvent>);

fn faults() -> Vec<Fault> {
    let link = Link::All;
    let kinds = [
        FaultKind::Network(NetworkFault::Latency {
            link: link.clone(),
            delay: Delay {
                min: Micros(100),
                jitter: Jitter::Exponential(Micros(300)),
            },
        }),
        FaultKind::Network(NetworkFault::Slice {
            link: link.clone(),
            max: 9,
            gap: Micros(10),
        }),
        FaultKind::Network(NetworkFault::PendingStorm {
            link: link.clone(),
            percent: 20,
        }),
        FaultKind::Network(NetworkFault::ShortReads {
            link: link.clone(),
            max: 5,
        }),
        FaultKind::Network(NetworkFault::Bandwidth {
            link,
            bytes_per_second: 1_000_000,
        }),
        FaultKind::Time(TimeFault::SpuriousWakes { percent: 5 }),
    ];
    let fault = |what| Fault {
        trigger: Trigger::At(Micros(0)),
        what,
        span: None,
    };
    kinds.into_iter().map(fault).collect()
}

/// One run. Tiny buffers and slices make the lengths of names matter, were they counted.
fn leg(seed: u64, shown: Range<u64>) -> Leg {
    let schedule = match seed % 4 {
        0 => Schedule::Fifo,
        1 => Schedule::Pct { depth: 3 },
        2 => Schedule::Starve { task: 2 },
        _ => Schedule::Random,
    };
    let sim = Sim::with_schedule(seed, schedule);
    sim.keep_trace_between(shown);
    if !seed.is_multiple_of(3) {
        sim.set_faults(faults());
    }
    if seed % 3 > 1 {
        let capacity = 64;
        sim.set_pipe_options(PipeOptions {
            capacity,
            ..PipeOptions::default()
        });
    }
    program::run(&sim);
    (sim.trace_summary(), sim.kept_trace())
}

fn on_a_fresh_thread(seed: u64, shown: Range<u64>) -> Leg {
    std::thread::scope(|scope| scope.spawn(|| leg(seed, shown)).join().unwrap())
}

fn in_a_fresh_process(seed: u64, shown: Range<u64>) -> Leg {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_run_for_another_process", "--nocapture"])
        .env(CHILD, format!("{seed} {} {}", shown.start, shown.end))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("leg: "));
    let (_, leg) = line.unwrap_or_else(|| panic!("the child said {text:?}"));
    serde_json::from_str(leg).unwrap()
}

/// Runs a leg beside the first one; a difference is looked for again, with the events around it kept.
fn compare(name: &str, seed: u64, first: &TraceSummary, run: impl Fn(u64, Range<u64>) -> Leg) {
    let (other, _) = run(seed, 0..0);
    if let Some(range) = first.first_difference(&other) {
        let (one, two) = (leg(seed, range.clone()).1, run(seed, range.clone()).1);
        let events = first_difference(&one, &two).unwrap_or_else(|| "not to be seen a second time".to_owned());
        panic!("seed {seed} differs {name}, within the events {range:?}:\n{events}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_in_three_legs() {
    for seed in 0..SEEDS {
        let (first, _) = leg(seed, 0..0);
        assert!(first.events > 500, "a run of {} events shows little", first.events);
        compare("on the same thread", seed, &first, leg);
        compare("on a fresh thread", seed, &first, on_a_fresh_thread);
        compare("in a fresh process", seed, &first, in_a_fresh_process);
    }
}

#[test]
fn another_seed_gives_another_run() {
    assert_ne!(leg(3, 0..0).0, leg(7, 0..0).0);
}

#[test]
fn a_run_for_another_process() {
    // Without the variable this is just one more run.
    let asked = std::env::var(CHILD).unwrap_or_else(|_| "0 0 0".to_owned());
    let numbers: Vec<u64> = asked.split(' ').map(|number| number.parse().unwrap()).collect();
    let leg = leg(numbers[0], numbers[1]..numbers[2]);
    println!("leg: {}", serde_json::to_string(&leg).unwrap());
}
