//! A scenario is the whole truth of its run: run again, on this thread or a fresh one, it gives the same trace, the same
//! histories and the same end.

use gdbpool_sim::scenario::{Ran, SavedScenario, Scenario, run};

/// Everything that two runs are compared by.
fn facts(ran: &Ran) -> (u128, Vec<String>, Vec<String>, String) {
    let server = ran.server.events().iter().map(ToString::to_string).collect();
    let clients = ran.clients.events.iter().map(ToString::to_string).collect();
    (ran.trace_hash, server, clients, format!("{:?}", ran.end))
}

#[test]
fn a_scenario_runs_the_same_twice() {
    for seed in 1..=8 {
        let scenario = Scenario::from_seed(seed);
        assert_eq!(facts(&run(&scenario)), facts(&run(&scenario)), "seed {seed}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a fresh thread is what this test is about")]
fn a_scenario_runs_the_same_on_a_fresh_thread() {
    let here: Vec<_> = (1..=8).map(|seed| facts(&run(&Scenario::from_seed(seed)))).collect();
    let there = std::thread::spawn(|| {
        (1..=8)
            .map(|seed| facts(&run(&Scenario::from_seed(seed))))
            .collect::<Vec<_>>()
    });
    assert_eq!(there.join().unwrap(), here);
}

#[test]
fn the_choices_of_a_run_replay_it() {
    for seed in 1..=8 {
        let scenario = Scenario::from_seed(seed);
        let first = run(&scenario);
        let replayed = run(&Scenario {
            choices: Some(first.choices.clone()),
            ..scenario
        });
        let clients = |ran: &Ran| ran.clients.events.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(clients(&replayed), clients(&first), "seed {seed}");
    }
}

#[test]
fn a_file_replays() {
    let scenario = Scenario::from_seed(3);
    let hash = run(&scenario).trace_hash;
    let file = std::env::temp_dir().join(format!("gdbpool-sim-{}.json", std::process::id()));
    SavedScenario::new(scenario, None, hash).save(&file).unwrap();
    let saved = SavedScenario::load(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(format!("{:032x}", run(&saved.scenario).trace_hash), saved.trace_hash);
}
