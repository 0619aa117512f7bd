//! A property over scenarios, as a test: many scenarios, the first one that fails is shrunk, saved and printed.
//!
//! Beside the runner, for tests. The seeds are fixed unless the environment says otherwise, so that a test that passes
//! does so again.

use std::path::{Path, PathBuf};

use proptest::strategy::{BoxedStrategy, Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::run::{Broken, check_run, run};
use super::{SavedScenario, Scenario, as_test, replay_line};
use crate::oracle::{Oracle, check};
use crate::random::mix;
use crate::schedule::Choices;
use crate::shrink::{SHRINK_TRIES, shrink};

/// Where scenarios that failed are written to, below the folder that the test runs in.
const FOLDER: &str = "target/gdbpool-sim";

/// Runs `cases` scenarios of a strategy and holds all oracles to each.
///
/// The environment's `GDBPOOL_SIM_SEED` gives other scenarios, `GDBPOOL_SIM_CASES` another number of them: for those that
/// look for what nobody has seen yet.
///
/// ```
/// use gdbpool_sim::scenario::{pins, prove, scenarios_of};
///
/// prove(scenarios_of(pins()), 2);
/// ```
///
/// # Panics
/// With the first scenario that fails: shrunk, saved to a file below `target/gdbpool-sim`, as a test to paste, and with the
/// line that replays it, first and last.
pub fn prove(strategy: BoxedStrategy<Scenario>, cases: u32) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("GDBPOOL_SIM_SEED").unwrap_or(0);
    let cases = number("GDBPOOL_SIM_CASES").unwrap_or(u64::from(cases));
    let mut runner = runner(seed);
    for _ in 0..cases {
        let tree = strategy.new_tree(&mut runner).expect("a strategy that rejects nothing");
        let scenario = tree.current();
        if let Err(broken) = check_run(&scenario) {
            panic!("{}", explain(broken));
        }
    }
}

/// The source of a strategy's choices, from a number.
pub(super) fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0u8; 32];
    for (place, chunk) in (0u64..).zip(bytes.chunks_mut(8)) {
        chunk.copy_from_slice(&mix(seed ^ mix(place)).to_le_bytes());
    }
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Shrinks a failure, saves it, and says all that is needed to see it again.
fn explain(broken: Broken) -> String {
    let oracle = broken.violations[0].oracle;
    let (small, _) = shrink(*broken.scenario, broken.choices, SHRINK_TRIES, |candidate| {
        still_fails(candidate, oracle)
    });
    let ran = run(&small);
    let file = file(&small, oracle);
    let saved = SavedScenario::new(small.clone(), Some(oracle), ran.trace_hash).save(&file);
    let replay = match saved {
        Ok(()) => format!("to replay: {}", replay_line(&file)),
        Err(error) => format!("{}: {error}; the test below replays it", file.display()),
    };
    let violations: Vec<_> = check(&small, &ran).iter().map(ToString::to_string).collect();
    format!("{replay}\n{}\n{}{replay}", violations.join("\n"), as_test(&small))
}

/// The choices of a scenario's run, if the same oracle finds something in it.
pub fn still_fails(scenario: &Scenario, oracle: Oracle) -> Option<Choices> {
    let ran = run(scenario);
    let found = check(scenario, &ran);
    found
        .iter()
        .any(|violation| violation.oracle == oracle)
        .then_some(ran.choices)
}

fn file(scenario: &Scenario, oracle: Oracle) -> PathBuf {
    Path::new(FOLDER).join(format!("{oracle:?}-{:016x}.json", scenario.seed))
}
